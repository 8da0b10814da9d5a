"""What each cell and stage gave, over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignfirst.records import Row
from alignfirst.stats.columns import KEYS, METRICS, Table, number, numbers, tabulate
from alignfirst.stats.intervals import Description, Floats, describe

MEANS = (
    "exact_reward",
    "exact_target_mass",
    "exact_kl",
    "predicted_reward",
    "predicted_target_mass",
    "audit_reward",
    "audit_mass",
    "beta_c",
    "kl_to_reference",
    "kl_to_sft",
    "kl_to_optimum",
    "target_draws",
    "updates",
    "samples",
    "flops",
)


def cells(rows: Sequence[Row], varied: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One dict per (varied..., recipe, algorithm, beta, stage, stage_index, final), in the order of the rows.

    Per metric: n, mean, iqm, sd, low, high (95 % t interval of the mean, null below 5 seeds) and the raw `values` in
    the order of `seeds`. A row whose status is not ok counts in `failed` and nowhere else.
    """
    table = tabulate(rows, (*varied, *KEYS), (*METRICS, *MEANS))
    described = {m: describe(table.column(m)) for m in METRICS}
    means = {m: describe(table.column(m)).mean for m in MEANS}
    return [_cell(table, g, described, means) for g in range(len(table.keys))]


def _cell(table: Table, g: int, described: dict[str, Description], means: dict[str, Floats]) -> dict[str, Any]:
    ok, failed = table.ok[g], table.seen[g] & ~table.ok[g]
    cell: dict[str, Any] = {
        **table.keys[g],
        "seeds": [s for s, good in zip(table.seeds, ok, strict=True) if good],
        "failed_seeds": [s for s, bad in zip(table.seeds, failed, strict=True) if bad],
        "n": int(ok.sum()),
        "failed": int(failed.sum()),
    }
    for m, d in described.items():
        cell[m] = {
            "n": int(d.n[g]),
            "mean": number(d.mean[g]),
            "iqm": number(d.iqm[g]),
            "sd": number(d.sd[g]),
            "low": number(d.low[g]),
            "high": number(d.high[g]),
            "values": numbers(table.column(m)[g][ok]),
        }
    cell.update({m: number(mean[g]) for m, mean in means.items()})
    return cell
