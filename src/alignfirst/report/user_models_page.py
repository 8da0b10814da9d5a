"""Own models side by side: what was measured on held-out prompts, what each recipe cost, what the audit said before.

Numbers are those of the records. Where one seed was run, an interval is the record's own, over prompts; where several
were, the mean over seeds with the lowest and the highest. Everything here is text for a template that escapes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from alignfirst.auditing.constants import LEVEL
from alignfirst.records import Row
from alignfirst.report.run_files import RunFiles
from alignfirst.report.sentences.words import DASH, beta_text, count, decimal, listed, number, signed
from alignfirst.stats.intervals import MIN_SEEDS, level_words
from alignfirst.stats.paired import A_K, K_A
from alignfirst.stats.quality_for_cost import (
    Measure,
    OrderDifference,
    RecipeCell,
    estimate,
    gain,
    operations,
    orders,
    recipe_cells,
)

MOST = 60  # lines of a table
Say = Callable[[float | None], str]


@dataclass(frozen=True)
class Measured:
    """A column of the records as the table shows it; the first of QUALITIES that a run has is its quality."""

    column: str
    label: str
    say: Say
    by: str | None = None  # the key in a column that holds several

    @property
    def measure(self) -> Measure:
        return Measure(self.column, self.by)


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


def of_own_models(run: RunFiles) -> bool:
    return any(row["world"] == "hf" for row in run.rows)


def own(run: RunFiles) -> Own:
    """The tables of a run of own models."""
    if not of_own_models(run):
        return Own()
    cells = recipe_cells(run.rows, run.varied)
    shown = [m for m in MEASURED if any(m.measure.of(row) is not None for row in run.rows)]
    lines = [_line(_setting(run, cell), rows, shown) for cell in cells for rows in cell.stages.values()]
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
        costs=tuple(_costs(run, cells, qualities)[:MOST]),
        bought=tuple(_bought(run, cells, qualities)[:MOST]),
        audits=tuple(_audits(run, cells)[:MOST]),
    )


def _setting(run: RunFiles, cell: RecipeCell) -> str:
    """Recipe, algorithm, beta and varied values in words."""
    row = cell.first[0]
    parts = [cell.recipe, str(row["algorithm"] or "")]
    parts += [f"beta {beta_text(row['beta'])}"] if row["beta"] is not None else []
    parts += [f"{n.label} {n.text(row[n.key])}" for n in run.names]
    return ", ".join(part for part in parts if part)


def _shown(rows: Sequence[Row], m: Measured) -> tuple[str, str]:
    found = estimate(rows, m.measure)
    if found is None:
        return "", ""
    known = found.low is not None and found.high is not None
    return m.say(found.value), f"[{m.say(found.low)}, {m.say(found.high)}]" if known else ""


def _line(setting: str, rows: Sequence[Row], shown: Sequence[Measured]) -> Line:
    first = rows[0]
    lost = sum(row["status"] != "ok" for row in rows)
    stage = f"{first['stage']}{f' ({lost} of {len(rows)} failed)' if lost else ''}"
    return Line(setting, stage, bool(first["final"]), tuple(_shown(rows, m) for m in shown))


# -- cost -------------------------------------------------------------------------------------------------------------


def _gain_label(qualities: Sequence[Measured]) -> str:
    gained = next((m for m in qualities if m.column != "held_out_accuracy"), None)
    return "" if gained is None else f"gain in {gained.label} over sft, per 1e12 operations"


def _costs(run: RunFiles, cells: Sequence[RecipeCell], qualities: Sequence[Measured]) -> list[CostLine]:
    spent = [operations(cell) for cell in cells]
    least = min((s for s in spent if s), default=None)
    gained = next((m for m in qualities if m.column != "held_out_accuracy"), None)
    lines = []
    for cell, s in zip(cells, spent, strict=True):
        more = None if gained is None else gain(cell, gained.measure)
        lines.append(
            CostLine(
                _setting(run, cell),
                DASH if s is None else f"{s:.3g}",
                DASH if not s or least is None else f"{s / least:.2f}",
                tuple(_shown(cell.last, m) for m in qualities),
                DASH if more is None or not s else number(more / s * 1e12),
            )
        )
    return lines


def _bought(run: RunFiles, cells: Sequence[RecipeCell], qualities: Sequence[Measured]) -> list[str]:
    """For each setting that has both orders: what aligning the large model cost more, and what it brought."""
    said = []
    for found in orders(cells, [m.measure for m in qualities]):
        where = _setting(run, found.cell).removeprefix(f"{A_K}, ")
        words = " ".join(map(_difference, found.differences)) or "No quality of both was measured."
        said.append(f"{where}: {A_K} took {found.ratio:.2f} times the operations of {K_A}. {words}")
    return said


def _difference(d: OrderDifference) -> str:
    """One quality of the two ends, and whether their difference is more than the intervals allow."""
    m = BY_COLUMN[d.measure.column]
    begin = f"Its {m.label.removesuffix(', nats')} is {_signed(d.gap, m)} apart from the other order's"
    if d.won is not None:
        few = "" if d.n >= MIN_SEEDS else f"; below {MIN_SEEDS} seeds that is no verdict"
        return f"{begin}, higher in {d.won} of {count(d.n, 'seed')}{few}."
    if d.apart is None:
        return f"{begin}; no interval says whether that is chance."
    if not d.apart:
        return f"{begin}: the intervals over prompts overlap, so nothing is seen that the extra cost bought."
    verdict = "that is what the extra cost bought" if d.gap > 0 else "the extra cost bought the opposite"
    return f"{begin}, more than the intervals over prompts allow: {verdict}, in this seed."


def _signed(gap: float, m: Measured) -> str:
    return signed(gap, 3 if m.column != "logp_chosen" else 1)


# -- the audit --------------------------------------------------------------------------------------------------------


def _audits(run: RunFiles, cells: Sequence[RecipeCell]) -> list[AuditLine]:
    told: Mapping[str, Any] = run.exhibits.get("audits") or {}
    lines: dict[tuple[str, str], AuditLine] = {}
    for cell in cells:
        setting = _setting(run, cell)
        for rows in cell.stages.values():
            for row in rows:
                if row["audit_verdict"] is not None:
                    line = _audit(setting, row, told.get(row["model"]))
                    lines.setdefault((str(row["model"]), line.setting), line)
    return list(lines.values())


def _audit(setting: str, row: Mapping[str, Any], pairs: Mapping[str, Any] | None) -> AuditLine:
    return AuditLine(
        f"{setting}, seed {row['seed']}",
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
