"""The verdict as Markdown: what a pull request, a notebook or a terminal can show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from alignfirst.report.run_files import RunFiles
from alignfirst.report.sentences.order_verdict import VERDICTS, KeyRow, OrderVerdict, TrapWindow
from alignfirst.report.sentences.words import DASH, count, number, seconds_text, visible
from alignfirst.report.static_figures.figures import Drawn
from alignfirst.stats import intervals
from alignfirst.stats.audited import VERDICTS as CALLS

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~&!$])")


def plain(text: object) -> str:
    """Foreign text in Markdown: on one line, hidden characters shown, nothing in it is markup."""
    return _MARKUP.sub(r"\\\1", " ".join(visible(str(text)).split()))


def summary(run: RunFiles, verdict: OrderVerdict, figures: Sequence[Drawn]) -> str:
    """The verdict, the two orders beside each other, the claims, the windows, the figures and how to make it again."""
    parts = [
        f"# {plain(run.manifest.get('name'))}: align before you distil?",
        f"**{plain(verdict.headline)}**",
        *_headline_numbers(verdict),
        *(plain(n) for n in verdict.notes),
        *_orders(verdict),
        *_claims(verdict),
        *_recipes(verdict),
        *_windows(verdict),
        *_audited(verdict),
        *_figures(figures),
        _provenance(run),
    ]
    return "\n\n".join(parts) + "\n"


def _headline_numbers(verdict: OrderVerdict) -> list[str]:
    return (
        ["\n".join(f"- **{plain(t.value)}**: {plain(t.caption)}" for t in verdict.headline_numbers)]
        if verdict.headline_numbers
        else []
    )


def _orders(verdict: OrderVerdict) -> list[str]:
    if not verdict.key_rows:
        return []
    head = [
        "algorithm",
        "align-distil",
        "distil-align",
        "difference in reward",
        f"{intervals.level_words()} interval",
        "seeds won",
    ]
    head += ["target precision, nats"]
    rows = [_order(r) for r in verdict.key_rows]
    left = verdict.key_rows_left_out
    return [
        f"## The two orders at beta {verdict.key_beta}" if verdict.key_beta else "## The two orders",
        _table(head, rows),
        *([f"{left} more rows are in statistics.json."] if left else []),
    ]


def _order(r: KeyRow) -> list[str]:
    name = _named(r.algorithm, r.setting) + (" (no beta)" if r.beta == "no beta" else "")
    interval = f"none below {intervals.MIN_SEEDS} seeds" if r.low == DASH else f"[{r.low}, {r.high}]"
    return [name, r.first, r.second, r.difference, interval, r.won, r.precision]


def _claims(verdict: OrderVerdict) -> list[str]:
    if not verdict.lines:
        return []
    rows = [
        [line.statement, *(str(line.counts[v]) for v in VERDICTS), line.strongest or "–", line.against or "–"]
        for line in verdict.lines
    ]
    head = ["claim", "holds", "undecided", "reversed", "too few seeds", "largest effect", "reversed for"]
    return ["## Claims, over all settings", _table(head, rows)]


def _recipes(verdict: OrderVerdict) -> list[str]:
    if not verdict.recipes:
        return []
    head = ["recipe", "ahead", "level", "behind", "too few seeds", f"difference at beta {verdict.key_beta}"]
    rows = [[r.recipe, *(str(n) for n in (r.ahead, r.level, r.behind, r.refused)), r.at_focus] for r in verdict.recipes]
    by = f"Settings by the {intervals.level_words()} interval of the difference"
    note = f"{by}, paired by seed, not corrected for their number."
    return ["## Every recipe against distil-align, in reward", note, _table(head, rows)]


def _windows(verdict: OrderVerdict) -> list[str]:
    if not verdict.windows:
        return []
    rows = [[_named(w.algorithm, w.setting), _theory(w), w.observed, w.kinds] for w in verdict.windows]
    head = ["algorithm", "theory: beta", "training: beta", "kinds of trap, pairs of seed and beta"]
    return ["## Where in beta the low-recall trap is", _table(head, rows)]


def _audited(verdict: OrderVerdict) -> list[str]:
    if not verdict.audited.sentence:
        return []
    head = ["algorithm", *(f"reached of {v}" for v in CALLS), "error of reward", "error of target mass"]
    rows = [[a.algorithm, *a.verdicts, a.reward_error, a.mass_error] for a in verdict.audited.lines]
    return ["## Audited against reached", plain(verdict.audited.sentence), _table(head, rows)]


def _named(algorithm: str, setting: str) -> str:
    return f"{algorithm}, {setting}" if setting else algorithm


def _theory(w: TrapWindow) -> str:
    if not w.known:
        return "not known"
    if w.low is None or w.high is None:
        return "none"
    span = f"{number(w.low)} to {number(w.high)}"
    return span if w.low < w.high else f"none: {number(w.low)} is above {number(w.high)}"


def _figures(figures: Sequence[Drawn]) -> list[str]:
    return ["## Figures", *(f"![{plain(f.question)}](figures/{f.name}.svg)" for f in figures)] if figures else []


def _provenance(run: RunFiles) -> str:
    m = run.manifest
    seeds = count(len(m.get("seeds") or []), "seed")
    counts = ", ".join(f"{n} {plain(k.replace('_', ' '))}" for k, n in run.counts.items())
    lines = [
        f"command: {plain(m.get('command'))}",
        f"alignfirst {plain(m.get('version'))}, {plain(m.get('status'))}, {seeds}, {counts}",
        f"{seconds_text(m.get('seconds'))}; the page is report.html, all numbers are in records.csv",
    ]
    return "## Made by\n\n" + "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([plain(x) for x in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
