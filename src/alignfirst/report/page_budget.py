"""Keep the page small: leave out the least needed numbers first, and say so on the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from alignfirst.report.compact import Codes

Payload = dict[str, Any]
FEW_VARIANTS = 8  # whose exhibits are kept longer
KEPT_BY_SEED = ("reward", "target_mass", "target_precision", "target_recall")


def within_budget(data: Payload, most_bytes: int) -> Payload:
    """The payload, thinned step by step until its JSON takes at most `most_bytes`, or as thin as it gets."""
    for step, words in STEPS:
        if size(data) <= most_bytes:
            return data
        step(data)
        data["left_out"].append(words)
    return data


def size(data: Any) -> int:
    """Upper bound of its size in the page: markup characters take six bytes there."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode()) + 5 * sum(text.count(c) for c in "<>&")


def _one_exhibited_seed(data: Payload) -> None:
    exhibits = data["exhibits"]
    exhibits["seeds"] = exhibits["seeds"][:1]
    keep = {str(s) for s in exhibits["seeds"]}
    _remodel(data, lambda models, variant: {s: m for s, m in models.items() if s in keep})


def _few_exhibited_variants(data: Payload) -> None:
    _remodel(data, lambda models, variant: models if variant < FEW_VARIANTS else {})


def _no_exhibits(data: Payload) -> None:
    _remodel(data, lambda models, variant: {})
    data["exhibits"]["seeds"] = []


def _main_metrics_by_seed(data: Payload) -> None:
    for name in _measured(data):
        if name not in KEPT_BY_SEED:
            _forget_seeds(data["cells"][name])
    _repool(data)


def _no_seeds(data: Payload) -> None:
    for name in _measured(data):
        _forget_seeds(data["cells"][name])
    _repool(data)


def _forget_seeds(column: dict[str, list[Any]]) -> None:
    column["values"] = [-1] * len(column["values"])


def _measured(data: Payload) -> list[str]:
    """Everything that cells have a value of a seed for: the metrics of every world, and the measures of text."""
    return [m["id"] for m in [*data["metrics"], *data.get("text_measures", [])]]


def _no_audited(data: Payload) -> None:
    data["audited"] = {}


def _main_pairs(data: Payload) -> None:
    kept = {i for i, m in enumerate(data["metrics"]) if m["id"] in KEPT_BY_SEED}
    pairs = data["pairs"]
    rows = [i for i, m in enumerate(pairs["m"]) if m in kept]
    for name, column in pairs.items():
        if name != "notes":
            pairs[name] = [column[i] for i in rows]


STEPS: tuple[tuple[Callable[[Payload], None], str], ...] = (
    (_one_exhibited_seed, "exhibits of all but one seed"),
    (_main_metrics_by_seed, "single seeds of the measures other than reward, target mass, precision and recall"),
    (_few_exhibited_variants, f"exhibits of all but the first {FEW_VARIANTS} variants"),
    (_no_audited, "the single alignments that were audited"),
    (_main_pairs, "differences of the measures other than reward, target mass, precision and recall"),
    (_no_exhibits, "all exhibits"),
    (_no_seeds, "all single seeds"),
)


def _remodel(data: Payload, keep: Callable[[dict[str, int], int], dict[str, int]]) -> None:
    """Keep some models of each cell, and renumber what is left."""
    cells, pool = data["cells"], data["pool"]
    numbers: dict[int, int] = {}
    kept: list[Any] = []
    for i, place in enumerate(cells["models"]):
        models = keep(pool[place], cells["v"][i]) if place >= 0 else {}
        for m in models.values():
            numbers.setdefault(m, len(numbers))
        kept.append({s: numbers[m] for s, m in models.items()} or None)
    data["exhibits"]["models"] = [data["exhibits"]["models"][m] for m in numbers]
    cells["models"] = [-1] * len(kept)
    fresh = _repool(data)
    cells["models"] = [fresh.add(k) for k in kept]


def _repool(data: Payload) -> Codes:
    """Drop from the pool what no cell points at any more."""
    cells, pool, fresh = data["cells"], data["pool"], Codes()
    for column in [cells[n] for n in ("seeds", "lost", "traps", "models")] + [
        cells[name]["values"] for name in _measured(data)
    ]:
        column[:] = [fresh.add(pool[place]) if place >= 0 else -1 for place in column]
    data["pool"] = fresh.values
    return fresh
