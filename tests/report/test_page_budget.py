from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from alignfirst.report.offline_page import embedded
from alignfirst.report.page_budget import STEPS, size, within_budget
from alignfirst.report.payload import payload
from alignfirst.report.run_files import load


@pytest.fixture(scope="module")
def data(built: Path) -> dict[str, Any]:
    return payload(load(built))


def check(data: dict[str, Any]) -> None:
    """Every number that points into the pool or at a model points at something."""
    cells = data["cells"]
    columns = [cells["seeds"], cells["traps"], cells["models"], *(cells[m["id"]]["values"] for m in data["metrics"])]
    assert all(-1 <= place < len(data["pool"]) for column in columns for place in column)
    models = [m for place in cells["models"] if place >= 0 for m in data["pool"][place].values()]
    assert sorted(set(models)) == list(range(len(data["exhibits"]["models"])))


def test_what_fits_is_left_alone(data: dict[str, Any]) -> None:
    assert within_budget(copy.deepcopy(data), 3_000_000) == data


def test_each_step_makes_it_smaller_and_keeps_it_whole(data: dict[str, Any]) -> None:
    data = copy.deepcopy(data)
    check(data)
    for step, words in STEPS:
        before = size(data)
        step(data)
        check(data)
        # one variant: keeping the first eight of them takes nothing away
        assert size(data) < before or "variants" in words


def test_thinning_stops_as_soon_as_it_fits_and_is_said(data: dict[str, Any]) -> None:
    thin = within_budget(copy.deepcopy(data), size(data) - 1000)
    assert thin["left_out"] == [STEPS[0][1]]
    assert thin["exhibits"]["seeds"] == [0]
    bare = within_budget(copy.deepcopy(data), 0)
    assert bare["left_out"] == [words for _, words in STEPS]
    assert bare["cells"]["reward"]["mean"] == data["cells"]["reward"]["mean"], "means are never left out"


def test_the_size_is_an_upper_bound_of_what_the_page_holds(data: dict[str, Any]) -> None:
    hostile = copy.deepcopy(data) | {"note": "<&>" * 50 + "é"}
    assert len(embedded(hostile).encode()) <= size(hostile)
