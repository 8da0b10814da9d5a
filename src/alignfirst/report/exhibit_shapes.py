"""What a report may show of each model. One function a kind of exhibit; the page draws a kind by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alignfirst.report.run_files import RunFiles
from alignfirst.report.sentences.words import cut, rounded

Shape = Callable[[Mapping[str, Any], list[str]], dict[str, Any]]
DIGITS = 3  # a pixel of the filmstrip is a hundredth of the plane; a posterior or a point of a curve needs no more
MOST_CHARS = 1_000  # of a sample text
MOST_TEXTS = 12  # of a model
MOST_POINTS = 72  # of a curve
MOST_PROMPT, MOST_WORDS = 200, 5_000

CURVE_WORDS: Mapping[str, str] = {
    "reward": "reward of the draws",
    "kl": "KL to its reference, nats",
    "entropy": "entropy, nats",
    "target_share": "share of draws that are the target's",
    "loss": "loss",
    "held_out": "loss on held-out text",
    "grad_norm": "gradient norm",
}


def mixture(exhibits: Mapping[str, Any], keys: list[str]) -> dict[str, Any]:
    """Gaussian mixtures as flat lists: weights [K], means [x0, y0, x1, ...], sds likewise."""
    return {
        "p_star": _flat(exhibits["p_star"]),
        "targets": exhibits["targets"],
        "radius": exhibits["radius"],
        "half_width": exhibits["half_width"],
        "models": [_flat(exhibits["models"][k]) for k in keys],
    }


def text(exhibits: Mapping[str, Any], keys: list[str]) -> dict[str, Any]:
    """Sample texts and training curves. All but the models is optional; docs/exhibits.md has the shape."""
    behaviours = list(exhibits.get("behaviours") or [])
    target = exhibits.get("target_behaviour", len(behaviours) - 1 if behaviours else None)
    weights = exhibits.get("weights")
    truth = exhibits.get("truth")
    return {
        "prompts": [cut(str(p), MOST_PROMPT) for p in exhibits.get("prompts") or []],
        "behaviours": behaviours,
        "target": target,
        "weights": None if weights is None else [[rounded(float(w)) for w in row] for row in weights],
        "target_words": [str(w) for w in exhibits.get("target_words") or []][:MOST_WORDS],
        "truth": None if truth is None else _texts(truth),
        "curve_words": dict(CURVE_WORDS),
        "models": [
            {**_texts(model["texts"]), "curves": _curves(model.get("curves") or {})}
            for model in (exhibits["models"][k] for k in keys)
        ],
    }


SHAPES: dict[str, Shape] = {"mixture": mixture, "text": text}


def exhibit(run: RunFiles) -> tuple[dict[str, Any], dict[str, int]]:
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


def _texts(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Columns over the first texts: `text`, characters cut off in `more`, and what is known of each."""
    kept = samples[:MOST_TEXTS]
    whole = [str(s["text"]) for s in kept]
    found: dict[str, Any] = {
        "text": [t[:MOST_CHARS] for t in whole],
        "more": [max(0, len(t) - MOST_CHARS) for t in whole],
        "left": len(samples) - len(kept),
    }
    for name in ("prompt", "behaviour", "target", "reward"):
        values = [rounded(s.get(name), DIGITS) for s in kept]
        found[name] = values if any(v is not None for v in values) else None
    return found


def _curves(curves: Mapping[str, Sequence[float | None]]) -> dict[str, Any] | None:
    """Curves that have a value somewhere, each at the same at most `MOST_POINTS` updates, the last among them.

    A curve that ends before its updates do has nothing there.
    """
    updates = list(curves.get("update") or [])
    if not updates:
        return None
    n = len(updates)
    at = range(n) if n <= MOST_POINTS else [round((i + 1) * n / MOST_POINTS) - 1 for i in range(MOST_POINTS)]
    known = {k: v for k, v in curves.items() if k != "update" and any(x is not None for x in v)}
    return {"update": [rounded(float(updates[i] or 0)) for i in at]} | {
        k: [rounded(v[i]) if i < len(v) else None for i in at] for k, v in known.items()
    }
