"""The sections of a study's page in their order. One entry is a section: its anchor, heading, lead and figures.

A figure F is drawn by `FIGURES.F` of a script in static/figures/ or static/text/. A section whose text depends on the
run has a template of its own, templates/sections/ID.html.j2; the others share templates/sections/figures.html.j2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from alignfirst.report.audit.audited_points import audited
from alignfirst.report.run_files import RunFiles
from alignfirst.report.text_metrics import parts
from alignfirst.report.user_models_page import of_own_models

STATIC = "static versions are in the folder figures beside this file"


@dataclass(frozen=True)
class Section:
    """`name` stands in the navigation, `question` above the section; `lead` is HTML. `when`: runs that have it."""

    id: str
    name: str
    question: str = ""
    lead: str = ""
    when: Callable[[RunFiles], bool] = lambda run: True
    figures: tuple[str, ...] = ()
    panels: bool = False  # its figures are groups of panels, not one image
    beside: str = STATIC  # where a reader without JavaScript finds what is drawn


def exhibits(kind: str) -> Callable[[RunFiles], bool]:
    """Runs of worlds whose exhibits are of a kind of `exhibit_shapes.SHAPES`."""
    return lambda run: run.exhibits.get("kind") == kind


def has_text(*wanted: str) -> Callable[[RunFiles], bool]:
    """Runs that have any of these parts of `text_metrics.parts`."""
    return lambda run: not parts(run).isdisjoint(wanted)


def theory_known(run: RunFiles) -> bool:
    """Whether any row has an exact optimum or a prediction to compare with."""
    return any(r.get(n) is not None for r in run.rows for n in ("exact_reward", "predicted_target_mass"))


SECTIONS = (
    Section("verdict", "Verdict"),
    Section(
        "exhibits",
        "Densities",
        "What does each stage do to the distribution?",
        "Every recipe starts from the same <em>sft</em> model, fitted to samples of the ground truth <em>p_star</em>. "
        "Aligning moves mass towards what the reward likes; distilling sharpens and keeps what the small model has "
        "room for. What distilling drops first, aligning has to find again.",
        when=lambda run: not exhibits("text")(run),
        figures=("exhibits",),
        panels=True,
    ),
    Section(
        "texts",
        "Texts",
        "What does each stage write?",
        "Every recipe starts from the same <em>sft</em> model. Aligning moves it towards texts that the reward likes; "
        "distilling sharpens and keeps what the small model has room for. Read a row from left to right: what "
        "distilling drops first, aligning has to find again.",
        when=exhibits("text"),
        figures=("exhibits",),
        panels=True,
        beside="the texts are in exhibits.json beside this file",
    ),
    Section(
        "variety",
        "Variety and coverage",
        when=has_text("behaviours", "variety", "prompts"),
        figures=("behaviours", "variety", "prompts"),
    ),
    Section(
        "curves",
        "Training",
        "How did training go?",
        "Both orders on the same axes. On-policy alignment learns from what it draws: where the share of draws that "
        "are the target's starts near zero, there is little to learn from, whatever the reward says.",
        when=has_text("curves"),
        figures=("curves",),
    ),
    Section("held-out", "Held-out", when=of_own_models),
    Section(
        "plane",
        "Precision and recall",
        "What does each stage cost in recall, and buy in precision?",
        "Precision asks whether what the model says is good: E over the model's outputs of log p. Recall asks whether "
        "the model can say everything that is good: E over good outputs of log q. Both are in nats; higher is better.",
        figures=("plane",),
    ),
    Section(
        "recipes",
        "Recipes",
        "Which recipe ends best?",
        "The two orders beside the controls and the mitigations: anchoring to <em>sft</em>, rehearsing target examples "
        "while distilling, or aligning a second time.",
        when=lambda run: len({r["recipe"] for r in run.rows}) > 2,
        figures=("recipes",),
    ),
    Section(
        "order",
        "Where order matters",
        "Where does the order of the stages matter?",
        "The same reward, the same beta, the same number of updates, the same student size; only the order differs. "
        "Each cell compares the last stages of the two orders, seed by seed.",
        figures=("heatmap",),
    ),
    Section("frontier", "Reward and KL", figures=("frontier",)),
    Section(
        "exact",
        "Exact and trained",
        "Did training reach what theory says?",
        "First the align stage against the exact optimum of its own reference, then the end of each recipe against "
        "what theory predicts from <em>sft</em> alone.",
        when=lambda run: theory_known(run) or not parts(run),
        figures=("exact",),
    ),
    Section("audited", "Audited against reached", when=lambda run: bool(audited(run).sentence), figures=("audited",)),
    Section("claims", "Claims"),
    Section("cost", "Cost", figures=("cost",)),
    Section(
        "seeds",
        "Every seed",
        "Do all seeds tell the same story?",
        "Near the recovery threshold a recipe can work for some seeds and fail for others. No seed is dropped.",
        figures=("seeds",),
    ),
    Section("provenance", "Provenance"),
)


def sections_of(run: RunFiles) -> list[Section]:
    """What this run has something for."""
    return [section for section in SECTIONS if section.when(run)]
