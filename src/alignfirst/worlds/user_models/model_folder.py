"""A trained model of a run as a folder that plain transformers loads: weights, tokenizer, generation config, card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignfirst.errors import InputError, StageFailure
from alignfirst.files import whole_folder, write_atomic
from alignfirst.lm.models import lora, named_models
from alignfirst.lm.text.logprobs import score_rows
from alignfirst.nodes import Artefact, Load
from alignfirst.store import Store
from alignfirst.worlds.user_models import models
from alignfirst.worlds.user_models.card import card

SLACK = 2e-3  # nats of a whole answer between the model that was trained and the one that was written
CARD = "README.md"


def export(
    config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], store: Store, folder: Path,
    about: Mapping[str, str], adapter: bool = False,
) -> None:  # fmt: skip
    """Write the model of the last row into an empty folder and read it back; adapters are merged, or stand alone.

    The folder is there whole or not at all. Raises InputError where it is not empty or there is no adapter,
    StageFailure where what was written does not give the recorded log-probabilities.
    """
    artefact = store.get(rows[-1]["model"])
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError("an export needs an empty folder", str(folder), "Name another one.")
    if adapter and "lora" not in artefact.meta:
        raise InputError("an adapter is there only where one was trained", "a whole model", "Leave --adapter out.")
    text = card(config, rows, store.digests(), lineage(rows, store), about, base(artefact, rows) if adapter else None)
    with whole_folder(folder) as place:
        files = store.get(artefact.meta["tokenizer"]).arrays
        named_models.write_tokenizer(files, place)
        if adapter:
            kept = artefact.meta["lora"]
            lora.save_adapters(place, artefact.arrays, kept["rank"], kept["alpha"], base_name(artefact, store.get))
        else:
            ends = named_models.ends_in(files, named_models.tokenizer_of(files))
            named_models.write_model(models.whole(artefact, store.get), place, ends)
            verify(place, artefact.meta.get("check", []))
        write_atomic(place / CARD, [text.encode()])


def base(artefact: Artefact, rows: Sequence[Mapping[str, Any]]) -> str:
    """What adapters belong to, in words for the card."""
    found = artefact.meta["base"]
    if "key" in found:
        before = next((row for row in rows[:-1] if row["model"] == found["key"]), None)
        if before is not None and before["updates"]:
            return f"the model of stage {before['stage_index']}, which `--stage {before['stage_index']}` exports"
        return "the teacher as it came"
    return "the teacher as it came" if "pretrained" in found else "the student as it was before it learned"


def lineage(rows: Sequence[Mapping[str, Any]], store: Store) -> dict[str, Any]:
    """Teacher, student and data as the stages named them, with what became of the data's rows."""
    metas = [store.get_many([row["model"]], arrays=False)[row["model"]].meta for row in rows]
    named = [meta["from"] for meta in metas]
    data = next(x["data"] for x in named if "data" in x)
    about = store.get_many([data["index"]], arrays=False)[data["index"]].meta
    student = next((x["student"] for x in named if "student" in x), {"teacher": "itself"})
    return {**about, "teacher": next(x["teacher"] for x in named if "teacher" in x), "student": student}


def base_name(artefact: Artefact, load: Load) -> str:
    """What adapters are loaded onto: the name of a model, where they were trained on one as it came."""
    base = artefact.meta["base"]
    if "key" in base:
        found = load(base["key"]).meta
        return str(found["pretrained"]["source"]) if "pretrained" in found else base["key"]
    return str(base["pretrained"]["source"]) if "pretrained" in base else "the student's start"


def verify(folder: Path, checks: list[Mapping[str, Any]]) -> None:
    """The folder once more from the disk, against what was recorded when the model was trained."""
    model = named_models.load_folder(folder)
    rows = [(check["prompt"], [check["answer"]]) for check in checks]
    found = [float(row[0].sum()) for row in score_rows(model, rows)] if rows else []
    off = np.abs(np.array(found) - [check["logp"] for check in checks]) if rows else np.zeros(1)
    if not (off <= SLACK * np.maximum(1.0, np.abs(found) / 100 if rows else 1.0)).all():
        raise StageFailure(
            f"{folder} gives other log-probabilities than the model that was trained, by {off.max():.3g}"
        )
