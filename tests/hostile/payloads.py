"""Forty pieces of text that want to be more than text, and what a page would show if one of them were."""

from __future__ import annotations

SET, ASK = "window.__pwned=1", "http://127.0.0.1:9/x"
PAYLOADS = (
    # elements and handlers
    f"<script>{SET}</script>", f"</script><script>{SET}</script>", f"</ScRiPt\n><script>{SET}</script >",
    f"<!--<script>{SET}//-->", f"<img src=x onerror={SET}>", f"<img src={ASK}>", f'"><svg/onload={SET}>',
    f"<svg><script>{SET}</script></svg>", f"<svg><animate onbegin={SET} attributeName=x></svg>",
    f"<details open ontoggle={SET}>", f"<input autofocus onfocus={SET}>", f"<video><source onerror={SET}></video>",
    f"<iframe srcdoc='<script>parent.{SET}</script>'></iframe>", f"<object data={ASK}></object>",
    f"<link rel=stylesheet href={ASK}>", f"<meta http-equiv=refresh content='0;url={ASK}'>", f"<base href={ASK}>",
    f"<form action={ASK}><button autofocus>x</button></form>", f"<style>@import '{ASK}';*{{display:none}}</style>",
    f"</style><script>{SET}</script>", f"</title><script>{SET}</script>", f"</textarea><script>{SET}</script>",
    f"<math><annotation-xml encoding=text/html><img src onerror={SET}></annotation-xml></math>",
    f"<template><script>{SET}</script></template>",
    # attributes and links
    f"' onmouseover='{SET}' x='", f'" onmouseover="{SET}" x="', f"<a href=javascript:{SET}>x</a>", f"javascript:{SET}",
    f"java\tscript:{SET}", f"data:text/html,<script>{SET}</script>", f"[x](javascript:{SET})", f"![x]({ASK})",
    # languages inside languages
    "{{ 7*7 }}{% for x in y %}{% endfor %}", f"${{{SET}}}`+({SET})+`", f"%{{x}}<br><b>{SET}</b>%{{customdata}}",
    f"&lt;script&gt;{SET}&lt;/script&gt;",
    # what cannot be seen, spreadsheets, terminals
    f"\u202egnp.{SET}\u2066\u200b\ufeff", f"\u2028{SET};\u2029\x00\x07", f"=HYPERLINK(\"{ASK}\")",
    "\x1b[2J\x1b]0;x\x07\x9b31m\r",
)  # fmt: skip
FORMULAS = ("+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1", "\n=1", "a\n=1", "a\r=1", '"=1', "a,b;c", "'=1")

# A few, for the pages that every `make test` opens.
FEW = (
    f"<script>{SET}</script>",
    f"</script><script>{SET}</script>",
    f"<img src=x onerror={SET}>",
    f'"><svg onload={SET}>',
    f"<a href=javascript:{SET}>click</a>",
    f"javascript:{SET}",
    f"' onmouseover='{SET}' x='",
    f"<iframe srcdoc='<script>parent.{SET}</script>'></iframe>",
    f"<style onload={SET}>*{{display:none}}</style>",
    f"</style><script>{SET}</script>",
    f"</title><script>{SET}</script>",
    f"<!--<script>{SET}//-->",
    "{{ 7*7 }}{% for x in y %}{% endfor %}",
    f"${{{SET}}}`+({SET})+`",
    f"%{{x}}<br><b>{SET}</b>%{{customdata}}",
    f"&lt;script&gt;{SET}&lt;/script&gt;",
    f"\u202egnp.{SET}\u2066",
    f"\u2028{SET};\u2029\x00\x1b[31m",
    f"<math><mtext></mtext><annotation-xml encoding=text/html><img src onerror={SET}></annotation-xml></math>",
    f"=HYPERLINK(\"javascript:{SET}\")|[x](javascript:{SET})<meta http-equiv=refresh content='0;url=data:,x'>",
)
