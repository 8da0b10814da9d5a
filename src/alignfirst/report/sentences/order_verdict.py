"""The verdict in words: what holds, what is reversed, what is undecided, and where the order matters at all."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from alignfirst.report.audit.audited_points import Audited, audited
from alignfirst.report.run_files import RunFiles
from alignfirst.report.sentences.headline_numbers import HeadlineNumber, focus_beta, headline_numbers, theory_answers
from alignfirst.report.sentences.other_recipes import RecipeLine, recipe_lines
from alignfirst.report.sentences.words import beta_text, count, decimal, listed, number, runs_of, signed
from alignfirst.stats.intervals import MIN_SEEDS

VERDICTS = ("holds", "undecided", "reversed", "insufficient")
HEADLINE_CLAIM = "higher-reward"
MOST, MOST_VARIED = 40, 12  # lines of a table in the verdict
KIND_WORDS = {"unnamed": "of unknown kind"}  # where no exact optimum says which trap it was
MEASURED_ON = (("held_out_pairs", "held-out pair"), ("measured_on", "answer"))
NATS = {"target_precision", "overall_precision"}


@dataclass(frozen=True)
class ClaimLine:
    """One claim over all settings of the study."""

    id: str
    statement: str
    counts: Mapping[str, int]
    total: int
    strongest: str  # the largest effect in the claimed direction
    against: str  # where the sign is the other way, decided


@dataclass(frozen=True)
class TrapWindow:
    """Where in beta the trap was seen for one algorithm, beside where theory has it."""

    algorithm: str
    setting: str  # varied keys and their values
    shares: list[tuple[float, float | None]]  # beta, share of seeds trapped
    observed: str
    low: float | None
    high: float | None
    seeds: int
    kinds: str
    known: bool = True  # theory has an answer, be it that there is no window


@dataclass(frozen=True)
class KeyRow:
    """One algorithm at the beta that the summary quotes."""

    algorithm: str
    setting: str
    beta: str
    first: str
    second: str
    difference: str
    low: str
    high: str
    won: str
    precision: str
    lead: str  # "ahead", "behind" or "" where the interval includes 0


@dataclass(frozen=True)
class OrderVerdict:
    tone: str  # one of VERDICTS
    headline: str
    headline_numbers: list[HeadlineNumber]
    notes: list[str]
    lines: list[ClaimLine]
    windows: list[TrapWindow]
    windows_left_out: int
    recipes: list[RecipeLine]
    key_beta: str
    key_rows: list[KeyRow]
    key_rows_left_out: int
    audited: Audited


def verdict(run: RunFiles) -> OrderVerdict:
    """Arrange what the statistics say. Tables of a study that varies keys show its first lines only."""
    most = MOST_VARIED if run.varied else MOST
    claims = list(run.statistics.get("claims", []))
    windows = list(run.statistics.get("windows", []))
    grid = sorted({r["beta"] for r in run.rows if r["beta"] is not None})
    lines = [_line(run, group, grid) for group in _grouped(claims, "claim").values()]
    headline_claims = [c for c in claims if c["claim"] == HEADLINE_CLAIM]
    tone, headline = _headline(run, headline_claims)
    focus = focus_beta(windows, grid)
    rows = _key_rows(run, focus)
    shown_windows = [_window(run, w) for w in windows]
    return OrderVerdict(
        tone=tone,
        headline=headline,
        headline_numbers=headline_numbers(run, windows, grid, focus),
        notes=_notes(run),
        lines=lines,
        windows=shown_windows[:most],
        windows_left_out=max(0, len(shown_windows) - most),
        recipes=recipe_lines(run, focus),
        key_beta=beta_text(focus) if focus is not None else "",
        key_rows=rows[:most],
        key_rows_left_out=max(0, len(rows) - most),
        audited=audited(run),
    )


def _headline(run: RunFiles, claims: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    n = Counter(c["verdict"] for c in claims)
    total = len(claims)
    settings = count(total, "setting")
    if not total:
        present = listed(dict.fromkeys(str(r["recipe"]) for r in run.rows))
        return "insufficient", f"No verdict on order: this run holds {present}, not align-distil beside distil-align."
    if n["insufficient"] == total:
        return "insufficient", f"Too few seeds for a verdict: it takes {MIN_SEEDS} paired seeds in a setting."
    holds, other = n["holds"], n["reversed"]
    parts = [f"{n[v]} {w}" for v, w in (("undecided", "undecided"), ("insufficient", "with too few seeds")) if n[v]]
    rest = f", {listed(parts)}" if parts else ""
    higher = f"higher reward in {holds} of {settings}, lower in {other or 'none'}{rest}."
    if holds > other:
        return "holds", f"Aligning first ended with {higher}"
    if other > holds:
        lower = f"lower reward in {other} of {settings}, higher in {holds or 'none'}{rest}."
        return "reversed", f"Aligning first ended with {lower}"
    if holds:
        return "undecided", f"Neither order is ahead: aligning first ended with {higher}"
    return "undecided", f"No setting is decided: in none of {settings} do the two orders differ clearly in reward."


def _line(run: RunFiles, group: Sequence[Mapping[str, Any]], grid: Sequence[float]) -> ClaimLine:
    first = group[0]
    counts = Counter(c["verdict"] for c in group)
    known = [c for c in group if c["estimate"] is not None and c["verdict"] == "holds"]
    best = max(known, key=lambda c: _size(c) * c["direction"], default=None)
    strongest = "" if best is None else f"{_effect(best)} ({_place(run, best)})"
    return ClaimLine(
        id=first["claim"],
        statement=first["statement"],
        counts={v: counts[v] for v in VERDICTS},
        total=len(group),
        strongest=strongest,
        against=_places(run, [c for c in group if c["verdict"] == "reversed"], grid),
    )


def _size(claim: Mapping[str, Any]) -> float:
    """An effect on a scale where 0 is none and the sign is its direction."""
    estimate = float(claim["estimate"])
    return math.log(max(estimate, 1e-12)) if claim["scale"] == "ratio" else estimate


def _effect(claim: Mapping[str, Any]) -> str:
    """The size with its interval, or without one where the interval is not finite."""
    ratio, unit = claim["scale"] == "ratio", " nats" if claim["metric"] in NATS else ""
    show: Callable[[float], str] = number if ratio else partial(signed, places=2 if unit else 3)
    size = f"{show(claim['estimate'])}{' × the sd of distil-align' if ratio else unit}"
    if claim["low"] is None or claim["high"] is None:
        return size
    return f"{size} [{show(claim['low'])}, {show(claim['high'])}]"


def _place(run: RunFiles, row: Mapping[str, Any]) -> str:
    beta = "" if row["beta"] is None else f", beta {row['beta']:g}"
    return f"{row['algorithm']}{beta}{_variant(run, row, ', ')}"


def _variant(run: RunFiles, row: Mapping[str, Any], before: str = "") -> str:
    text = ", ".join(f"{n.label} {n.text(row[n.key])}" for n in run.names)
    return before + text if text else ""


def _places(run: RunFiles, claims: Sequence[Mapping[str, Any]], grid: Sequence[float]) -> str:
    """Settings grouped by algorithm (and varied values), their betas as ranges."""
    by_algorithm: dict[str, list[float]] = defaultdict(list)
    for c in claims:
        betas = by_algorithm[f"{c['algorithm']}{_variant(run, c, ', ')}"]
        betas += [] if c["beta"] is None else [c["beta"]]
    parts = [f"{a} (beta {runs_of(b, grid)})" if b else a for a, b in by_algorithm.items()]
    most = 3 if run.varied else 8
    more = len(parts) - most
    return "; ".join([*parts[:most], f"and {more} more" if more > 0 else ""]).rstrip("; ")


def _notes(run: RunFiles) -> list[str]:
    return [*_failures(run), *_small(run), *_few_seeds(run)]


def _small(run: RunFiles) -> list[str]:
    """A study of own models that is a trial: the paper's claim is one over seeds."""
    own = [r for r in run.rows if r["world"] == "hf"]
    if not own or len({r["seed"] for r in own}) >= MIN_SEEDS:
        return []
    updates = max((r["updates"] or 0 for r in own if r["stage"] == "align"), default=0)
    asked = [(max(r[name] or 0 for r in own), what) for name, what in MEASURED_ON]
    on = listed([count(n, what) for n, what in asked if n])
    return [
        f"This size shows the machinery, not the claim: alignments of {count(updates, 'update')}"
        f"{f', measured on {on}' if on else ''}."
    ]


def _few_seeds(run: RunFiles) -> list[str]:
    """What a run of so few seeds can show and what it cannot."""
    seeds = len({r["seed"] for r in run.rows})
    if not 0 < seeds < MIN_SEEDS:
        return []
    texts = next((r["measured_on"] for r in run.rows if r.get("measured_on")), None)
    how = f", each from {count(texts, 'text')}" if texts else ""
    return [
        f"{count(seeds, 'seed')} can show what these models do{how}, and how far the orders lie apart in "
        f"{'it' if seeds == 1 else 'them'}. What another seed would give it cannot show: below {MIN_SEEDS} there is no "
        "interval over seeds, and a difference may be chance."
    ]


def _failures(run: RunFiles) -> list[str]:
    failed, blocked = run.counts.get("failed", 0), run.counts.get("blocked", 0)
    if not failed and not blocked:
        return []
    return [
        f"{count(failed, 'row')} failed and {count(blocked, 'row was', 'rows were')} blocked by a failure before; "
        "they are listed under provenance and count as lost pairs."
    ]


def _window(run: RunFiles, w: Mapping[str, Any]) -> TrapWindow:
    kinds = Counter[str]()
    for b in w["betas"]:
        kinds.update(b["kinds"])
    grid = [b["beta"] for b in w["betas"]]
    return TrapWindow(
        algorithm=w["algorithm"],
        setting=_variant(run, w),
        shares=[(b["beta"], b["share"]) for b in w["betas"]],
        observed=runs_of(w["observed"]["betas"], grid) if w["observed"]["betas"] else "not seen",
        low=w["predicted"]["low"],
        high=w["predicted"]["high"],
        seeds=len(w["seeds"]),
        kinds=listed(f"{KIND_WORDS.get(k, k)} {n}" for k, n in kinds.most_common()) if kinds else "none",
        known=theory_answers(w),
    )


def _key_rows(run: RunFiles, focus: float | None) -> list[KeyRow]:
    final = {
        (*_identity(run, c), c["recipe"]): c["reward"]["mean"] for c in run.statistics.get("cells", []) if c["final"]
    }
    by_metric = {(*_identity(run, p), p["metric"]): p for p in run.statistics.get("pairs", [])}
    return [
        _key_row(run, p, by_metric[(*_identity(run, p), "target_precision")], final)
        for p in run.statistics.get("pairs", [])
        if p["metric"] == "reward" and p["beta"] in (focus, None)
    ]


def _key_row(run: RunFiles, p: Mapping[str, Any], precision: Mapping[str, Any], final: Mapping[Any, Any]) -> KeyRow:
    low, high = p["low"], p["high"]
    decided = low is not None and (low > 0 or high < 0)
    return KeyRow(
        algorithm=p["algorithm"],
        setting=_variant(run, p),
        beta=beta_text(p["beta"]),
        first=decimal(final.get((*_identity(run, p), "align-distil"))),
        second=decimal(final.get((*_identity(run, p), "distil-align"))),
        difference=signed(p["mean"]),
        low=signed(low),
        high=signed(high),
        won=f"{p['share_won']:.0%}" if p["share_won"] is not None else "–",
        precision=signed(precision["mean"], 2),
        lead=("ahead" if low > 0 else "behind") if decided else "",
    )


def _identity(run: RunFiles, row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(repr(row[k]) for k in (*run.varied, "algorithm", "beta"))


def _grouped(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row[key]].append(row)
    return groups
