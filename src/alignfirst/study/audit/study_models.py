"""The audit of a study's model: from the run's store or trained up to there, with draws and rewards of its world."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from alignfirst import files
from alignfirst.auditing import findings
from alignfirst.auditing.findings import Audit
from alignfirst.auditing.gated_prediction import Plan, examine, predict
from alignfirst.auditing.inputs import Inputs
from alignfirst.auditing.order import order
from alignfirst.auditing.pooled_draws import Sample, gather
from alignfirst.errors import InputError
from alignfirst.nodes import Node
from alignfirst.store import Store
from alignfirst.study.audit.node_cache import NodeCache
from alignfirst.study.audit.request import AuditRequest, Plans
from alignfirst.study.config import preset_files, yaml_io
from alignfirst.study.config.recipe import RECIPES
from alignfirst.study.config.study_config import StudyConfig, from_mapping
from alignfirst.study.execution.worker import load_world
from alignfirst.study.output.run_dir import CONFIG, MANIFEST
from alignfirst.study.plan import planner
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.worlds.drawing import drawn

RUNS = Path("runs")
SAMPLES = 4_096  # a mixture's draws cost nothing
AUDITED = ("mog", "grammar")
STAGES = ("sft", "distil", "align")
_WHERE = re.compile(r"(?P<run>.+?):(?:(?P<recipe>[a-z-]+)/)?(?P<stage>[a-z]+)(?:\.(?P<nth>[1-9]))?(?:@(?P<at>.+))?")


@dataclass(frozen=True)
class Address:
    """RUN:recipe/stage; `.2` for the second stage of its kind, `@key=value,...` for what else tells models apart."""

    run: str
    recipe: str
    stage: str
    nth: int
    at: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Address | None:
        """None where the text is no such address: then it names a language model, or a file."""
        match = _WHERE.fullmatch(text)
        if match is None or match["stage"] not in STAGES:
            return None
        at = dict(part.partition("=")[::2] for part in (match["at"] or "").split(",") if part)
        return cls(match["run"], match["recipe"] or "distil-align", match["stage"], int(match["nth"] or 1), at)


@dataclass(frozen=True)
class StudyModel:
    """A model of a study that is narrowed down to its seed and varied values, and how to come by it."""

    config: StudyConfig
    nodes: Mapping[str, Node]  # of the plan, by key
    key: str
    sft: str
    seed: int
    stage: str
    store: Store | None  # of the run, where there is one

    def bring(self, key: str, cache: NodeCache, wanted: dict[str, Node]) -> None:
        """Copy the artefact of a key from the run's store into the cache, or have its node wanted, inputs first.

        Raises InputError for an alignment that was not trained: only models up to there are cheap enough.
        """
        if cache.store.has(key) or key in wanted:
            return
        if self.store is not None and self.store.has(key):
            cache.store.put_many([(key, self.store.get(key))])
            return
        node = self.nodes[key]
        if node.kind == "align":
            cure = "Run the study first: alignfirst run."
            raise InputError("an aligned model must be in the run's store", "none there", cure)
        for needed in node.inputs.values():
            self.bring(needed, cache, wanted)
        wanted[key] = node


def find(text: str) -> StudyModel:
    """The model at an address. Raises InputError where there is none."""
    address = Address.parse(text)
    if address is None:
        raise InputError("the teacher of a stored model must be a stored model", text, "Write RUN:recipe/stage.")
    config, store = _study(address.run)
    if config.world not in AUDITED:
        cure = "Audit a saved model with --reference PATH, or rows with --log-probs."
        raise InputError(f"a model in a store must be of world {' or '.join(AUDITED)}", f"world {config.world}", cure)
    config = _narrowed(config, address)
    plan = planner.plan_study(config, load_world(config.world))
    if address.stage == "align" and len(plan.cells) > 1:
        cure = "Name both, for example RUN:distil-align/align@algorithm=ppo,beta=0.1."
        raise InputError("an aligned model is told by algorithm and beta", f"{len(plan.cells)} of them", cure)
    cell = plan.cells[0]
    stages = [s for s in cell.stages if s.kind == address.stage]
    if len(stages) < address.nth:
        kinds = ", ".join(s.kind for s in cell.stages)
        raise InputError(f"recipe {address.recipe} must have that stage", address.stage, f"Its stages: {kinds}.")
    model, sft = stages[address.nth - 1].model, cell.stages[0].model
    return StudyModel(config, plan.nodes, model, sft, cell.seed, address.stage, store)


def _study(run: str) -> tuple[StudyConfig, Store | None]:
    """The study of a run directory, or of a preset or file; then there is no store."""
    for path in (Path(run), RUNS / run):
        if (path / MANIFEST).is_file() or (path / CONFIG).is_file():
            with files.reading(path / CONFIG):
                text = (path / CONFIG).read_text()
            return from_mapping(yaml_io.loads(text, str(path / CONFIG))), Store(path / "store")
    return preset_files.load(run), None


def _narrowed(config: StudyConfig, address: Address) -> StudyConfig:
    """One recipe, one seed, and the varied values that were asked for (the first of those that were not)."""
    if address.recipe not in RECIPES:
        raise InputError("recipe must be a known one", address.recipe, f"Choose from {', '.join(RECIPES)}.")
    values: dict[str, Any] = {key: points[0] for key, points in config.vary.items()}
    values |= {"recipes": address.recipe, "seeds": [config.seed_list[0]]}
    keys = {"seed": "seeds", "algorithm": "algorithms", "beta": "beta"}
    for key, text in address.at.items():
        value = yaml_io.loads(f"value: {text}", f"@{key}")["value"]
        values[keys.get(key, key)] = [value] if key == "seed" else value
    return config.with_values(values)


def audit_study_model(request: AuditRequest, cache: NodeCache) -> Audit:
    """Audit a model at the betas, algorithms and budget of its study where none are named."""
    cure = "Leave it out: the study has its own reward and target."
    names = ("pairs", "prompts", "reward", "target", "target_file", "rows")
    request.refuse(names, "a stored model is audited by its own study", cure)
    found = find(request.reference)
    teacher = found if request.teacher is None else find(request.teacher)
    if teacher.config.world != found.config.world:
        worlds = f"{found.config.world} and {teacher.config.world}"
        raise InputError("reference and teacher must be of one world", worlds, "Choose a teacher of the same study.")
    n, plans = request.samples or SAMPLES, _plans(request.plans, found.config)
    own, other, preferred, target = _draws(found, teacher, request.teacher is None, n, cache)
    alone = found.stage == "sft" and request.teacher is None
    hits = other.in_target
    assert hits is not None and other.logp_teacher is not None and other.logp_reference is not None
    covered = (other.logp_teacher[hits], other.logp_reference[hits], np.arange(int(hits.sum())))
    draws = gather(own, None if alone else other, preferred)
    inputs = Inputs(draws, other, None, covered, "the teacher's draws in the target", target, ())
    about = {
        "reference": request.reference,
        "teacher": request.teacher or "the study's sft",
        "seed": found.seed,
        "samples": n,
    }
    result = findings.audit(inputs, plans, title=request.reference, about=about)
    if alone or found.stage != "distil" or found.config.world != "mog":
        return result  # the call on the order knows how a mixture is distilled, and nothing of transformers
    return _with_order(result, found, other, preferred, plans)


def _draws(
    found: StudyModel, teacher: StudyModel, of_sft: bool, n: int, cache: NodeCache
) -> tuple[Sample, Sample, np.ndarray, str]:
    """n draws of the reference, of the teacher (its own sft model by default) and of what is wanted, by one node."""
    world = load_world(found.config.world)
    inputs = {"reference": found.key, "teacher": found.sft if of_sft else teacher.key}
    settings = world.drawing_settings(found.config, seed=found.seed) | {"samples": n}
    node = Node("draw", settings, inputs, world.versions["draw"])
    wanted: dict[str, Node] = {}
    if not cache.store.has(node.key):
        found.bring(inputs["reference"], cache, wanted)
        teacher.bring(inputs["teacher"], cache, wanted)
    wanted[node.key] = node
    return drawn(cache.artefacts(found.config.world, wanted, [node.key])[node.key])


def _plans(plans: Plans | Sequence[Plan], config: StudyConfig) -> list[Plan]:
    world = load_world(config.world)
    if not isinstance(plans, Plans):
        return [replace(plan, text=world.text) for plan in plans]
    algorithms = plans.algorithms or [name for name in config.algorithms if ALGORITHMS[name].uses_beta]
    return [
        Plan(**world.audit_plan(config, name, beta, plans.rollouts or world.rollouts(config, name)) or {})
        for name in algorithms
        for beta in plans.betas or config.beta
    ]


def _with_order(
    result: Audit, found: StudyModel, p_draws: Sample, preferred: np.ndarray, plans: Sequence[Plan]
) -> Audit:
    """Add the call on the order: the study says how its student is made."""
    own = examine(gather(p_draws, None, preferred))
    c, n = found.config.value("distil.selectivity"), found.config.value("distil.samples")
    orders = tuple(
        order(p_draws, own, predict(own, plan), judged.prediction, c, n)
        for plan, judged in zip(plans, result.judged, strict=True)
        if judged.prediction.refused is None
    )
    return replace(result, orders=orders)
