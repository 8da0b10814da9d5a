"""An audit in words: the verdict first, then the numbers, then what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from alignfirst.auditing.constants import EXPERIMENT, SEEN
from alignfirst.auditing.findings import Audit, Judged
from alignfirst.auditing.gated_prediction import Evidence
from alignfirst.auditing.share_intervals import Number
from alignfirst.auditing.verdict import percent

SHOWN_WORST, SHOWN_TOKENS = 5, 4


def lines(audit: Audit) -> list[str]:
    """Lines of plain text."""
    return [line for section in _sections(audit) if section for line in ("", *section)][1:]


def _sections(audit: Audit) -> Iterator[list[str]]:
    yield [audit.headline()]
    yield list(_plans(audit.judged))
    if audit.evidence is not None:
        yield list(_reference(audit.evidence, audit.inputs.target))
    yield [f"beta window, {name}: {window.note}" for name, window in audit.windows.items()]
    yield list(_needs(audit.judged))
    yield list(_orders(audit))
    yield list(_coverage(audit))
    if audit.rows is not None:
        yield list(pair_lines(audit.rows))
    yield list(_todo(audit))
    yield [f"tokenised: {name}: {how}" for name, how in audit.about.get("tokenising", {}).items()]
    yield [f"note: {note}" for note in audit.inputs.notes]
    yield [f"Constants set by {EXPERIMENT}."] if audit.judged else []


def _plans(judged: Sequence[Judged]) -> Iterator[str]:
    """One line a plan."""
    if not judged:
        return
    header = ("algorithm", "beta", "verdict", "target mass", "", "reward", "", "draws behind it")
    rows = [header, *(_plan(j) for j in judged)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _plan(j: Judged) -> tuple[str, ...]:
    p = j.prediction
    ess = "-" if p.ess is None else f"{p.ess:.0f}"
    return (
        p.plan.algorithm,
        f"{p.plan.beta:g}",
        j.verdict.call,
        "-" if p.mass.value is None else percent(p.mass.value),
        _span(p.mass, share=True),
        "-" if p.reward.value is None else f"{p.reward.value:.3f}",
        _span(p.reward),
        ess,
    )


def _span(n: Number, share: bool = False) -> str:
    if n.low is None or n.high is None:
        return ""
    return f"[{percent(n.low)}, {percent(n.high)}]" if share else f"[{n.low:.3f}, {n.high:.3f}]"


def say(n: Number, share: bool = False) -> str:
    """A number with its interval, or with the reason why it has none."""
    if n.value is None:
        return f"unknown ({n.why})"
    value = percent(n.value) if share else f"{n.value:,.0f}" if abs(n.value) >= 1_000 else f"{n.value:.3g}"
    if n.low is not None and n.high is not None:
        ends = [percent(x) if share else f"{x:,.0f}" if abs(x) >= 1_000 else f"{x:.3g}" for x in (n.low, n.high)]
        return f"{value} [{ends[0]}, {ends[1]}]"
    if n.low is not None:
        return f"{value}, at least {n.low:.3g} ({n.why})"
    return f"{value} (no interval: {n.why})"


def _reference(e: Evidence, target: str | None) -> Iterator[str]:
    d = e.draws
    seen = "" if d.in_target is None else f", {d.reference_hits:,} in the target"
    pooled = f"; pooled with {int(d.teacher.sum()):,} of the teacher" if d.pooled else ""
    prompts = f" for {d.prompts:,} prompts" if d.prompts > 1 else ""
    yield f"reference: {d.reference_draws:,} draws{prompts}{seen}{pooled}"
    yield f"  target:         {target or 'none named'}"
    yield f"  target mass:    {say(e.mass, share=True)}"
    yield f"  reward:         {say(e.reward)}"
    yield f"  quality of hits: {say(e.quality, share=True)} of what preferred examples earn"
    if d.pooled:
        yield f"  weights sum to: {say(d.raw_total)} (1 where draws and log-probabilities agree)"


def _needs(judged: Sequence[Judged]) -> Iterator[str]:
    seen: set[str] = set()
    for j in judged:
        if j.prediction.refused is not None:
            continue
        if not seen:
            yield f"draws that show the target once, with {percent(SEEN)}: {say(j.needs.to_see)}"
        if j.plan.algorithm not in seen:
            seen.add(j.plan.algorithm)
            yield (
                f"{j.plan.algorithm} at beta {j.plan.beta:g}: hits expected {say(j.needs.hits)}; "
                f"rollouts that find enough of them {say(j.needs.rollouts)}"
            )


def _orders(audit: Audit) -> Iterator[str]:
    plans = [j.plan for j in audit.judged if j.prediction.refused is None]
    for plan, order in zip(plans, audit.orders, strict=False):
        yield f"order, {plan.algorithm} at beta {plan.beta:g}: {order.call} ({order.because})"


def _coverage(audit: Audit) -> Iterator[str]:
    if not audit.profile:
        return
    yield f"coverage of {audit.inputs.covered_what}: share that the reference gives at least once in N times the draws"
    for point in audit.profile:
        number = Number(point["value"], point["low"], point["high"], point["why"])
        yield f"  N = {point['n']:>9,}: {say(number, share=True)}"


def pair_lines(rows: Mapping[str, Any]) -> Iterator[str]:
    """What preference rows tell, from `rows.row_findings`."""

    def number(name: str) -> Number:
        return Number(**rows[name])

    yield f"preference rows: {rows['rows']:,}"
    for name, words, share in (
        ("discrimination", "chosen likelier than rejected", True),
        ("discrimination_per_token", "the same per token", True),
        ("discrimination_teacher", "the same for the teacher", True),
        ("margin", "log q(chosen) - log q(rejected)", False),
        ("cost_chosen", "lost against the teacher, chosen: log q - log p", False),
        ("cost_rejected", "lost against the teacher, rejected", False),
        ("cost_per_token_chosen", "the same per token, chosen", False),
        ("cost_per_token_rejected", "the same per token, rejected", False),
        ("typicality", "surprisal per token above the reference's own", False),
        ("rarest_step_chosen", "least likely token of chosen, log-probability", False),
    ):
        if number(name).value is not None:
            yield f"  {words}: {say(number(name), share)}"
    for row in rows["worst"][:SHOWN_WORST]:
        cost = "" if row["cost_chosen"] is None else f", log q - log p {row['cost_chosen']:.1f}"
        rarest = "" if row["rarest_at"] is None else f", least likely token {row['rarest_at']}"
        yield f"  worst: line {row['line']}: log q(chosen) {row['logp_chosen']:.1f}{cost}{rarest}"
        tokens = row.get("costliest_tokens", ())[:SHOWN_TOKENS]
        if tokens:
            yield "    costliest tokens: " + ", ".join(f"{t['text']!r} ({t['logp_reference']:.1f})" for t in tokens)


def _todo(audit: Audit) -> Iterator[str]:
    """Every piece of advice once, for the plans it is meant for."""
    advice: dict[str, list[str]] = {}
    verdicts = [(f"{j.plan.algorithm} {j.plan.beta:g}", j.verdict) for j in audit.judged]
    for name, verdict in verdicts or [("", audit.verdict)]:
        for text in verdict.todo:
            advice.setdefault(text, []).append(name)
    if advice:
        yield "what to do:"
    for text, names in advice.items():
        whom = "" if len(names) == len(verdicts) or not verdicts else f" ({_some(names)})"
        yield f"  - {text}{whom}"


def _some(names: Sequence[str], most: int = 4) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
