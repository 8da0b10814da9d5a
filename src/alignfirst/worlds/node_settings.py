"""Settings of nodes that several worlds have alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alignfirst.nodes import Json
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.theory.schedules import CONSTANT
from alignfirst.world import World


def drawing_filter(section: Any) -> dict[str, Json]:
    """The filter that a section names for the text it draws; nothing where it names none, so that keys stay."""
    return {} if section.filter is None else {"filter": section.filter}


def keys(section: Any, names: Sequence[str]) -> dict[str, Json]:
    """The values of some keys of a config's section."""
    return {name: getattr(section, name) for name in names}


def align_settings(
    world: World,
    config: Any,
    *,
    seed: int,
    algorithm: str,
    beta: float | None,
    updates: float,
    occurrence: int,
    given_pairs: bool = False,
) -> dict[str, Json]:
    """What every world's alignments are decided by; a world adds its models, data and reward.

    `updates` is a share of the config's. With `given_pairs` nothing is drawn: how responses are drawn, grouped and
    labelled then decides nothing.
    """
    method, a, p = ALGORITHMS[algorithm], config.align, config.preferences
    settings = {
        "seed": seed,
        "occurrence": occurrence,
        "algorithm": algorithm,
        "beta": beta,
        "updates": world.count(config, updates * a.updates, 1),
        "samples": a.samples,
        "learning_rate": a.learning_rate,
    }
    if a.schedule != CONSTANT:
        settings["schedule"] = a.schedule
    if world.text:
        settings["trainer"] = a.trained_by
    if given_pairs:
        return settings
    if method.on_pairs:
        settings["labels"] = {"kind": p.labels, "scale": p.scale, "flip": p.flip}
    else:
        settings["group"] = a.group_size
        if world.text:
            settings |= {"level": a.level, "kl_in": a.kl_in}
    if method.data == "pairs-offline":
        settings["pairs"] = world.count(config, p.pairs)
    if method.reuses_batches:
        settings["epochs"] = a.ppo_epochs
    return settings
