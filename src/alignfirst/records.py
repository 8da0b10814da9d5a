"""The records of a run: one row per cell and stage. Schema, writing, verified reading."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignfirst.errors import InputError, StoreError

SCHEMA_VERSION = 3

Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """One column. Where it has a `label` it is a metric: described in all statistics, and shown under that label."""

    name: str
    type: str  # str, int, float, bool, json; every column may be null where it has no meaning
    meaning: str
    label: str = ""
    unit: str = ""  # behind a metric's values


COLUMNS: tuple[Column, ...] = (
    Column("schema_version", "int", "version of this table of columns"),
    Column("world", "str", "world the recipe was played in"),
    Column("preset", "str", "preset or name of the study"),
    Column("recipe", "str", "recipe, see `study/recipe.py`"),
    Column("algorithm", "str", "alignment algorithm; null where the recipe does not align"),
    Column("beta", "float", "KL strength; null for algorithms without a reference"),
    Column("seed", "int", "seed of the cell"),
    Column("stage", "str", "sft, align or distil"),
    Column("stage_index", "int", "0 for sft, then 1, 2, ... in the order of the recipe"),
    Column("final", "bool", "whether this is the last stage of the recipe"),
    Column("status", "str", "ok, failed, or blocked (a stage before it failed)"),
    Column("error", "str", "reason where status is not ok"),
    Column("model", "str", "key of the stage's model in the store"),
    Column("reward", "float", "mean reward of the model", "reward"),
    Column("reward_sd", "float", "standard deviation of reward over the model's outputs", "sd of reward over outputs"),
    Column("target_mass", "float", "probability of the target region T", "target mass"),
    Column("target_precision", "float", "E_{x~q} log p_target(x), nats", "target precision", "nats"),
    Column("target_recall", "float", "E_{x~p_target} log q(x), nats", "target recall", "nats"),
    Column("overall_precision", "float", "E_{x~q} log p_star(x), nats", "overall precision", "nats"),
    Column("overall_recall", "float", "E_{x~p_star} log q(x), nats", "overall recall", "nats"),
    Column("coverage", "json", "share of x~p_target with log p_target(x) - log q(x) <= log N, by N"),
    Column("target_precision_per_token", "float", "text: target_precision over tokens of a sequence"),
    Column("target_recall_per_token", "float", "text: target_recall over tokens of a sequence"),
    Column("overall_precision_per_token", "float", "text: overall_precision over tokens of a sequence"),
    Column("overall_recall_per_token", "float", "text: overall_recall over tokens of a sequence"),
    Column("entropy", "float", "text: -E_{x~q} log q(x), entropy of the model's own samples, nats"),
    Column("entropy_per_token", "float", "text: entropy over tokens of a sequence"),
    Column("distinct", "json", "text: distinct n-grams over all n-grams of the model's samples, by n"),
    Column("repetition", "float", "text: share of bigrams that their sequence had before, over the model's samples"),
    Column("posterior", "json", "text: share of each behaviour in the model's samples, by exact posterior"),
    Column("by_prompt", "json", "text, several prompts: reward, target_mass and recalls under each prompt"),
    Column("measured_on", "int", "text: sequences drawn for every measurement; null where none was sampled"),
    Column("kl_to_reference", "float", "align: KL(q || its reference), nats"),
    Column("kl_to_sft", "float", "KL(q || sft), nats"),
    Column("kl_to_optimum", "float", "align: KL(q || exact optimum of its reference), nats"),
    Column("target_draws", "float", "align: draws of T seen during training"),
    Column("exact_reward", "float", "align: mean reward of the exact optimum of its reference"),
    Column("exact_target_mass", "float", "align: target mass of the exact optimum of its reference"),
    Column("exact_kl", "float", "align: KL(exact optimum || its reference), nats"),
    Column("beta_c", "float", "align: beta below which the exact optimum of its reference has target mass above 1/2"),
    Column("predicted_reward", "float", "mean reward that theory predicts for this stage of the recipe, no training"),
    Column("predicted_target_mass", "float", "target mass that theory predicts for this stage, no training"),
    Column("audit_reward", "float", "align: mean reward that the audit predicted before training, from draws alone"),
    Column("audit_mass", "float", "align: target mass that the audit predicted before training, from draws alone"),
    Column("audit_verdict", "str", "align: go, no-go, insufficient data, or refused (the audit does not predict it)"),
    Column("audit_reason", "str", "align: the audit's reason for its verdict, in words"),
    Column("trap", "str", "align: anchor, sampling or exploration where target mass stayed at or below 1/2"),
    Column("updates", "int", "gradient updates (align) or EM iterations (sft, distil) of the stage"),
    Column("samples", "int", "samples the stage drew"),
    Column("flops", "float", "floating-point operations of the stage, counted by formula"),
    Column("tokens", "json", "own models: tokens that the stage sampled, scored and trained on, padding included"),
    Column(
        "held_out_accuracy",
        "float",
        "own models: share of held-out pairs whose chosen answer has the higher implicit reward",
    ),
    Column(
        "held_out_margin",
        "float",
        "own models: mean difference of implicit reward (log pi - log pi_ref) in held-out pairs, nats",
    ),
    Column("logp_chosen", "float", "own models: mean log-probability of chosen answers of held-out pairs, nats"),
    Column("logp_rejected", "float", "own models: mean log-probability of rejected answers of held-out pairs, nats"),
    Column("held_out_pairs", "int", "own models: held-out pairs that were scored"),
    Column(
        "intervals",
        "json",
        "own models: 95 % intervals of columns of this row over held-out prompts, [low, high] by name",
    ),
    Column("lm_eval", "json", "own models: results of lm-eval tasks, metric by task"),
)


def columns(varied: Sequence[str] = ()) -> list[str]:
    """Column names of a run that varies the given config keys; they stand after `seed` under their own names."""
    names = [c.name for c in COLUMNS]
    at = names.index("seed") + 1
    return names[:at] + list(varied) + names[at:]


def to_jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    """One JSON object a line; a NaN or infinity is a mistake of the caller and raises ValueError."""
    return "".join(json.dumps(dict(r), allow_nan=False, separators=(",", ":")) + "\n" for r in rows)


def to_csv(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """The same rows for spreadsheets; null is an empty field, json columns hold JSON."""
    return _csv_line(names) + "".join(_csv_line([_csv_field(row[n]) for n in names]) for row in rows)


def _csv_line(fields: Sequence[Any]) -> str:
    """One line. Python quotes a field for the line breaks of the writer's own ending only, so that one of both is
    asked for: a lone carriage return would start a row in a spreadsheet."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(fields)
    return out.getvalue().removesuffix("\r\n") + "\n"


def _csv_field(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ":"))
    if isinstance(value, str) and value[:1] in "=+-@\t\r\n":  # a spreadsheet would run it as a formula
        return "'" + value
    return value


def read(path: Path, sha256: str | None = None) -> list[Row]:
    """Rows of a `records.jsonl`. With a digest, raises StoreError unless the bytes are those that were written.

    Columns that an older version of the schema did not have are null.
    """
    try:
        data = path.read_bytes()
    except OSError as e:
        raise StoreError(f"records cannot be read: {e}. Run the study first: alignfirst run PRESET --out DIR") from e
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise StoreError(
            f"{path} is not what the run wrote (digest differs). Run the same command again to rebuild it."
        )
    rows: list[Row] = [json.loads(line) for line in data.decode().splitlines()]
    return [row | {c.name: None for c in COLUMNS if c.name not in row} for row in rows]


def pick(rows: Iterable[Row], **where: Any) -> Row:
    """The one row whose columns have the given values (None: whatever is there). Of several, the first seed's.

    Raises InputError where there is none, or where other columns tell several apart, naming the choices.
    """
    left = list(rows)
    for name, value in where.items():
        if value is None:
            continue
        kept = [row for row in left if row.get(name) == value]
        if not kept:
            there = dict.fromkeys(str(row[name]) for row in left if row.get(name) is not None)
            raise InputError(f"{name} must be one of this run's", value, f"There is {', '.join(there) or 'none'}.")
        left = kept
    if where.get("seed") is None:
        left = [row for row in left if row["seed"] == left[0]["seed"]]
    if len(left) > 1:
        told = [name for name in left[0] if name in PICKED or name not in _NAMES]
        name = next(n for n in told if len({str(row[n]) for row in left}) > 1)
        choices = ", ".join(dict.fromkeys(str(row[name]) for row in left))
        raise InputError("one model must be meant", f"{len(left)}, which differ in {name}", f"Choose from {choices}.")
    return left[0]


PICKED = ("recipe", "algorithm", "beta", "stage_index")
_NAMES = {c.name for c in COLUMNS}
