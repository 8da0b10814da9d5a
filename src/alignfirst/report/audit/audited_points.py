"""What the audit said before training against what training reached: counts for the words, points for the figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignfirst.report.compact import columns
from alignfirst.report.run_files import RunFiles
from alignfirst.report.sentences.words import DASH, count, decimal, listed
from alignfirst.stats.audited import VERDICTS

REFUSED = "refused"


@dataclass(frozen=True)
class AuditedAlgorithm:
    """One algorithm: for each of VERDICTS how many alignments had it and reached the target, as text."""

    algorithm: str
    verdicts: tuple[str, ...]
    reward_error: str
    mass_error: str


@dataclass(frozen=True)
class Audited:
    """`sentence` is empty where nothing was predicted: then there is no section either."""

    sentence: str
    lines: tuple[AuditedAlgorithm, ...]


def audited(run: RunFiles) -> Audited:
    found = run.statistics.get("audited") or []  # a run of an older version has none
    if not any(a["predicted"] for a in found) or not any(_has_both(row) for row in run.rows):
        return Audited("", ())
    return Audited(_sentence(found), tuple(_line(a) for a in found))


def _has_both(row: Mapping[str, Any]) -> bool:
    """A predicted target mass, and a measured one to compare it with."""
    return row["audit_mass"] is not None and row["target_mass"] is not None


def _sentence(found: Sequence[Mapping[str, Any]]) -> str:
    total = {v: [sum(a["verdicts"][v][k] or 0 for a in found) for k in ("n", "reached")] for v in VERDICTS}
    (go, reached), (no, against) = total["go"], total["no-go"]
    said = [f"go for {count(go, 'alignment')} ({reached} reached the target)"] if go else []
    said += [f"no-go for {no} ({against} reached it nevertheless)"] if no else []
    rest = [f"left {undecided} undecided"] if (undecided := total["insufficient data"][0]) else []
    rest += [f"predicts nothing for {refused}"] if (refused := total[REFUSED][0]) else []
    first = f"said {listed(said)}" if said else "decided nothing"
    return f"Before any training the audit {first}{f'; it {listed(rest)}' if rest else ''}."


def _line(a: Mapping[str, Any]) -> AuditedAlgorithm:
    found = [a["verdicts"][v] for v in VERDICTS]
    verdicts = tuple(f"{DASH if v['reached'] is None else v['reached']} of {v['n']}" if v["n"] else DASH for v in found)
    return AuditedAlgorithm(a["algorithm"], verdicts, decimal(a["reward_error"]), decimal(a["mass_error"]))


def points(run: RunFiles, axes: Any) -> dict[str, Any]:
    """One point an alignment that has numbers, however many recipes share it; `c` is the place in VERDICTS."""
    rows, seen = [], set()
    for row in run.rows:
        if row["status"] != "ok" or row["audit_reward"] is None or row["audit_mass"] is None or row["model"] in seen:
            continue
        seen.add(row["model"])
        v, r, a, b, _ = axes.key(row)
        rows.append(
            {"v": v, "r": r, "a": a, "b": b, "s": row["seed"], "c": VERDICTS.index(row["audit_verdict"])}
            | {"said_reward": row["audit_reward"], "reward": row["reward"]}
            | {"said_mass": row["audit_mass"], "mass": row["target_mass"]}
        )
    return columns(rows)
