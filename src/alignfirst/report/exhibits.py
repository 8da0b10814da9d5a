"""What a report may show of each model. One function a kind of exhibit; the page draws a kind by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from alignfirst.report.load import Run
from alignfirst.report.words import rounded

Shape = Callable[[Mapping[str, Any], list[str]], dict[str, Any]]
DIGITS = 3  # a pixel of the filmstrip is a hundredth of the plane


def mixture(exhibits: Mapping[str, Any], keys: list[str]) -> dict[str, Any]:
    """Gaussian mixtures as flat lists: weights [K], means [x0, y0, x1, ...], sds likewise."""
    return {
        "p_star": _flat(exhibits["p_star"]),
        "targets": exhibits["targets"],
        "radius": exhibits["radius"],
        "half_width": exhibits["half_width"],
        "models": [_flat(exhibits["models"][k]) for k in keys],
    }


SHAPES: dict[str, Shape] = {"mixture": mixture}


def exhibit(run: Run) -> tuple[dict[str, Any], dict[str, int]]:
    """The exhibits' part of the payload, and the number in it of each model by its key in the store."""
    kind = run.exhibits.get("kind")
    shape = SHAPES.get(str(kind))
    if shape is None:
        return {"kind": kind, "models": [], "seeds": []}, {}
    known = run.exhibits.get("models", {})
    used = dict.fromkeys(r["model"] for r in run.rows if r["model"] in known)
    seeds = sorted({r["seed"] for r in run.rows if r["model"] in known})
    return {"kind": kind, "seeds": seeds, **shape(run.exhibits, list(used))}, {k: i for i, k in enumerate(used)}


def _flat(model: Mapping[str, Any]) -> list[list[float]]:
    return [[rounded(float(x), DIGITS) for x in _numbers(model[n])] for n in ("weights", "means", "sds")]


def _numbers(values: Any) -> list[float]:
    return [x for v in values for x in (v if isinstance(v, list) else [v])]
