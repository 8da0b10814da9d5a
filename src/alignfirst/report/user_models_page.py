"""Own models side by side: what was measured on held-out prompts, what each recipe cost, what the audit said before.

Numbers are those of the records. Where one seed was run, an interval is the record's own, over prompts; where several
were, the mean over seeds with the lowest and the highest. Everything here is text for a template that escapes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from alignfirst.auditing.constants import LEVEL
from alignfirst.report.run_files import RunFiles
from alignfirst.report.sentences.words import DASH, beta_text, count, decimal, listed, number, signed
from alignfirst.stats.intervals import MIN_SEEDS, level_words

MOST = 60  # lines of a table
ORDERS = ("align-distil", "distil-align")
Say = Callable[[float | None], str]


@dataclass(frozen=True)
class Measured:
    """A column of the records as the table shows it; the first of QUALITIES that a run has is its quality."""

    column: str
    label: str
    say: Say
    by: str | None = None  # the key in a column that holds several


SHARE, NATS = partial(decimal, places=2), partial(decimal, places=1)
MEASURED = (
    Measured("held_out_accuracy", "accuracy of implicit reward", SHARE),
    Measured("held_out_margin", "its margin, nats", partial(decimal, places=2)),
    Measured("logp_chosen", "log-probability of chosen, nats", NATS),
    Measured("logp_rejected", "of rejected, nats", NATS),
    Measured("reward", "reward of answers", decimal),
    Measured("target_mass", "answers in the target", SHARE),
    Measured("overall_precision", "precision: answers under the teacher, nats", NATS),
    Measured("overall_recall", "recall: the teacher\u2019s answers under it, nats", NATS),
    Measured("kl_to_reference", "KL to its reference, nats", partial(decimal, places=2)),
    Measured("entropy", "entropy of answers, nats", NATS),
    Measured("distinct", "distinct bigrams", SHARE, by="2"),
    Measured("repetition", "repeated bigrams", SHARE),
)
QUALITIES = ("reward", "held_out_accuracy", "logp_chosen")
BY_COLUMN = {m.column: m for m in MEASURED}


@dataclass(frozen=True)
class Line:
    """One stage of one recipe. `cells` stand under `Own.columns`; each is a value and its interval, or empty."""

    setting: str
    stage: str
    final: bool
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CostLine:
    """One recipe to its end: operations of all its stages against the cheapest, and the quality that they came to."""

    setting: str
    flops: str
    times: str
    quality: tuple[tuple[str, str], ...]
    per_flop: str


@dataclass(frozen=True)
class AuditLine:
    """One alignment: what the audit said before, and what training reached."""

    setting: str
    verdict: str
    reason: str
    reward: str
    mass: str
    pairs: str


@dataclass(frozen=True)
class Own:
    """`columns` is empty in a run of another world: then there is no section."""

    columns: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()
    left_out: int = 0
    spread: str = ""
    qualities: tuple[str, ...] = ()
    per_flop: str = ""
    costs: tuple[CostLine, ...] = ()
    bought: tuple[str, ...] = ()
    audits: tuple[AuditLine, ...] = ()


@dataclass
class _Cell:
    """A recipe with an algorithm, beta and varied values; rows of its stages by index, one a seed."""

    setting: str
    recipe: str
    order: tuple[Any, ...]  # what is the same in the other order of the stages
    stages: dict[int, list[Mapping[str, Any]]] = field(default_factory=dict)

    @property
    def last(self) -> list[Mapping[str, Any]]:
        return next(rows for rows in self.stages.values() if rows[0]["final"])


def of_own_models(run: RunFiles) -> bool:
    return any(row["world"] == "hf" for row in run.rows)


def own(run: RunFiles) -> Own:
    """The tables of a run of own models."""
    if not of_own_models(run):
        return Own()
    cells = _cells(run)
    shown = [m for m in MEASURED if any(_value(row, m) is not None for row in run.rows)]
    lines = [_line(cell, rows, shown) for cell in cells for rows in cell.stages.values()]
    qualities = [BY_COLUMN[name] for name in QUALITIES if BY_COLUMN[name] in shown]
    seeds = len({row["seed"] for row in run.rows})
    spread = (
        f"{level_words(LEVEL)} intervals over held-out prompts"
        if seeds == 1
        else f"lowest and highest of {count(seeds, 'seed')}"
    )
    return Own(
        columns=tuple(m.label for m in shown),
        lines=tuple(lines[:MOST]),
        left_out=max(0, len(lines) - MOST),
        spread=spread,
        qualities=tuple(m.label for m in qualities),
        per_flop=_gain_label(qualities),
        costs=tuple(_costs(cells, qualities)[:MOST]),
        bought=tuple(_bought(cells, qualities)[:MOST]),
        audits=tuple(_audits(run, cells)[:MOST]),
    )


def _cells(run: RunFiles) -> list[_Cell]:
    found: dict[tuple[Any, ...], _Cell] = {}
    for row in run.rows:
        varied = tuple(repr(row[key]) for key in run.varied)
        order = (row["algorithm"], row["beta"], *varied)
        if (row["recipe"], *order) not in found:
            parts = [str(row["recipe"]), str(row["algorithm"] or "")]
            parts += [f"beta {beta_text(row['beta'])}"] if row["beta"] is not None else []
            parts += [f"{n.label} {n.text(row[n.key])}" for n in run.names]
            setting = ", ".join(part for part in parts if part)
            found[row["recipe"], *order] = _Cell(setting, row["recipe"], order)
        found[row["recipe"], *order].stages.setdefault(row["stage_index"], []).append(row)
    return list(found.values())


def _value(row: Mapping[str, Any], m: Measured) -> float | None:
    value = row.get(m.column)
    if m.by is not None:
        value = value.get(m.by) if isinstance(value, Mapping) else None
    return None if value is None or row["status"] != "ok" else float(value)


def _known(rows: Sequence[Mapping[str, Any]], m: Measured) -> list[float]:
    return [value for row in rows if (value := _value(row, m)) is not None]


def _interval(rows: Sequence[Mapping[str, Any]], m: Measured) -> tuple[float, float] | None:
    """Over prompts for one seed; the lowest and the highest of several."""
    if len(rows) > 1:
        known = _known(rows, m)
        return (min(known), max(known)) if len(known) > 1 else None
    low, high = ((rows[0].get("intervals") or {}).get(m.column) or (None, None))[:2]
    return None if low is None or high is None else (low, high)


def _shown(rows: Sequence[Mapping[str, Any]], m: Measured) -> tuple[str, str]:
    known = _known(rows, m)
    if not known:
        return "", ""
    ends = _interval(rows, m)
    return m.say(sum(known) / len(known)), "" if ends is None else f"[{m.say(ends[0])}, {m.say(ends[1])}]"


def _line(cell: _Cell, rows: Sequence[Mapping[str, Any]], shown: Sequence[Measured]) -> Line:
    first = rows[0]
    lost = sum(row["status"] != "ok" for row in rows)
    stage = f"{first['stage']}{f' ({lost} of {len(rows)} failed)' if lost else ''}"
    return Line(cell.setting, stage, bool(first["final"]), tuple(_shown(rows, m) for m in shown))


# -- cost -------------------------------------------------------------------------------------------------------------


def _spent(cell: _Cell) -> float | None:
    """Operations of all stages, a mean over the seeds that have all of them."""
    by_seed: dict[int, list[float | None]] = {}
    for rows in cell.stages.values():
        for row in rows:
            by_seed.setdefault(row["seed"], []).append(row["flops"] if row["status"] == "ok" else None)
    whole = [sum(x for x in each if x is not None) for each in by_seed.values() if None not in each]
    return sum(whole) / len(whole) if whole else None


def _gain(cell: _Cell, m: Measured) -> float | None:
    """What the recipe's end has more than its beginning, the sft model."""
    begin, end = _known(cell.stages[0], m), _known(cell.last, m)
    return sum(end) / len(end) - sum(begin) / len(begin) if begin and end else None


def _gain_label(qualities: Sequence[Measured]) -> str:
    gained = next((m for m in qualities if m.column != "held_out_accuracy"), None)
    return "" if gained is None else f"gain in {gained.label} over sft, per 1e12 operations"


def _costs(cells: Sequence[_Cell], qualities: Sequence[Measured]) -> list[CostLine]:
    spent = [_spent(cell) for cell in cells]
    least = min((s for s in spent if s), default=None)
    gained = next((m for m in qualities if m.column != "held_out_accuracy"), None)
    lines = []
    for cell, s in zip(cells, spent, strict=True):
        gain = None if gained is None else _gain(cell, gained)
        lines.append(
            CostLine(
                cell.setting,
                DASH if s is None else f"{s:.3g}",
                DASH if not s or least is None else f"{s / least:.2f}",
                tuple(_shown(cell.last, m) for m in qualities),
                DASH if gain is None or not s else number(gain / s * 1e12),
            )
        )
    return lines


def _bought(cells: Sequence[_Cell], qualities: Sequence[Measured]) -> list[str]:
    """For each setting that has both orders: what aligning the large model cost more, and what it brought."""
    said = []
    for first in cells:
        second = next((c for c in cells if c.recipe == ORDERS[1] and c.order == first.order), None)
        if first.recipe != ORDERS[0] or second is None:
            continue
        costs = _spent(first), _spent(second)
        if not costs[0] or not costs[1]:
            continue
        where = first.setting.removeprefix(f"{ORDERS[0]}, ")
        found = [words for m in qualities if (words := _difference(first.last, second.last, m))]
        ratio = f"{costs[0] / costs[1]:.2f} times the operations of {ORDERS[1]}"
        said.append(f"{where}: {ORDERS[0]} took {ratio}. {' '.join(found) or 'No quality of both was measured.'}")
    return said


def _difference(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]], m: Measured) -> str:
    """One quality of the two ends, and whether their difference is more than the intervals allow."""
    x, y = _known(a, m), _known(b, m)
    if not x or not y:
        return ""
    gap = sum(x) / len(x) - sum(y) / len(y)
    begin = f"Its {m.label.removesuffix(', nats')} is {_signed(gap, m)} apart from the other order's"
    if len(a) > 1:
        return f"{begin}, {_by_seed(a, b, m)}."
    ends = _interval(a, m), _interval(b, m)
    if ends[0] is None or ends[1] is None:
        return f"{begin}; no interval says whether that is chance."
    apart = ends[0][0] > ends[1][1] or ends[0][1] < ends[1][0]
    if not apart:
        return f"{begin}: the intervals over prompts overlap, so nothing is seen that the extra cost bought."
    verdict = "that is what the extra cost bought" if gap > 0 else "the extra cost bought the opposite"
    return f"{begin}, more than the intervals over prompts allow: {verdict}, in this seed."


def _by_seed(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]], m: Measured) -> str:
    values = [{row["seed"]: _value(row, m) for row in rows} for rows in (a, b)]
    gaps = [x - y for seed, x in values[0].items() if x is not None and (y := values[1].get(seed)) is not None]
    won = sum(gap > 0 for gap in gaps)
    few = "" if len(gaps) >= MIN_SEEDS else f"; below {MIN_SEEDS} seeds that is no verdict"
    return f"higher in {won} of {count(len(gaps), 'seed')}{few}"


def _signed(gap: float, m: Measured) -> str:
    return signed(gap, 3 if m.column != "logp_chosen" else 1)


# -- the audit --------------------------------------------------------------------------------------------------------


def _audits(run: RunFiles, cells: Sequence[_Cell]) -> list[AuditLine]:
    told: Mapping[str, Any] = run.exhibits.get("audits") or {}
    lines: dict[tuple[str, str], AuditLine] = {}
    for cell in cells:
        for rows in cell.stages.values():
            for row in rows:
                if row["audit_verdict"] is not None:
                    line = _audit(cell, row, told.get(row["model"]))
                    lines.setdefault((str(row["model"]), line.setting), line)
    return list(lines.values())


def _audit(cell: _Cell, row: Mapping[str, Any], pairs: Mapping[str, Any] | None) -> AuditLine:
    return AuditLine(
        f"{cell.setting}, seed {row['seed']}",
        str(row["audit_verdict"]),
        str(row["audit_reason"] or ""),
        _against(row, "audit_reward", "reward"),
        _against(row, "audit_mass", "target_mass"),
        "" if pairs is None else _of_pairs(pairs),
    )


def _against(row: Mapping[str, Any], predicted: str, reached: str) -> str:
    if row[predicted] is None:
        return DASH
    return f"{decimal(row[predicted])} predicted, {decimal(row[reached])} reached"


def _of_pairs(pairs: Mapping[str, Any]) -> str:
    said = [f"{count(pairs['rows'], 'pair')}"]
    for name, words, say in (
        ("discrimination", "chosen likelier in a share of", SHARE),
        ("margin", "margin, nats,", NATS),
        ("cost_per_token_chosen", "against the teacher, nats a token of chosen,", partial(decimal, places=3)),
        ("cost_per_token_rejected", "of rejected", partial(decimal, places=3)),
    ):
        found = pairs.get(name) or {}
        if found.get("value") is not None:
            low, high = found.get("low"), found.get("high")
            ends = "" if low is None or high is None else f" [{say(low)}, {say(high)}]"
            said.append(f"{words} {say(found['value'])}{ends}")
    worst = [str(row["line"]) for row in pairs.get("worst") or []][:5]
    return "; ".join(said) + (f"; worst: lines {listed(worst)}" if worst else "")
