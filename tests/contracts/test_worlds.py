"""What holds for every world, and what a world has that says no more than it must."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from alignfirst import worlds
from alignfirst.costs.price import Price
from alignfirst.errors import InputError
from alignfirst.nodes import Artefact, Json, Load, Node, NodeKind, Outcome
from alignfirst.store import Store
from alignfirst.study.execution.estimates import NodeSeconds, estimate_cost
from alignfirst.world import World

NODE = Node("sft", {"seed": 0})


class Least(World):
    """Only what is abstract."""

    name = "least"
    versions: Mapping[NodeKind, int] = {"sft": 1}

    def run(self, nodes: Sequence[Node], load: Load) -> list[Outcome]:
        return [Artefact() for _ in nodes]

    def price(self, node: Node, nodes: Mapping[str, Node]) -> Price:
        return Price(trained=1, training=8e10)

    def exhibits(self, config: Any, models: Mapping[str, Artefact]) -> dict[str, Json]:
        return {}

    def open(self, artefact: Artefact, load: Load) -> Any:
        return artefact

    def _sft_settings(self, config: Any, *, seed: int) -> dict[str, Json]:
        return {"seed": seed}


@pytest.mark.parametrize("name", worlds.WORLDS)
def test_every_world_is_one_and_says_its_name(name: str) -> None:
    world = worlds.get(name)
    assert isinstance(world, World) and world.name == name
    assert world.together <= world.versions.keys() >= world.batch_sizes.keys()


@pytest.mark.parametrize("member", ["name", "versions", "run", "price", "exhibits", "open"])
def test_what_is_abstract_must_be_there(member: str) -> None:
    members = {k: v for k, v in vars(Least).items() if k not in (member, "__abstractmethods__", "__dict__")}
    with pytest.raises(TypeError, match=member):
        type("Lacking", (World,), members)()


def test_the_rest_has_a_default_that_studies_can_do_with(tmp_path: Path) -> None:
    world = Least()
    assert world.settings("sft", None, seed=3) == {"seed": 3}
    assert world.computes("sft") and not world.computes("audit")
    assert world.supplies("sft", None, {}, lambda *node: pytest.fail("asked for a node")) == {}
    assert world.preflight(None, {}, tmp_path) is None
    world.prepare(None, Store(tmp_path))
    assert Store(tmp_path).keys() == set()
    assert world.scale(None, (), (), None) == 1.0
    cost = estimate_cost(world, None, {NODE.key: NODE}, [NODE.key])
    assert (cost.unit, cost.gpu_hours, cost.notes) == ("tokens", {}, ())
    assert NodeSeconds(world, {})(NODE) == 2.0  # at 4e10 operations a second
    with pytest.raises(InputError, match="world least"):
        world.export({}, [], Store(tmp_path), tmp_path, {})


def test_only_nodes_that_are_computed_together_share_a_group() -> None:
    class Batched(Least):
        batch_sizes: Mapping[NodeKind, int] = {"measure": 4}

    def measured(model: str, sft: str) -> Node:
        return Node("measure", {}, {"model": model, "sft": sft})

    world = Batched()
    assert world.group(measured("a", "x")) == world.group(measured("b", "x")) != world.group(measured("a", "y"))
    alone = [Node("distil", {"seed": seed}, {"teacher": "x"}) for seed in (0, 1)]
    assert world.group(alone[0]) != world.group(alone[1])
    assert [world.batch_size(node) for node in (measured("a", "x"), *alone)] == [4, 1, 1]


def test_the_linter_keeps_every_world_apart_from_the_others() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    [apart] = [c for c in contracts if c.get("containers") == ["alignfirst.worlds"]]
    packages = {path.parent.name for path in Path(worlds.__file__).parent.glob("*/world.py")}
    assert set(apart["layers"][0].split(" | ")) == packages and len(packages) == len(worlds.WORLDS)
    assert apart["exhaustive"]
