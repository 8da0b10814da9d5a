"""Verdicts that were given before training, against what training reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alignfirst.records import Row
from alignfirst.stats.columns import number

VERDICTS = ("go", "no-go", "insufficient data", "refused")
REACHED = 0.5  # target mass above which an alignment has reached the target


def audited(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One dict per algorithm, in the order of the rows; empty where nothing was audited.

    `verdicts`: for each of VERDICTS, how many alignments had it (`n`) and how many of those `reached` the target.
    Where no target was measured, `reached` is null. `reward_error`, `mass_error`: mean absolute difference of predicted
    and reached, over the `predicted` ones. An alignment that several recipes share counts once; one that failed counts
    in `failed` and nowhere else.
    """
    alignments: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row.get("audit_verdict") is not None:
            alignments.setdefault(row["algorithm"], {}).setdefault(row["model"], row)
    return [_of(algorithm, list(found.values())) for algorithm, found in alignments.items()]


def _of(algorithm: str, rows: Sequence[Row]) -> dict[str, Any]:
    measured = any(row["target_mass"] is not None for row in rows)
    done = [row for row in rows if row["status"] == "ok" and (row["target_mass"] is not None or not measured)]
    verdicts: dict[str, dict[str, int | None]] = {}
    for verdict in VERDICTS:
        mine = [row for row in done if row["audit_verdict"] == verdict]
        reached = sum(row["target_mass"] > REACHED for row in mine) if measured else None
        verdicts[verdict] = {"n": len(mine), "reached": reached}
    return {
        "algorithm": algorithm,
        "verdicts": verdicts,
        "predicted": sum(row["audit_reward"] is not None for row in done),
        "reward_error": _error(done, "audit_reward", "reward"),
        "mass_error": _error(done, "audit_mass", "target_mass"),
        "failed": len(rows) - len(done),
    }


def _error(rows: Sequence[Row], predicted: str, reached: str) -> float | None:
    found = [abs(row[predicted] - row[reached]) for row in rows if None not in (row[predicted], row[reached])]
    return number(np.mean(found)) if found else None
