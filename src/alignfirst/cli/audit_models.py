"""Auditing language models: the language-model room behind the audit's seam."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignfirst.cli import out
from alignfirst.cli.audit_files import DIGEST, write_rows
from alignfirst.cli.audited import LanguageModel, load_model
from alignfirst.errors import InputError, StageFailure

if TYPE_CHECKING:
    from alignfirst.auditing.collect import Ahead, Collected, Request
    from alignfirst.auditing.findings import Audit
    from alignfirst.auditing.gated_prediction import Plan
    from alignfirst.auditing.inputs import Target
    from alignfirst.store import Store
    from alignfirst.study.execution.options import Cluster

SAMPLES = 16  # a prompt, where there is a reward: fewer leave a prompt's own optimum unknown
WORST_TOKENS = 8


def audit_models(given: Mapping[str, Any], plans: Sequence[Plan], target: Target | None) -> Audit:
    """Load, collect, audit. What was collected is written beside the result, ready for --log-probs."""
    from alignfirst.auditing.collect import collect
    from alignfirst.auditing.findings import audit
    from alignfirst.auditing.inputs import inputs_of
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
    from alignfirst.signals import terminable

    ahead = OnCluster(nodes, store, _progress())
    with terminable():
        try:
            yield ahead
        finally:
            ahead.close()


def _same_tokens(reference: LanguageModel, teacher: LanguageModel) -> None:
    from alignfirst.lm.models.load import compare_tokenizers

    if different := compare_tokenizers(reference.loaded.tokenizer, teacher.loaded.tokenizer):
        cure = "Log-probabilities of other tokens cannot be compared: choose a teacher with the same tokenizer."
        raise InputError("reference and teacher must have the same tokenizer", "; ".join(different), cure)


def _cache() -> Path:
    from alignfirst.files import default_cache

    return default_cache() / "audit"


def _decoder(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=True))


def _progress() -> Callable[[str, int, int], None]:
    return lambda what, done, of: out.note(f"{what}: {done} of {of}")


def _request(given: Mapping[str, Any], tokenizer: Any) -> tuple[Request, dict[str, Any]]:
    from alignfirst.auditing.collect import Request
    from alignfirst.data.pairs import read_pairs
    from alignfirst.data.prompts import read_examples, read_prompts
    from alignfirst.data.tokenise import Tokeniser

    pairs = None if given["pairs"] is None else read_pairs(given["pairs"], given["rows"])
    if pairs is not None:
        out.note(pairs.summary())
    prompts = () if given["prompts"] is None else read_prompts(given["prompts"], given["rows"]).rows
    samples = given["samples"] if given["samples"] is not None else SAMPLES if given["reward"] else 0
    targets = () if given["target_file"] is None else read_examples(given["target_file"]).rows
    request = Request(Tokeniser(tokenizer), pairs, prompts, targets, samples, given["new_tokens"])
    about: dict[str, Any] = {"samples_per_prompt": samples, "new_tokens": given["new_tokens"]}
    return request, about if pairs is None else about | {"pairs_file": str(given["pairs"]), "pairs": pairs.plain()}


def _reward(spec: str, tokenizer: Any) -> Callable[[list[str], list[str]], Any]:
    """The user's function; whatever it does wrong is told with the row."""
    from alignfirst.lm.align.reward_calls import checked
    from alignfirst.lm.align.rewards import named

    function = named(spec, tokenizer, Path.cwd()).function

    def rewards(prompts: list[str], responses: list[str]) -> Any:
        try:
            answer = function(prompts, responses)
        except Exception as e:
            raise StageFailure(f"reward {spec} raised {type(e).__name__}: {e}") from e
        return checked(answer, len(responses), spec, "the audit")

    return rewards


def _tokens(found: Collected, line: int, tokenizer: Any) -> dict[str, Any]:
    """Prompt and tokens of a chosen response, and the costliest: furthest behind the teacher, or least likely."""
    from alignfirst.data.tokenise import pieces

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
