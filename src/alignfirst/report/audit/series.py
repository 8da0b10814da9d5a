"""What the figures of an audit's page draw: the findings as columns, thinned until they fit a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from alignfirst.report.audit.audit_files import Findings
from alignfirst.report.audit.verdict_card import NO_REWARD, focus
from alignfirst.report.page_budget import size
from alignfirst.report.sentences.words import count, of_audit, rounded, shown

Payload = dict[str, Any]
ROW_COLUMNS = (
    "line", "logp_chosen", "logp_rejected", "margin", "cost_chosen", "cost_rejected", "cost_per_token_chosen",
    "cost_per_token_rejected", "typicality", "rarest_step", "rarest_at",
)  # fmt: skip
PLAN_NUMBERS = {
    "mass": "target_mass", "reward": "reward", "hits": "expected_hits", "effective": "effective_hits",
    "rollouts_needed": "rollouts_needed", "to_see": "draws_to_see_target",
}  # fmt: skip


class RowBudget(NamedTuple):
    """How much of the rows a page takes: points drawn, rows listed, characters of an answer, tokens of an answer."""

    points: int
    listed: int
    characters: int
    tokens: int


ROW_BUDGETS = (
    RowBudget(4_000, 1_000, 1_500, 2_000),
    RowBudget(4_000, 500, 600, 600),
    RowBudget(2_000, 200, 300, 200),
    RowBudget(500, 50, 0, 0),
)


def payload(found: Findings, most_bytes: int) -> Payload:
    """Everything that the figures draw, in the widest form that takes at most `most_bytes`."""
    fixed: Payload = {
        "plans": [_plan(p) for p in found.plans],
        "focus": focus(found.plans) or 0,
        "windows": found.plain.get("windows") or {},
        "reference": found.plain.get("reference"),
        "coverage": found.plain.get("coverage") or {"of": "", "profile": []},
        "calibration": found.evidence.get("calibration") or {},
        "scores": found.evidence.get("scores") or {},
        "words": of_audit(),
        "means": {k: v for k, v in (found.pairs or {}).items() if k.startswith("cost_")},
    }
    data: Payload = {}
    for budget in ROW_BUDGETS:
        data = _rounded(shown({**fixed, **_rows(found, budget)}))
        if size(data) <= most_bytes:
            break
    return data


def missing(found: Findings) -> dict[str, str]:
    """Why a section has nothing to show; sections that have something are left out."""
    plain, why = found.plain, {}
    windows = plain.get("windows") or {}
    drawn = [w for w in windows.values() if any(x is not None for x in w.get("target_mass", []) + w.get("reward", []))]
    if plain.get("reference") is None:
        why["tilt"] = why["hits"] = NO_REWARD
    else:
        if not drawn:
            refused = [p["refused"] for p in found.plans if p.get("refused")]
            notes = [w.get("note") for w in windows.values() if w.get("note")]
            why["tilt"] = f"No curve over beta: {next(iter([*refused, *notes]), 'no plan has a prediction')}."
        if (plain["reference"]["target_mass"] or {}).get("value") is None:
            reason = plain["reference"]["target_mass"].get("why") or "the target mass is unknown"
            why["hits"] = f"No hits can be expected: {reason}."
    coverage = plain.get("coverage") or {}
    if not any(p.get("value") is not None for p in coverage.get("profile") or []):
        reason = coverage.get("of") if "missing" in str(coverage.get("of")) else "no answer is scored by both models"
        why["coverage"] = f"Coverage compares the reference with a teacher: {reason}. Give --teacher."
    why |= _missing_rows(found)
    if not found.evidence.get("calibration"):
        why["calibration"] = "This installation holds no auditing/evidence.json; benchmarks/audit_power.py makes it."
    return why


def _missing_rows(found: Findings) -> dict[str, str]:
    if not found.rows:
        reason = "This audit saw no preference rows. Give --pairs, or rows of kind chosen and rejected in --log-probs."
        return {"scatter": reason, "rows": reason, "cost": reason}
    if any(row.get("cost_chosen") is not None or row.get("cost_rejected") is not None for row in found.rows):
        return {}
    return {"cost": "What distilling cost is read against a teacher, and none scored these rows. Give --teacher."}


def _plan(p: Mapping[str, Any]) -> dict[str, Any]:
    found = {k: p.get(k) for k in ("algorithm", "beta", "rollouts", "verdict", "because", "refused", "needed_hits")}
    return found | {name: p.get(key) for name, key in PLAN_NUMBERS.items()}


def _rows(found: Findings, budget: RowBudget) -> Payload:
    rows = found.rows
    # The audit names the worst and the words for them; the others follow in the order of the first known cost.
    worst = list((found.pairs or {}).get("worst") or [])
    named = {row["line"]: row for row in worst}
    key = next((k for k in _KEYS if any(row.get(k) is not None for row in rows)), "line")
    rest = sorted((r for r in rows if r["line"] not in named), key=lambda r: _known(r.get(key)))
    ranked = [*worst, *rest][: budget.listed]
    left_out = []
    if len(rows) > budget.points:
        left_out.append(f"{count(len(rows) - budget.points, 'row')} of the figures of rows, taken evenly")
    if len(rows) > len(ranked):
        left_out.append(f"{count(len(rows) - len(ranked), 'row')} of the list of worst rows, the least bad")
    listed = [_listed(row, found.texts.get(row["line"]), budget) for row in ranked]
    if any(row["cut"] for row in listed):
        left_out.append(f"the ends of answers longer than {count(budget.characters, 'character')}")
    return {
        "rows": _columns(_spread(rows, budget.points)),
        "total": len(rows),
        "teacher": any(row.get("cost_chosen") is not None for row in rows),
        "listed": listed,
        "left_out": left_out,
    }


_KEYS = ("cost_per_token_chosen", "cost_chosen", "logp_chosen")


def _known(x: float | None) -> tuple[bool, float]:
    return x is None, x or 0.0


def _spread(rows: Sequence[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    """At most so many rows, evenly over the file."""
    if len(rows) <= most:
        return list(rows)
    return [rows[i * len(rows) // most] for i in range(most)]


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row.get(name) for row in rows] for name in ROW_COLUMNS}


def _listed(row: Mapping[str, Any], text: str | None, budget: RowBudget) -> dict[str, Any]:
    found: dict[str, Any] = {name: row.get(name) for name in ROW_COLUMNS}
    prompt = row.get("prompt")
    found["prompt"] = None if prompt is None else _short(prompt, budget.characters)
    found["text"] = None if text is None else text[: budget.characters]
    found["cut"] = text is not None and len(text) > budget.characters
    keys = ("at", "text", "logp_reference", "logp_teacher")
    found["costliest"] = [[t.get(k) for k in keys] for t in row.get("costliest_tokens") or ()]
    tokens = row.get("tokens") or {}
    found["tokens"] = None
    if tokens.get("text") and budget.tokens:
        n = budget.tokens
        teacher = tokens.get("logp_teacher")
        found["tokens"] = [tokens["text"][:n], tokens["logp_reference"][:n], None if teacher is None else teacher[:n]]
        found["cut"] = len(tokens["text"]) > n
    return found


def _short(text: str, most: int) -> str:
    """The end of a text that is too long: what was asked last stands there."""
    return text if len(text) <= most else f"… {text[len(text) - most :]}"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return rounded(value, 6)
