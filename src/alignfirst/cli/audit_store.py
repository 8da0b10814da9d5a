"""Auditing a model of a study: from the store or trained up to there, with draws and densities of its world."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignfirst.cli.places import MANIFEST, RUNS
from alignfirst.errors import InputError

if TYPE_CHECKING:
    from alignfirst.auditing.findings import Audit
    from alignfirst.auditing.pooled_draws import Sample
    from alignfirst.nodes import Artefact
    from alignfirst.study.config.study_config import StudyConfig
    from alignfirst.study.plan.planner import Cell, Plan
    from alignfirst.worlds.drawing import Drawing

SAMPLES = 4_096  # a mixture's draws cost nothing
AUDITED = ("mog", "grammar")
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
        """None where the text is no such address: then it names a language model."""
        match = _WHERE.fullmatch(text)
        if match is None or match["stage"] not in ("sft", "distil", "align"):
            return None
        at = dict(part.partition("=")[::2] for part in (match["at"] or "").split(",") if part)
        return cls(match["run"], match["recipe"] or "distil-align", match["stage"], int(match["nth"] or 1), at)


@dataclass(frozen=True)
class Found:
    """A model of a study, and the study narrowed down to its seed and varied values."""

    config: StudyConfig
    model: Any  # what the world's drawing takes: theta[5, K] of a mixture, a transformer's artefact
    sft: Any
    seed: int
    stage: str


def find(address: Address) -> Found:
    """The model, from the run's store or, up to the first alignment, computed now. Raises InputError."""
    from alignfirst.store import Store
    from alignfirst.study.execution.worker import load_world
    from alignfirst.study.plan.planner import plan_study

    config, store_at = _study(address.run)
    if config.world not in AUDITED:
        cure = "Audit a saved model with --reference PATH, or rows with --log-probs."
        raise InputError(f"a model in a store must be of world {' or '.join(AUDITED)}", f"world {config.world}", cure)
    config = _narrowed(config, address)
    world = load_world(config.world)
    plan = plan_study(config, world)
    cell = _cell(plan, address)
    stages = [s for s in cell.stages if s.kind == address.stage]
    if len(stages) < address.nth:
        kinds = ", ".join(s.kind for s in cell.stages)
        raise InputError(f"recipe {address.recipe} must have that stage", address.stage, f"Its stages: {kinds}.")
    compute = _Compute(plan, world, None if store_at is None else Store(store_at))
    key = stages[address.nth - 1].model
    model, sft = (compute(k) for k in (key, cell.stages[0].model))
    if config.world == "mog":
        return Found(config, model.arrays["theta"], sft.arrays["theta"], cell.seed, address.stage)
    return Found(config, model, sft, cell.seed, address.stage)


def _study(run: str) -> tuple[StudyConfig, Path | None]:
    """The study of a run directory, or of a preset or file; then there is no store."""
    from alignfirst.study.config import preset_files, yaml_io
    from alignfirst.study.config.study_config import from_mapping
    from alignfirst.study.output.run_dir import CONFIG

    for path in (Path(run), RUNS / run):
        if (path / MANIFEST).is_file() or (path / CONFIG).is_file():
            from alignfirst import files

            with files.reading(path / CONFIG):
                text = (path / CONFIG).read_text()
            return from_mapping(yaml_io.loads(text, str(path / CONFIG))), path / "store"
    return preset_files.load(run), None


def _narrowed(config: StudyConfig, address: Address) -> StudyConfig:
    """One recipe, one seed, and the varied values that were asked for (the first of those that were not)."""
    from alignfirst.study.config import yaml_io
    from alignfirst.study.config.recipe import RECIPES

    if address.recipe not in RECIPES:
        raise InputError("recipe must be a known one", address.recipe, f"Choose from {', '.join(RECIPES)}.")
    values: dict[str, Any] = {key: points[0] for key, points in config.vary.items()}
    values |= {"recipes": address.recipe, "seeds": [config.seed_list[0]]}
    keys = {"seed": "seeds", "algorithm": "algorithms", "beta": "beta"}
    for key, text in address.at.items():
        value = yaml_io.loads(f"value: {text}", f"@{key}")["value"]
        values[keys.get(key, key)] = [value] if key == "seed" else value
    return config.with_values(values)


def _cell(plan: Plan, address: Address) -> Cell:
    if address.stage == "align" and len(plan.cells) > 1:
        cure = "Name both, for example RUN:distil-align/align@algorithm=ppo,beta=0.1."
        raise InputError("an aligned model is told by algorithm and beta", f"{len(plan.cells)} of them", cure)
    return plan.cells[0]


class _Compute:
    """Artefacts by key: stored ones are read, sft and distil are cheap enough to be computed."""

    def __init__(self, plan: Plan, world: Any, store: Any) -> None:
        self.plan, self.world, self.store = plan, world, store
        self.known: dict[str, Artefact] = {}

    def __call__(self, key: str) -> Artefact:
        if key not in self.known:
            self.known[key] = self.store.get(key) if self.store is not None and self.store.has(key) else self._make(key)
        return self.known[key]

    def _make(self, key: str) -> Artefact:
        from alignfirst.nodes import Failure

        node = self.plan.nodes[key]
        if node.kind == "align":
            cure = "Run the study first: alignfirst run."
            raise InputError("an aligned model must be in the run's store", "none there", cure)
        [made] = self.world.run([node], self)
        if isinstance(made, Failure):
            raise InputError("the model must be computable", made.reason, "See the study's config.")
        return made  # type: ignore[no-any-return]


def audit_store(
    reference: str,
    teacher: str | None,
    algorithms: Sequence[str],
    betas: Sequence[float],
    rollouts: int | None,
    samples: int | None,
) -> Audit:
    """Audit a model of a study at the study's own betas, algorithms and budget where none are named."""
    from alignfirst.auditing.findings import audit
    from alignfirst.auditing.gated_prediction import Plan
    from alignfirst.auditing.inputs import Inputs
    from alignfirst.auditing.pooled_draws import gather
    from alignfirst.worlds import get

    address = Address.parse(reference)
    assert address is not None
    found = find(address)
    p = found.sft if teacher is None else _teacher(teacher, found)
    own = address.stage == "sft" and teacher is None
    drawing = drawing_of(found, p)
    n, seed = samples or SAMPLES, found.seed
    q_draws, p_draws = (
        drawing.sample(model, n, drawing.noise(seed, source))
        for model, source in ((found.model, "reference"), (p, "teacher"))
    )
    preferred = drawing.preferred(n, drawing.noise(seed, "preferred"))
    draws = gather(q_draws, None if own else p_draws, preferred)
    hits = p_draws.in_target
    assert hits is not None and p_draws.logp_teacher is not None and p_draws.logp_reference is not None
    covered = (p_draws.logp_teacher[hits], p_draws.logp_reference[hits], np.arange(int(hits.sum())))
    inputs = Inputs(draws, p_draws, None, covered, "the teacher's draws in the target", drawing.target, ())
    world, config = get(found.config.world), found.config
    plans = [
        Plan(**world.audit_plan(config, algorithm, beta, rollouts or world.rollouts(config, algorithm)) or {})
        for algorithm in algorithms or _with_beta(found.config)
        for beta in betas or found.config.beta
    ]
    about = {"reference": reference, "teacher": teacher or "the study's sft", "seed": found.seed, "samples": n}
    result = audit(inputs, plans, title=reference, about=about)
    if own or address.stage != "distil" or found.config.world != "mog":
        return result  # the call on the order knows how a mixture is distilled, and nothing of transformers
    return _with_order(result, found, p_draws, preferred, plans)


def _teacher(text: str, found: Found) -> Any:
    address = Address.parse(text)
    if address is None:
        raise InputError("the teacher of a stored model must be a stored model", text, "Write RUN:recipe/stage.")
    teacher = find(address)
    if teacher.config.world != found.config.world:
        worlds = f"{found.config.world} and {teacher.config.world}"
        raise InputError("reference and teacher must be of one world", worlds, "Choose a teacher of the same study.")
    return teacher.model


def drawing_of(found: Found, teacher: Any) -> Drawing:
    """What draws from the found model and from a teacher, and scores under both."""
    from alignfirst.worlds import get

    settings = get(found.config.world).drawing_settings(found.config, seed=found.seed)
    if found.config.world == "mog":
        from alignfirst.worlds.mog import draws as mog

        return mog.MixtureDrawing(settings, found.model, teacher)
    from alignfirst.worlds.grammar import draws as grammar

    return grammar.GrammarDrawing(settings, found.model, teacher)


def _with_beta(config: StudyConfig) -> list[str]:
    from alignfirst.theory.objectives import ALGORITHMS

    return [name for name in config.algorithms if ALGORITHMS[name].uses_beta]


def _with_order(result: Audit, found: Found, p_draws: Sample, preferred: Any, plans: Sequence[Any]) -> Audit:
    """Add the call on the order: the study says how its student is made."""
    from dataclasses import replace

    from alignfirst.auditing.gated_prediction import examine, predict
    from alignfirst.auditing.order import order
    from alignfirst.auditing.pooled_draws import gather

    own = examine(gather(p_draws, None, preferred))
    c, n = found.config.value("distil.selectivity"), found.config.value("distil.samples")
    orders = tuple(
        order(p_draws, own, predict(own, plan), judged.prediction, c, n)
        for plan, judged in zip(plans, result.judged, strict=True)
        if judged.prediction.refused is None
    )
    return replace(result, orders=orders)
