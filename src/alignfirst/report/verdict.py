"""The verdict in words: what holds, what is reversed, what is undecided, and where the order matters at all."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignfirst.report.load import Run
from alignfirst.report.words import beta_text, count, decimal, listed, number, runs_of, signed, value_text
from alignfirst.stats.intervals import MIN_SEEDS

VERDICTS = ("holds", "undecided", "reversed", "insufficient")
HEADLINE_CLAIM = "higher-reward"
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
class Window:
    """Where in beta the trap was seen for one algorithm, beside where theory has it."""

    label: str
    algorithm: str
    shares: list[tuple[float, float | None]]  # beta, share of seeds trapped
    observed: str
    low: float | None
    high: float | None
    seeds: int
    kinds: str


@dataclass(frozen=True)
class KeyRow:
    """One algorithm at the beta that the summary quotes."""

    label: str
    beta: str
    first: str
    second: str
    difference: str
    low: str
    high: str
    won: str
    precision: str
    clear: str  # "ahead", "behind" or "" where the interval includes 0


@dataclass(frozen=True)
class Tile:
    """One number that a reader takes away, and what it is."""

    value: str
    caption: str
    kind: str  # "ak" or "ka" where a recipe is ahead, "target" for the trap, else ""


@dataclass(frozen=True)
class Verdict:
    tone: str  # one of VERDICTS
    headline: str
    tiles: list[Tile]
    notes: list[str]
    lines: list[ClaimLine]
    windows: list[Window]
    windows_left_out: int
    key_beta: str
    key_rows: list[KeyRow]
    key_rows_left_out: int


def verdict(run: Run, most: int = 40) -> Verdict:
    """Arrange what the statistics say; `most` bounds the lines of each table."""
    claims = list(run.statistics.get("claims", []))
    windows = list(run.statistics.get("windows", []))
    grid = sorted({r["beta"] for r in run.rows if r["beta"] is not None})
    lines = [_line(run, group, grid) for group in _grouped(claims, "claim").values()]
    headline_claims = [c for c in claims if c["claim"] == HEADLINE_CLAIM]
    tone, headline = _headline(run, headline_claims)
    focus = focus_beta(windows, grid)
    rows = _key_rows(run, focus)
    shown_windows = [_window(run, w) for w in windows]
    return Verdict(
        tone=tone,
        headline=headline,
        tiles=[t for t in (_focus_tile(run, focus), *_window_tiles(windows, grid)) if t],
        notes=_notes(run),
        lines=lines,
        windows=shown_windows[:most],
        windows_left_out=max(0, len(shown_windows) - most),
        key_beta=beta_text(focus) if focus is not None else "",
        key_rows=rows[:most],
        key_rows_left_out=max(0, len(rows) - most),
    )


def focus_beta(windows: Sequence[Mapping[str, Any]], grid: Sequence[float]) -> float | None:
    """The study's beta nearest to the middle of theory's window, where order should matter most; else its median."""
    if not grid:
        return None
    spans = [(w["predicted"]["low"], w["predicted"]["high"]) for w in windows]
    spans = [(lo, hi) for lo, hi in spans if lo is not None and hi is not None and 0 < lo < hi]
    if not spans:
        return grid[len(grid) // 2]
    middle = sum(math.log(lo * hi) / 2 for lo, hi in spans) / len(spans)
    return min(grid, key=lambda b: abs(math.log(b) - middle))


def _headline(run: Run, claims: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
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
    if holds > other:
        return "holds", f"Aligning first ended with higher reward in {holds} of {settings}, lower in {other or 'none'}{rest}."
    if other > holds:
        return "reversed", f"Aligning first ended with lower reward in {other} of {settings}, higher in {holds or 'none'}{rest}."
    if holds:
        return "undecided", f"Neither order is ahead: aligning first ended with higher reward in {holds} of {settings}, lower in {other}{rest}."
    return "undecided", f"No setting is decided: in none of {settings} do the two orders differ clearly in reward."


def _line(run: Run, group: Sequence[Mapping[str, Any]], grid: Sequence[float]) -> ClaimLine:
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
    show = (lambda x: number(x)) if ratio else (lambda x: signed(x, 2 if unit else 3))
    size = f"{show(claim['estimate'])}{' × the sd of distil-align' if ratio else unit}"
    if claim["low"] is None or claim["high"] is None:
        return size
    return f"{size} [{show(claim['low'])}, {show(claim['high'])}]"


def _place(run: Run, row: Mapping[str, Any]) -> str:
    beta = "" if row["beta"] is None else f", beta {row['beta']:g}"
    return f"{row['algorithm']}{beta}{_variant(run, row, ', ')}"


def _variant(run: Run, row: Mapping[str, Any], before: str = "") -> str:
    text = ", ".join(f"{k} {value_text(row[k])}" for k in run.varied)
    return before + text if text else ""


def _places(run: Run, claims: Sequence[Mapping[str, Any]], grid: Sequence[float], most: int = 8) -> str:
    """Settings grouped by algorithm (and varied values), their betas as ranges."""
    by_algorithm: dict[str, list[float]] = defaultdict(list)
    for c in claims:
        betas = by_algorithm[f"{c['algorithm']}{_variant(run, c, ', ')}"]
        betas += [] if c["beta"] is None else [c["beta"]]
    parts = [f"{a} (beta {runs_of(b, grid)})" if b else a for a, b in by_algorithm.items()]
    more = len(parts) - most
    return "; ".join([*parts[:most], f"and {more} more" if more > 0 else ""]).rstrip("; ")


def _notes(run: Run) -> list[str]:
    failed, blocked = run.counts.get("failed", 0), run.counts.get("blocked", 0)
    if not failed and not blocked:
        return []
    return [
        f"{count(failed, 'row')} failed and {count(blocked, 'row was', 'rows were')} blocked by a failure before; "
        "they are listed under provenance and count as lost pairs."
    ]


def _focus_tile(run: Run, focus: float | None) -> Tile | None:
    """The range of the difference over algorithms, where theory says that order matters most."""
    pairs = [
        p
        for p in run.statistics.get("pairs", [])
        if p["metric"] == "reward" and p["beta"] == focus and focus is not None and p["mean"] is not None
    ]
    if not pairs:
        return None
    low, high = min(p["mean"] for p in pairs), max(p["mean"] for p in pairs)
    span = signed(low, 2) if f"{low:.2f}" == f"{high:.2f}" else f"{signed(low, 2)} to {signed(high, 2)}"
    over = count(len(pairs), "setting" if run.varied else "algorithm")
    clear = [p["low"] is not None and (p["low"] > 0) - (p["high"] < 0) for p in pairs]
    kind = "ak" if all(c > 0 for c in clear) else "ka" if all(c < 0 for c in clear) else ""
    return Tile(span, f"reward that aligning first adds at beta {focus:g}, mean over seeds, across {over}", kind)


def _window_tiles(windows: Sequence[Mapping[str, Any]], grid: Sequence[float]) -> list[Tile]:
    if not windows:
        return []
    return [_theory_tile(windows), _training_tile(windows, grid)]


def _theory_tile(windows: Sequence[Mapping[str, Any]]) -> Tile:
    spans = [w["predicted"] for w in windows if w["predicted"]["low"] is not None]
    if not spans:
        return Tile("none", "theory has no window in beta for the low-recall trap here", "")
    low, high = sum(s["low"] for s in spans) / len(spans), sum(s["high"] for s in spans) / len(spans)
    if low >= high:
        return Tile("none", f"theory leaves no trap: the student recovers below beta {number(low)}, sft below {number(high)}", "")
    return Tile(
        f"beta {number(low, 2)} to {number(high, 2)}",
        "where theory, with no training, has the low-recall trap: from the recovery threshold of the student to that of sft",
        "target",
    )


def _training_tile(windows: Sequence[Mapping[str, Any]], grid: Sequence[float]) -> Tile:
    seen = [w for w in windows if w["observed"]["betas"]]
    betas = sorted({b for w in seen for b in w["observed"]["betas"]})
    unit = "algorithm" if len(windows) == len({w["algorithm"] for w in windows}) else "algorithm setting"
    if not betas:
        return Tile("not seen", "in no setting did training fall into the trap in more than half of the seeds", "")
    where = f"for {len(seen)} of {count(len(windows), unit)}"
    return Tile(f"beta {runs_of(betas, grid)}", f"where training fell into the trap in more than half of the seeds, {where}", "target")


def _window(run: Run, w: Mapping[str, Any]) -> Window:
    kinds = Counter[str]()
    for b in w["betas"]:
        kinds.update(b["kinds"])
    grid = [b["beta"] for b in w["betas"]]
    return Window(
        label=f"{w['algorithm']}{_variant(run, w, ' · ')}",
        algorithm=w["algorithm"],
        shares=[(b["beta"], b["share"]) for b in w["betas"]],
        observed=runs_of(w["observed"]["betas"], grid) if w["observed"]["betas"] else "not seen",
        low=w["predicted"]["low"],
        high=w["predicted"]["high"],
        seeds=len(w["seeds"]),
        kinds=listed(f"{k} {n}" for k, n in kinds.most_common()) if kinds else "none",
    )


def _key_rows(run: Run, focus: float | None) -> list[KeyRow]:
    final = {
        (*_identity(run, c), c["recipe"]): c["reward"]["mean"] for c in run.statistics.get("cells", []) if c["final"]
    }
    by_metric = {(*_identity(run, p), p["metric"]): p for p in run.statistics.get("pairs", [])}
    return [
        _key_row(run, p, by_metric[(*_identity(run, p), "target_precision")], final)
        for p in run.statistics.get("pairs", [])
        if p["metric"] == "reward" and p["beta"] in (focus, None)
    ]


def _key_row(run: Run, p: Mapping[str, Any], precision: Mapping[str, Any], final: Mapping[Any, Any]) -> KeyRow:
    low, high = p["low"], p["high"]
    decided = low is not None and (low > 0 or high < 0)
    return KeyRow(
        label=f"{p['algorithm']}{_variant(run, p, ' · ')}",
        beta=beta_text(p["beta"]),
        first=decimal(final.get((*_identity(run, p), "align-distil"))),
        second=decimal(final.get((*_identity(run, p), "distil-align"))),
        difference=signed(p["mean"]),
        low=signed(low),
        high=signed(high),
        won=f"{p['share_won']:.0%}" if p["share_won"] is not None else "–",
        precision=signed(precision["mean"], 2),
        clear=("ahead" if low > 0 else "behind") if decided else "",
    )


def _identity(run: Run, row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(repr(row[k]) for k in (*run.varied, "algorithm", "beta"))


def _grouped(rows: Sequence[Mapping[str, Any]], key: str) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row[key]].append(row)
    return groups
