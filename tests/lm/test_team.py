"""What processes of a team divide among them, without any process."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="language models need torch")

from alignfirst.lm.training import moments
from alignfirst.lm.training.processes import ALONE, Team


class Second(Team):
    """The second of three processes."""

    rank, size = 1, 3


def test_parts_are_dealt_out_once():
    parts = list(range(8))
    dealt = []
    for rank in range(3):
        member = Second()
        member.rank = rank
        dealt += member.round_robin(parts)
    assert sorted(dealt) == parts
    assert ALONE.map_and_gather(parts, lambda x: x * x) == [x * x for x in parts]


def test_groups_hold_everything_from_the_end_and_one_type_each(monkeypatch):
    monkeypatch.setattr(moments, "BUCKET", 10)
    sizes = [4, 4, 4, 30, 1, 1]
    some = [torch.zeros(n, dtype=torch.float64 if n == 1 else torch.float32) for n in sizes]
    found = list(moments.grouped(some))
    assert [[len(x) for x in group] for group in found] == [[1, 1], [30], [4, 4], [4]]
    assert [id(x) for group in found for x in group] == [id(x) for x in reversed(some)]
    assert moments.grouped([]) == []
