"""The model card of an exported model: where it comes from, on what data, with what result. Nothing in it is made up.

Names come from users, hubs and files: the front matter is written by a YAML library, and in the text they stand as code
in which no markup, no table and no line can be broken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from alignfirst.auditing.constants import LEVEL
from alignfirst.errors import printable
from alignfirst.stats.intervals import level_words

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
MEASURED = {
    "reward": "reward of its own answers",
    "held_out_accuracy": "held-out pairs whose chosen answer has the higher implicit reward, share",
    "held_out_margin": "difference of implicit reward in held-out pairs, nats",
    "logp_chosen": "log-probability of chosen answers, nats",
    "logp_rejected": "log-probability of rejected answers, nats",
    "overall_precision": "log-probability of its answers under the teacher (precision), nats",
    "overall_recall": "log-probability of the teacher's answers under it (recall), nats",
    "kl_to_sft": "KL to the teacher, nats",
    "kl_to_reference": "KL to its reference, nats",
    "entropy": "entropy of its answers, nats",
}
Row = Mapping[str, Any]


def card(
    config: Mapping[str, Any],
    rows: Sequence[Row],
    digests: Mapping[str, str],
    data: Mapping[str, Any],
    about: Row,
    adapter_of: str | None = None,
) -> str:
    """The text of README.md. `rows` are the records of the model's recipe, its own last; `digests` of the stored
    models by key; `data` is what the index says of the data; `about` names version, command and run; `adapter_of`
    what adapters that stand alone belong to, in words."""
    parts = [
        front_matter(config, data, rows[-1], adapter_of),
        title(rows[-1], adapter_of),
        lineage(rows, digests),
        seen(config, data),
        numbers(rows[-1]),
    ]
    return "\n".join([*parts, cost(rows), settings(config), made(about), ""])


def front_matter(config: Mapping[str, Any], data: Mapping[str, Any], row: Row, adapter_of: str | None) -> str:
    teacher = str(config["teacher"]["model"]).partition("@")[0]
    found: dict[str, Any] = {
        "library_name": "transformers" if adapter_of is None else "peft",
        "pipeline_tag": "text-generation",
        "tags": ["alignfirst", str(row["recipe"]), *([str(row["algorithm"])] if row["algorithm"] else [])],
    }
    if HUB_ID.fullmatch(teacher) and not str(data["teacher"]["digest"]).startswith("sha256:"):  # no local folder
        found["base_model"] = teacher
    return f"---\n{yaml.safe_dump(found, sort_keys=False, allow_unicode=False)}---\n"


def title(row: Row, adapter_of: str | None = None) -> str:
    beta = "" if row["beta"] is None else f", beta {row['beta']:g}"
    algorithm = f"algorithm {code(row['algorithm'])}{beta}, " if row["algorithm"] else ""
    return (
        f"# A model of the recipe {code(row['recipe'])}\n\n"
        f"Made with alignfirst: {algorithm}seed {row['seed']}. No one has looked at what it "
        "is fit for, nor at what it should not be used for; its licence is that of the models and data that it was "
        "made from.\n"
        + ("" if adapter_of is None else f"\nThese are low-rank adapters alone. They belong to {adapter_of}.\n")
    )


def lineage(rows: Sequence[Row], digests: Mapping[str, str]) -> str:
    lines = ["## Lineage\n", "| stage | updates | samples | key | sha256 of what is stored |", "|---|---|---|---|---|"]
    for row in rows:
        cells = (row["stage"], row["updates"], row["samples"], row["model"], digests.get(str(row["model"]), "none"))
        lines.append("| " + " | ".join(code(c) for c in cells) + " |")
    return "\n".join(lines) + "\n"


def seen(config: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    teacher, student = data["teacher"], data["student"]
    start = "fresh weights" if "config" in student else json.dumps(student, sort_keys=True)
    lines = [
        "## Models and data\n",
        f"- teacher: {code(teacher['source'])}, {code(teacher['digest'])}",
        f"- student starts as: {code(start)}",
        f"- data: {code(config['data']['pairs'] or config['data']['prompts'])}, {code(data['identity'])}",
        f"- rows: {data['rows']} read, {data['kept']} kept, {data['train']} trained on at most, "
        f"{data['held_out']} held out by prompt",
    ]
    lines += [f"- dropped: {found['count']} {code(reason)}" for reason, found in data["dropped"].items()]
    return "\n".join(lines) + "\n"


def numbers(row: Row) -> str:
    lines = [
        "## Measured on held-out prompts\n",
        f"| | mean | {level_words(LEVEL)} interval over prompts |",
        "|---|---|---|",
    ]
    intervals = row.get("intervals") or {}
    for name, words in MEASURED.items():
        if row.get(name) is not None:
            low, high = intervals.get(name) or (None, None)
            between = "none" if low is None or high is None else f"{low:.4g} to {high:.4g}"
            lines.append(f"| {words} | {row[name]:.4g} | {between} |")
    lines.append(
        f"\n{row['held_out_pairs']} pairs and {row['measured_on']} answers were measured, with one seed of training."
    )
    return "\n".join(lines) + "\n"


def cost(rows: Sequence[Row]) -> str:
    lines = ["## Cost\n", "| stage | operations | tokens sampled | scored | trained on |", "|---|---|---|---|---|"]
    for row in rows:
        tokens = row.get("tokens") or {}
        counts = (tokens.get(name, 0) for name in ("sampled", "scored", "trained"))
        lines.append(
            f"| {code(row['stage'])} | {row['flops'] or 0:.4g} | " + " | ".join(f"{n:,}" for n in counts) + " |"
        )
    return "\n".join(lines) + "\n"


def settings(config: Mapping[str, Any]) -> str:
    text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=False)
    return "## Settings\n\n" + "".join(f"    {line}\n" for line in text.splitlines())  # indented: no fence to break


def made(about: Row) -> str:
    return f"## Made by\n\nalignfirst {code(about['version'])}, with {code(about['command'])}\n"


def code(value: object) -> str:
    """Any value as one line of code in a table: what could end it is replaced or shown by its escape."""
    text = printable(str(value))
    return f"`{text.replace('`', chr(39)).replace('|', '/') or ' '}`"
