"""Every schedule of the registry, in the mixture world and, where torch is there, in that of language models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from alignfirst import worlds
from alignfirst.errors import InputError
from alignfirst.study.config.study_config import from_mapping
from alignfirst.study.plan.planner import plan_study
from alignfirst.theory.schedules import CONSTANT, SCHEDULES

EACH = pytest.mark.parametrize("name", SCHEDULES)


@EACH
def test_every_update_has_a_rate(name: str) -> None:
    shares = [SCHEDULES[name](update / 50) for update in range(50)]
    assert all(0 < share <= 1 for share in shares) and max(shares) == 1


def keys(world: str, **changed: Any) -> dict[str, set[str]]:
    config = from_mapping({"world": world, "seeds": 1, "beta": 0.1, "algorithms": ["dpo-offline"], **changed})
    found: dict[str, set[str]] = {}
    for key, node in plan_study(config, worlds.get(world)).nodes.items():
        found.setdefault(node.kind, set()).add(key)
    return found


@EACH
@pytest.mark.parametrize("world", ["mog", "grammar", "chain"])
def test_only_alignments_follow_it(name: str, world: str) -> None:
    """What is trained before an alignment is what it was; alignments are others, unless the rate stays."""
    plain, scheduled = keys(world), keys(world, **{"align.schedule": name})
    assert plain["sft"] == scheduled["sft"]
    assert len(plain["distil"] & scheduled["distil"]) == (2 if name == CONSTANT else 1)
    assert (plain["align"] == scheduled["align"]) == (name == CONSTANT)


def test_an_unknown_schedule_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"align.schedule must be a schedule, got liner. Did you mean linear\?"):
        from_mapping({"align.schedule": "liner"})


@EACH
def test_an_optimiser_steps_by_it(name: str) -> None:
    """On top of its warm-up; the mixture world is in tests/contracts/test_kernel.py."""
    pytest.importorskip("torch")
    from alignfirst.lm.training.optim import OptimSettings, rate

    plain, scheduled = OptimSettings(0.1, warmup=0.2), OptimSettings(0.1, warmup=0.2, schedule=name)
    for update in range(10):
        share = SCHEDULES[name](update / 10)
        np.testing.assert_allclose(rate(scheduled, update, 10), share * rate(plain, update, 10), rtol=1e-12)
