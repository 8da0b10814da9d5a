"""The report in Chromium: no console error, no request but the file, slider and hover change it, injections inert.

Runs the browser tests, then opens the real report of preset mog at both widths and both colour schemes.
"""

from __future__ import annotations

import shutil
import sys

from common import ROOT, RUNS, conclude, finished_run, shell

chromium = shutil.which("chromium") or shutil.which("chromium-browser")
if chromium is None:
    conclude(["no chromium on this machine"])
failures = [] if shell(f"{sys.executable} -m pytest -q -m browser tests/browser -rs", ROOT) == 0 else ["tests/browser"]
report = finished_run("mog") / "report.html"
size = report.stat().st_size / 2**20
print(f"report {size:.2f} MiB")
if size > 8:
    failures.append("the report is larger than 8 MiB")

from playwright.sync_api import sync_playwright  # noqa: E402

with sync_playwright() as p:
    browser = p.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    for width in (1440, 390):
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            errors: list[str] = []
            requests: list[str] = []
            page.on("console", lambda m, e=errors: e.append(m.text) if m.type in ("error", "warning") else None)
            page.on("pageerror", lambda x, e=errors: e.append(str(x)))
            page.on("request", lambda r, q=requests: q.append(r.url))
            page.goto(report.as_uri())
            page.wait_for_timeout(1500)
            overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            others = [u for u in requests if u != report.as_uri() and not u.startswith(("data:", "blob:"))]
            page.screenshot(path=str(RUNS / f"mog-{width}-{scheme}.png"), full_page=True)
            found = f"{len(errors)} console errors, {len(others)} other requests, overflow {overflow} px"
            print(f"{width} px {scheme}: {found}")
            failures += [f"{width} {scheme}: {e}" for e in errors + others] + (["overflow"] if overflow > 0 else [])
            page.close()
    browser.close()
conclude(failures)
