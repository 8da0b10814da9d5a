"""The few numbers that stand in large type below the verdict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alignfirst.report.run_files import RunFiles
from alignfirst.report.sentences.words import count, number, runs_of, signed


@dataclass(frozen=True)
class HeadlineNumber:
    """One number that a reader takes away, and what it is."""

    value: str
    caption: str
    kind: str  # the recipe that is ahead, if one is, "target" for the trap, else ""


UNKNOWN = HeadlineNumber(
    "not known", "what theory says of the low-recall trap: in this world no exact optimum of the models is known", ""
)


def headline_numbers(
    run: RunFiles, windows: Sequence[Mapping[str, Any]], grid: Sequence[float], focus: float | None
) -> list[HeadlineNumber]:
    """What aligning first adds where it should matter most, and the trap's window in theory and in training."""
    return [t for t in (_at_focus(run, focus), *_of_windows(windows, grid)) if t is not None]


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


def _at_focus(run: RunFiles, focus: float | None) -> HeadlineNumber | None:
    """The range of the difference over algorithms, where theory says that order matters most."""
    pairs = [
        p
        for p in run.statistics.get("pairs", [])
        if p["metric"] == "reward" and p["beta"] == focus and focus is not None and p["mean"] is not None
    ]
    if not pairs:
        return None
    least, most = (pick(pairs, key=lambda p: p["mean"]) for pick in (min, max))
    low, high = signed(least["mean"], 2), signed(most["mean"], 2)
    over = count(len(pairs), "setting" if run.varied else "algorithm")
    names = f", from {least['algorithm']} to {most['algorithm']}" if len(pairs) > 1 and not run.varied else ""
    clear = [p["low"] is not None and (p["low"] > 0) - (p["high"] < 0) for p in pairs]
    kind = "align-distil" if all(c > 0 for c in clear) else "distil-align" if all(c < 0 for c in clear) else ""
    caption = f"reward that aligning first adds at beta {focus:g}, mean over seeds, across {over}{names}"
    return HeadlineNumber(low if low == high else f"{low} to {high}", caption, kind)


def _of_windows(windows: Sequence[Mapping[str, Any]], grid: Sequence[float]) -> list[HeadlineNumber]:
    if not windows:
        return []
    if len(windows) > len({w["algorithm"] for w in windows}):  # a window a variant: their mean would say nothing
        return [_theory_share(windows, grid), _training_share(windows)]
    return [_in_theory(windows), _in_training(windows, grid)]


def theory_answers(window: Mapping[str, Any]) -> bool:
    """Whether the exact window of any seed is known, be it that there is none; else no exact optimum was to be had."""
    kinds = window["predicted"].get("kinds")
    return not kinds or set(kinds) != {"unknown"}


def _theory_share(windows: Sequence[Mapping[str, Any]], grid: Sequence[float]) -> HeadlineNumber:
    if not any(theory_answers(w) for w in windows):
        return UNKNOWN
    spans = [(w["predicted"]["low"], w["predicted"]["high"]) for w in windows]
    there = sum(lo is not None and hi is not None and any(lo <= b < hi for b in grid) for lo, hi in spans)
    caption = "settings in which theory, with no training, has the low-recall trap at a beta of this study"
    return HeadlineNumber(f"{there} of {len(windows)}", caption, "target" if there else "")


def _training_share(windows: Sequence[Mapping[str, Any]]) -> HeadlineNumber:
    there = sum(bool(w["observed"]["betas"]) for w in windows)
    caption = "settings in which training fell into the trap, at some beta, in more than half of the seeds"
    return HeadlineNumber(f"{there} of {len(windows)}", caption, "target" if there else "")


def _in_theory(windows: Sequence[Mapping[str, Any]]) -> HeadlineNumber:
    if not any(theory_answers(w) for w in windows):
        return UNKNOWN
    spans = [w["predicted"] for w in windows if w["predicted"]["low"] is not None]
    if not spans:
        return HeadlineNumber("none", "theory has no window in beta for the low-recall trap here", "")
    low, high = sum(s["low"] for s in spans) / len(spans), sum(s["high"] for s in spans) / len(spans)
    if low >= high:
        thresholds = f"the student recovers below beta {number(low)}, sft below {number(high)}"
        return HeadlineNumber("none", f"theory leaves no trap: {thresholds}", "")
    return HeadlineNumber(
        f"beta {number(low, 2)} to {number(high, 2)}",
        "where theory, with no training, has the low-recall trap: from the recovery threshold of the student to that "
        "of sft",
        "target",
    )


def _in_training(windows: Sequence[Mapping[str, Any]], grid: Sequence[float]) -> HeadlineNumber:
    """Betas at which most algorithms fell in; where there are none, those at which any did."""
    seen = Counter(b for w in windows for b in w["observed"]["betas"])
    if not seen:
        return HeadlineNumber(
            "not seen", "in no setting did training fall into the trap in more than half of the seeds", ""
        )
    common = [b for b, n in seen.items() if 2 * n > len(windows)]
    fell = sum(bool(w["observed"]["betas"]) for w in windows)
    over = count(len(windows), "algorithm")
    whose = ("" if len(windows) == 1 else f", for most of {over}") if common else f", for {fell} of {over}"
    caption = f"where training fell into the trap in more than half of the seeds{whose}"
    return HeadlineNumber(f"beta {runs_of(common or list(seen), grid)}", caption, "target")
