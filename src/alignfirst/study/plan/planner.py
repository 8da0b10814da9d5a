"""From a config to the work it needs: cells, and the nodes they share, with no repetition and no randomness."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from alignfirst import records
from alignfirst.nodes import Json, Node, NodeKind
from alignfirst.study.config.recipe import RECIPES, Stage
from alignfirst.study.config.study_config import StudyConfig
from alignfirst.world import World

if TYPE_CHECKING:
    from alignfirst.theory.objectives import Algorithm


@dataclass(frozen=True)
class CellStage:
    """One stage of one cell: keys of its model and of the measurement of it.

    `audit`: key of the verdict on an alignment before it is trained; `unaudited` says why the audit refuses one.
    """

    kind: NodeKind
    model: str
    measure: str
    audit: str | None = None
    unaudited: str | None = None


@dataclass(frozen=True)
class Cell:
    """One recipe with one algorithm, beta, seed and choice of varied values. `stages` begins with sft."""

    varied: Mapping[str, Json]
    recipe: str
    algorithm: str | None
    beta: float | None
    seed: int
    stages: tuple[CellStage, ...]
    predict: str | None

    @property
    def keys(self) -> list[str]:
        """The nodes that its rows are made of."""
        found = [key for stage in self.stages for key in (stage.model, stage.measure, stage.audit)]
        return [key for key in (*found, self.predict) if key is not None]


@dataclass(frozen=True)
class Plan:
    """Nodes by key, inputs before those that need them, and cells in the order of the records."""

    world: str
    varied: tuple[str, ...]
    seeds: tuple[int, ...]
    nodes: Mapping[str, Node]
    cells: tuple[Cell, ...]

    @cached_property
    def digest(self) -> str:
        """Changes exactly when the content of the records could change (given the same name and preset)."""
        cells = []
        for c in self.cells:
            stages = [[s.kind, s.model, s.measure, s.audit] for s in c.stages]
            cells.append([c.varied, c.recipe, c.algorithm, c.beta, c.seed, stages, c.predict])
        identity = [records.SCHEMA_VERSION, self.world, self.varied, cells]
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def plan_study(config: StudyConfig, world: World) -> Plan:
    """Everything a study needs; the config has checked the names in it."""
    seeds = config.seed_list
    planner = _Planner(world)
    cells: list[tuple[tuple[int, ...], Cell]] = []
    for v, values in enumerate(config.points):
        planner.use(config.with_values(values) if values else config)
        # Seeds outermost: neighbours in the list of nodes then share a seed, its inputs and whatever a world can reuse
        for s, seed in enumerate(seeds):
            for at, (recipe, algorithm, beta) in enumerate(_axes(config)):
                cells.append(((v, at, s), planner.cell(values, recipe, algorithm, beta, seed)))
    cells.sort(key=lambda item: item[0])
    return Plan(world.name, tuple(config.vary), seeds, planner.nodes, tuple(cell for _, cell in cells))


def _axes(config: StudyConfig) -> list[tuple[str, str | None, float | None]]:
    """(recipe, algorithm, beta) of the study; null where a recipe does not align or an algorithm has no reference."""
    axes: list[tuple[str, str | None, float | None]] = []
    for recipe in config.recipes:
        if not _aligns(recipe):
            axes.append((recipe, None, None))
            continue
        for algorithm in config.algorithms:
            betas: Sequence[float | None] = config.beta if _algorithm(algorithm).uses_beta else (None,)
            axes.extend((recipe, algorithm, beta) for beta in betas)
    return axes


def _aligns(recipe: str) -> bool:
    return any(stage.kind == "align" for stage in RECIPES[recipe])


def _algorithm(name: str) -> Algorithm:
    from alignfirst.theory.objectives import ALGORITHMS  # imports SciPy: only once there is something to plan

    return ALGORITHMS[name]


def _refusal(config: StudyConfig, algorithm: str) -> str | None:
    """Why the audit has no number for this algorithm in this study; None where it has."""
    from alignfirst.auditing.gated_prediction import refusal

    return refusal(algorithm, config.value("preferences.labels"))


def _plugin(kind: NodeKind, context: Mapping[str, Json]) -> dict[str, Json]:
    """A plug-in's version is part of what an alignment by it computes."""
    if kind != "align":
        return {}
    from alignfirst.theory.objectives import ALGORITHMS

    origin = ALGORITHMS.origin(context["algorithm"])
    return {} if origin is None else {"plugin": origin}


class _Planner:
    """Builds nodes for one config at a time. Settings and nodes that were built before are looked up, not rebuilt."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nodes: dict[str, Node] = {}

    def use(self, config: StudyConfig) -> None:
        self.config = config
        self.reference, self.source = config.value("align.reference"), config.value("preferences.source")
        self._refusals: dict[str, str | None] = {}
        self._keys: dict[tuple[Any, ...], str] = {}
        self._settings: dict[tuple[Any, ...], dict[str, Json]] = {}
        self._predicted: dict[str, list[dict[str, Json]]] = {
            name: [asdict(stage) | {"reference": self._reference(stage)} for stage in RECIPES[name]]
            for name in config.recipes
        }

    def cell(
        self, values: Mapping[str, Json], recipe: str, algorithm: str | None, beta: float | None, seed: int
    ) -> Cell:
        self.scale = self._scale(recipe, algorithm)
        sft = self._node("sft", {}, seed=seed)
        stages = [CellStage("sft", sft, self._measure(sft, sft))]
        count = {"align": 0, "distil": 0}
        for stage in RECIPES[recipe]:
            start, occurrence = stages[-1].model, count[stage.kind]
            if stage.kind == "distil":
                stages.append(self._distil(stage, seed, occurrence, start, sft))
            else:
                assert algorithm is not None
                stages.append(self._align(stage, algorithm, beta, seed, occurrence, start, sft))
            count[stage.kind] += 1
        return Cell(values, recipe, algorithm, beta, seed, tuple(stages), self._predict(recipe, beta, sft))

    def _distil(self, stage: Stage, seed: int, occurrence: int, start: str, sft: str) -> CellStage:
        model = self._node("distil", {"teacher": start}, seed=seed, rehearsed=stage.rehearsed, occurrence=occurrence)
        return CellStage("distil", model, self._measure(model, sft))

    def _align(
        self, stage: Stage, algorithm: str, beta: float | None, seed: int, occurrence: int, start: str, sft: str
    ) -> CellStage:
        reference = sft if self._reference(stage) == "sft" else start
        inputs = {"initial": start, "reference": reference}
        if _algorithm(algorithm).data == "pairs-offline":
            # An anchored stage takes its pairs, too, from the model it is anchored to
            from_sft = stage.reference == "sft" or self.source == "sft"
            inputs["pairs"] = sft if from_sft else start
        model = self._node(
            "align",
            inputs,
            seed=seed,
            algorithm=algorithm,
            beta=beta,
            updates=stage.updates * self.scale,
            occurrence=occurrence,
        )
        measure = self._measure(model, sft, reference, algorithm, beta)
        return CellStage("align", model, measure, *self._audit(stage, algorithm, beta, seed, inputs, sft))

    def _audit(
        self, stage: Stage, algorithm: str, beta: float | None, seed: int, models: Mapping[str, str], sft: str
    ) -> tuple[str | None, str | None]:
        """Key of the audit of this alignment, and why there is none; both null in a world that is not audited."""
        if not self.world.computes("audit"):
            return None, None
        if algorithm not in self._refusals:
            self._refusals[algorithm] = _refusal(self.config, algorithm)
        if why := self._refusals[algorithm]:
            return None, why
        context = {"seed": seed, "algorithm": algorithm, "beta": beta, "share": stage.updates * self.scale}
        return self._node("audit", {"sft": sft, **models}, **context), None

    def _scale(self, recipe: str, algorithm: str | None) -> float:
        """What matching budgets multiplies the updates of a recipe's align stages with."""
        return self.world.scale(self.config, RECIPES[recipe], RECIPES[self.config.recipes[0]], algorithm)

    def _reference(self, stage: Stage) -> str:
        return "sft" if "sft" in (stage.reference, self.reference) else "start"

    def _measure(
        self,
        model: str,
        sft: str,
        reference: str | None = None,
        algorithm: str | None = None,
        beta: float | None = None,
    ) -> str:
        inputs = {"model": model, "sft": sft} | ({} if reference is None else {"reference": reference})
        return self._node("measure", inputs, algorithm=algorithm, beta=beta)

    def _predict(self, recipe: str, beta: float | None, sft: str) -> str | None:
        if not self.world.computes("predict"):
            return None
        return self._node("predict", {"sft": sft}, stages=self._predicted[recipe], beta=beta)

    def _node(self, kind: NodeKind, inputs: Mapping[str, str], **context: Json) -> str:
        # Measurements of all models share a few settings: asking the world for them each time takes most of planning
        asked = (kind, *(id(v) if isinstance(v, list) else v for v in context.values()))
        at = (asked, *inputs.items())
        if at not in self._keys:
            if asked not in self._settings:
                self._settings[asked] = self.world.settings(kind, self.config, **context) | _plugin(kind, context)
            inputs = {**inputs, **self.world.supplies(kind, self.config, inputs, self._need, **context)}
            self._keys[at] = self._need(kind, self._settings[asked], inputs)
        return self._keys[at]

    def _need(self, kind: NodeKind, settings: Mapping[str, Json], inputs: Mapping[str, str]) -> str:
        node = Node(kind, settings, inputs, self.world.versions[kind])
        self.nodes.setdefault(node.key, node)
        return node.key
