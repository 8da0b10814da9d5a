"""What processes of a team divide among them, without any process."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="language models need torch")

from alignfirst.lm import team
from alignfirst.lm.optim import Optimiser, OptimSettings
from alignfirst.lm.team import ALONE, Team


class Second(Team):
    """The second of three processes; the others say what it says."""

    rank, size = 1, 3

    def told_by(self, owner, tensor):
        return tensor + (owner != self.rank)  # what others tell is seen by being off by one


def test_owners_keep_about_as_much_and_all_is_owned():
    sizes = [50, 10, 10, 10, 10, 40, 1]
    owners = Second().owners(sizes)
    held = [sum(s for s, o in zip(sizes, owners, strict=True) if o == rank) for rank in range(3)]
    assert sum(held) == sum(sizes) and max(held) - min(held) <= max(sizes)
    assert ALONE.owners(sizes) == [0] * len(sizes)


def test_parts_are_dealt_out_once():
    parts = list(range(8))
    dealt = []
    for rank in range(3):
        member = Second()
        member.rank = rank
        dealt += member.deal(parts)
    assert sorted(dealt) == parts
    assert ALONE.spread(parts, lambda x: x * x) == [x * x for x in parts]


def test_buckets_hold_everything_in_order_and_one_type(monkeypatch):
    monkeypatch.setattr(team, "BUCKET", 10)
    sizes = [4, 4, 4, 30, 1, 1]
    some = [torch.zeros(n, dtype=torch.float64 if n == 1 else torch.float32) for n in sizes]
    found = list(team.buckets(some))
    assert [[len(x) for x in bucket] for bucket in found] == [[4, 4], [4], [30], [1, 1]]
    assert [id(x) for bucket in found for x in bucket] == [id(x) for x in some]
    assert list(team.buckets([])) == []


def test_a_process_steps_its_own_and_takes_over_the_rest():
    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (4, 4, 4, 4)]
    optimiser = Optimiser(parameters, OptimSettings(0.5, clip_norm=None), 10, Second())
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimiser.step()
    assert [round(p.detach()[0].item(), 3) for p in parameters] == [1.0, -0.5, 1.0, 1.0]  # the second is its own
    assert [len(optimiser.adam.state.get(p, {})) for p in parameters] == [0, 3, 0, 0]
    assert all(p.grad is None for p in parameters)


def test_more_processes_than_parameters():
    parameters = [torch.nn.Parameter(torch.zeros(2))]
    optimiser = Optimiser(parameters, OptimSettings(0.5, clip_norm=None), 10, Second())
    parameters[0].grad = torch.ones(2)
    optimiser.step()
    assert parameters[0].tolist() == [1.0, 1.0]
