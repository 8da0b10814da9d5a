"""What a world needs around its work with language models: threads, nodes one by one, the processes of a training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch

from alignfirst import process_environment
from alignfirst.errors import InputError, StageFailure
from alignfirst.lm.training.processes import ALONE, Accelerated, Team
from alignfirst.nodes import Artefact, Failure, Load, Node, Outcome


def one_thread() -> None:
    """One thread in this process: two are slower on small models, and sums come out the same on every machine."""
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


def one_by_one(work: Callable[[Node, Load], Artefact], nodes: Sequence[Node], load: Load) -> list[Outcome]:
    """Nodes share no work but the loading of their inputs, so that none depends on which stand beside it."""
    one_thread()
    return [_outcome(work, node, load) for node in nodes]


def _outcome(work: Callable[[Node, Load], Artefact], node: Node, load: Load) -> Outcome:
    try:
        return work(node, load)
    except (StageFailure, InputError) as e:
        return Failure.of(e)


@cache
def team() -> Team:
    """The processes that this one was started with by `accelerate launch` or torchrun, or itself alone."""
    if process_environment.launched() < 2:
        return ALONE
    from accelerate import Accelerator

    return Accelerated(Accelerator(cpu=not torch.cuda.is_available()), every_pass=process_environment.sharded())
