"""Auditing language models: the language-model room behind the audit's seam, and files of prompts and examples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignfirst.cli import out
from alignfirst.cli.audit import DIGEST
from alignfirst.errors import InputError, StageFailure

if TYPE_CHECKING:
    from alignfirst.audit.collect import Ahead, Collected, Request
    from alignfirst.audit.findings import Audit
    from alignfirst.audit.inputs import Target
    from alignfirst.audit.pairs import Message, Text
    from alignfirst.audit.predict import Plan
    from alignfirst.store import Store
    from alignfirst.study.engine import Cluster

SAMPLES = 16  # a prompt, where there is a reward: fewer leave a prompt's own optimum unknown
ROWS = "log_probs.jsonl"
WORST_TOKENS = 8


class LanguageModel:
    """A model of the language-model room, as the audit's seam asks for it."""

    def __init__(self, name: str, loaded: Any) -> None:
        self.name, self.loaded = name, loaded
        self.identity = loaded.resolved.commit
        self.limit: int | None = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)

    def score(self, rows: Any) -> Any:
        from alignfirst.lm.score import score_rows

        return score_rows(self.loaded.model, rows)

    def sample(self, prompt: Sequence[int], count: int, new_tokens: int, seed: int) -> list[list[int]]:
        import importlib

        torch: Any = importlib.import_module("torch")
        from alignfirst.lm.sample import sample

        tokenizer = self.loaded.tokenizer
        drawn = sample(
            self.loaded.model,
            torch.tensor([list(prompt)] * count),
            new_tokens,
            torch.Generator().manual_seed(seed),
            eos=tokenizer.eos_token_id,
        )
        return [row[kept].tolist() for row, kept in zip(drawn.tokens, drawn.mask, strict=True)]


def audit_models(given: Mapping[str, Any], plans: Sequence[Plan], target: Target | None) -> Audit:
    """Load, collect, audit. What was collected is written beside the result, ready for --log-probs."""
    from alignfirst.audit.collect import collect
    from alignfirst.audit.findings import audit
    from alignfirst.audit.inputs import inputs_of
    from alignfirst.store import Store

    if given["pairs"] is None and given["prompts"] is None:
        raise InputError("a model is audited on --pairs or --prompts", "neither", "Name a file of either.")
    if given["reward"] is None and given["pairs"] is None:
        raise InputError("prompts need a reward", "none", "Give --reward module:function, or preference --pairs.")
    reference, teacher = load_model(given["reference"]), None
    if given["teacher"] is not None:
        teacher = load_model(given["teacher"])
        _same_tokens(reference, teacher)
    tokenizer = reference.loaded.tokenizer
    request, about = _request(given, tokenizer)
    reward = None if given["reward"] is None else _reward(given["reward"], tokenizer)
    store = Store(_cache())
    with elsewhere(given["nodes"], store) as ahead:
        found = collect(request, reference, teacher, reward, _decoder(tokenizer), store, _progress(), ahead)
    if given["out_"] is not None:
        about |= {DIGEST: write_rows(found, given["out_"])}
    inputs = inputs_of(found.table, target)
    kept = [] if request.pairs is None else [request.pairs.summary()]
    inputs = replace(inputs, notes=(*inputs.notes, *kept, *found.notes))
    about |= {"reference": f"{given['reference']} ({reference.identity})", "tokenising": request.tokeniser.policy()}
    if teacher is not None:
        about["teacher"] = f"{given['teacher']} ({teacher.identity})"
    result = audit(inputs, plans, title=given["reference"], about=about)
    if result.rows is not None:
        result.rows["worst"] = [row | _tokens(found, row["line"], tokenizer) for row in result.rows["worst"]]
    return result


@contextmanager
def elsewhere(nodes: Cluster | None, store: Store) -> Iterator[Ahead]:
    """Who does jobs before this process would: the nodes of a cluster, or nobody."""
    if nodes is None:
        yield lambda model, jobs: None
        return
    from alignfirst.cli.audit_cluster import OnCluster
    from alignfirst.study.engine import terminable

    ahead = OnCluster(nodes, store, _progress())
    with terminable():
        try:
            yield ahead
        finally:
            ahead.close()


def load_model(name: str) -> LanguageModel:
    from alignfirst.lm.load import Source, load

    place, _, revision = name.rpartition("@")
    source = Source(place, revision) if place and not Path(name).exists() else Source(name)
    loaded = load(source)
    if loaded.tokenizer is None:
        raise InputError("an audited model needs its tokenizer", name, "Save the tokenizer beside the model.")
    return LanguageModel(name, loaded)


def _same_tokens(reference: LanguageModel, teacher: LanguageModel) -> None:
    from alignfirst.lm.load import compare_tokenizers

    if different := compare_tokenizers(reference.loaded.tokenizer, teacher.loaded.tokenizer):
        cure = "Log-probabilities of other tokens cannot be compared: choose a teacher with the same tokenizer."
        raise InputError("reference and teacher must have the same tokenizer", "; ".join(different), cure)


def _cache() -> Path:
    from alignfirst.lm.sources import default_cache

    return default_cache() / "audit"


def _decoder(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True))


def _progress() -> Callable[[str, int, int], None]:
    return lambda what, done, of: out.note(f"{what}: {done} of {of}")


def _request(given: Mapping[str, Any], tokenizer: Any) -> tuple[Request, dict[str, Any]]:
    from alignfirst.audit.collect import Request
    from alignfirst.audit.pairs import read_pairs
    from alignfirst.audit.tokenise import Tokeniser

    pairs = None if given["pairs"] is None else read_pairs(given["pairs"], given["rows"])
    if pairs is not None:
        out.note(pairs.summary())
    prompts = [] if given["prompts"] is None else read_prompts(given["prompts"], given["rows"])
    samples = given["samples"] if given["samples"] is not None else SAMPLES if given["reward"] else 0
    targets = [] if given["target_file"] is None else read_examples(given["target_file"])
    plain = [(line, prompt) for line, prompt, _ in prompts]
    request = Request(Tokeniser(tokenizer), pairs, plain, targets, samples, given["new_tokens"])
    about: dict[str, Any] = {"samples_per_prompt": samples, "new_tokens": given["new_tokens"]}
    return request, about if pairs is None else about | {"pairs_file": str(given["pairs"]), "pairs": pairs.plain()}


def read_prompts(path: Path, limit: int | None = None) -> list[tuple[int, Text, Mapping[str, Any]]]:
    """(line, prompt, whole row) of JSON lines with `prompt`: text or messages. Raises InputError naming the line."""
    from alignfirst.audit.logprobs import raw_lines

    if not path.is_file():
        raise InputError("prompts must be in a file", str(path), "JSON lines with `prompt`.")
    found: list[tuple[int, Text, Mapping[str, Any]]] = []
    for line, raw in enumerate(raw_lines(path), 1):
        if limit is not None and len(found) == limit:
            break
        if raw is None or not raw.strip():
            continue
        try:
            row = json.loads(raw)
            found.append((line, _text(row["prompt"]), row))
        except (ValueError, TypeError, KeyError, RecursionError) as e:
            cure = "Write JSON lines, each with `prompt`: text, or messages with role and content."
            raise InputError("every line must hold a prompt", f"line {line}: {e}", cure) from e
    if not found:
        raise InputError("there must be at least one prompt", f"{path}, an empty file", "One JSON object a line.")
    return found


def read_examples(path: Path) -> list[tuple[int, Text, Text]]:
    """(line, prompt, response) of JSON lines with `prompt` and `response` (or `chosen`)."""
    found = []
    for line, prompt, row in read_prompts(path):
        answer = row.get("response", row.get("chosen"))
        if answer is None:
            raise InputError("a target example has a response", f"none in line {line}", "Name it `response`.")
        found.append((line, prompt, _text(answer)))
    return found


def _text(value: Any) -> Text:
    from alignfirst.audit.pairs import Message

    if isinstance(value, str):
        return value
    messages: tuple[Message, ...] = tuple(Message(str(m["role"]), str(m["content"])) for m in value)
    return messages


def _reward(spec: str, tokenizer: Any) -> Callable[[list[str], list[str]], Any]:
    """The user's function; whatever it does wrong is told with the row."""
    from alignfirst.lm.guard import checked
    from alignfirst.lm.reward import named

    function = named(spec, tokenizer, Path.cwd()).function

    def rewards(prompts: list[str], responses: list[str]) -> Any:
        try:
            answer = function(prompts, responses)
        except Exception as e:
            raise StageFailure(f"reward {spec} raised {type(e).__name__}: {e}") from e
        return checked(answer, len(responses), spec, "the audit")

    return rewards


def write_rows(found: Collected, folder: Path) -> str:
    """The table as JSON lines that --log-probs reads; their SHA-256."""
    from alignfirst import files
    from alignfirst.audit.table import KINDS, SOURCES

    t = found.table
    with files.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(len(t)):
        row: dict[str, Any] = {"kind": KINDS[t.kind[i]], "prompt_id": t.prompt_names[t.prompt[i]]}
        row |= {"pair_id": int(t.line[i]), "logp_reference": float(t.logp_reference[i]), "tokens": int(t.tokens[i])}
        if t.source[i] >= 0:
            row["source"] = SOURCES[t.source[i]]
        for name, values in (("logp_teacher", t.logp_teacher), ("reward", t.reward), ("rarest_logp", t.rarest)):
            if np.isfinite(values[i]):
                row[name] = float(values[i])
        row |= {"rarest_at": int(t.rarest_at[i]), "text": t.text[i]}
        lines.append(json.dumps(row, allow_nan=False).encode() + b"\n")
    files.write_atomic(folder / ROWS, lines)
    return hashlib.sha256(b"".join(lines)).hexdigest()


def _tokens(found: Collected, line: int, tokenizer: Any) -> dict[str, Any]:
    """Prompt and tokens of a chosen response, and the costliest: furthest behind the teacher, or least likely."""
    from alignfirst.audit.tokenise import pieces

    at = next(i for i, item in enumerate(found.items) if item.line == line and item.kind == "chosen")
    q, p = found.token_logp[at]
    item, cost = found.items[at], q if p is None else q - p

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    texts = pieces(item.response, decode)
    teacher = None if p is None else [float(x) for x in p]
    costliest = [
        {"at": int(n), "text": texts[n], "logp_reference": float(q[n]), "logp_teacher": teacher and teacher[n]}
        for n in np.argsort(cost, kind="stable")[:WORST_TOKENS]
    ]
    tokens = {"text": texts, "logp_reference": [float(x) for x in q], "logp_teacher": teacher}
    return {"prompt": decode(item.prompt), "tokens": tokens, "costliest_tokens": costliest}
