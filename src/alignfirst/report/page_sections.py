"""The sections of a study's page, from sections.yaml: which there are, and which of them a run has something for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import yaml

from alignfirst.report.audit.audited_points import audited
from alignfirst.report.run_files import RunFiles
from alignfirst.report.text_metrics import parts
from alignfirst.report.user_models_page import of_own_models


@dataclass(frozen=True)
class Section:
    """An entry of sections.yaml. `panels`: its figures are groups of panels, not one image each.

    `beside`: where a reader without JavaScript finds what the figures show.
    """

    id: str
    name: str
    question: str = ""
    lead: str = ""
    when: str | None = None
    figures: Sequence[str] = ()
    panels: bool = False
    beside: str = "static versions are in the folder figures beside this file"


def theory_known(run: RunFiles) -> bool:
    """Whether any row has an exact optimum or a prediction to compare with."""
    return any(r.get(n) is not None for r in run.rows for n in ("exact_reward", "predicted_target_mass"))


CONDITIONS: Mapping[str | None, Callable[[RunFiles], bool]] = {
    None: lambda run: True,
    "mixtures": lambda run: run.exhibits.get("kind") == "mixture",
    "texts": lambda run: run.exhibits.get("kind") == "text",
    "no texts": lambda run: run.exhibits.get("kind") != "text",
    "variety": lambda run: bool(parts(run) & {"behaviours", "variety", "prompts"}),
    "curves": lambda run: "curves" in parts(run),
    "own models": of_own_models,
    "several recipes": lambda run: len({r["recipe"] for r in run.rows}) > 2,
    "theory": lambda run: theory_known(run) or not parts(run),
    "audited": lambda run: bool(audited(run).sentence),
}
SECTIONS = tuple(
    Section(**entry) for entry in yaml.safe_load((files("alignfirst.report") / "sections.yaml").read_text("utf-8"))
)


def sections_of(run: RunFiles) -> list[Section]:
    """What this run has something for."""
    return [section for section in SECTIONS if CONDITIONS[section.when](run)]
