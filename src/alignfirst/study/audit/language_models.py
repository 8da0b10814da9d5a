"""The audit of language models on a user's pairs and prompts: what is drawn and scored, as nodes, and its table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from alignfirst import user_code
from alignfirst.auditing import findings
from alignfirst.auditing.findings import Audit
from alignfirst.auditing.inputs import inputs_of
from alignfirst.auditing.logprob_table import DIGEST, write
from alignfirst.data.pairs import read_pairs
from alignfirst.data.prompts import read_examples, read_prompts
from alignfirst.data.rows import TokenRow
from alignfirst.data.tokenise import Tokeniser, pieces
from alignfirst.data.turns import Ends, ends_of
from alignfirst.errors import InputError
from alignfirst.nodes import Artefact, Node
from alignfirst.study.audit.node_cache import NodeCache
from alignfirst.study.audit.request import AuditRequest
from alignfirst.study.audit.responses import Response, Reward, ScoredResponses, fitting, scored_responses

WORLD = "hf"
SAMPLES = 16  # a prompt, where there is a reward: fewer leave a prompt's own optimum unknown
SEED = 0
WORST_TOKENS = 8
Say = Callable[[str], None]


def audit_language_models(request: AuditRequest, cache: NodeCache, say: Say) -> Audit:
    """Draw, score, judge. The rows are written to `request.out`, ready to be audited without the models.

    `say` gets what was kept of the pairs before any model is asked. Raises InputError for what cannot work,
    StageFailure for a model or a reward that fails.
    """
    if request.pairs is None and request.prompts is None:
        raise InputError("a model is audited on --pairs or --prompts", "neither", "Name a file of either.")
    if request.reward is None and request.pairs is None:
        raise InputError("prompts need a reward", "none", "Give --reward module:function, or preference --pairs.")
    plans = request.planned(text=True)
    models = _Models.of(request)
    with _reward(request.reward) as reward:
        asked = _Asked.of(request, models, say)
        found = asked.scored(cache, models, reward)
    about = asked.about
    if request.out is not None:
        about[DIGEST] = write(found.table, Path(request.out))
    about |= models.about() | {"tokenising": asked.tokeniser.policy()}
    inputs = inputs_of(found.table, request.target)
    inputs = replace(inputs, notes=(*inputs.notes, *asked.notes))
    result = findings.audit(inputs, plans, title=request.reference, about=about)
    if result.rows is not None:
        worst = [row | _tokens(found, row["line"], models.tokenizer) for row in result.rows["worst"]]
        result.rows["worst"] = worst
    return result


@dataclass(frozen=True)
class _Models:
    """Reference and teacher, identified; `limit` is the number of positions that all have."""

    named: Mapping[str, str]  # role -> name
    identified: Mapping[str, Mapping[str, Any]]  # role -> source and digest
    tokenizer: Any
    ends: Ends  # of both: an answer of one is an answer of the other
    limit: int | None

    @classmethod
    def of(cls, request: AuditRequest) -> _Models:
        """Raises InputError where a model is not there, has no tokenizer, or the two differ in theirs."""
        from alignfirst.lm.models import named_models
        from alignfirst.lm.models.load import compare_tokenizers, load_tokenizer

        named = {"reference": request.reference}
        if request.teacher is not None:
            named["teacher"] = request.teacher
        identified, positions = {}, []
        for role, name in named.items():
            place = str(Path(name).absolute()) if Path(name).exists() else name
            identified[role] = {"source": place, "digest": named_models.found(place).commit}
            positions.append(named_models.architecture_of(place).get("max_position_embeddings"))
        sources = {name: identified[role]["source"] for role, name in named.items()}
        tokenizers = {name: load_tokenizer(named_models.found(source)) for name, source in sources.items()}
        for name, tokenizer in tokenizers.items():
            if tokenizer is None:
                cure = "Save the tokenizer beside the model."
                raise InputError("an audited model needs its tokenizer", name, cure)
        first, *others = tokenizers.values()
        if others and (different := compare_tokenizers(first, *others)):
            cure = "Log-probabilities of other tokens cannot be compared: choose a teacher with the same tokenizer."
            raise InputError("reference and teacher must have the same tokenizer", "; ".join(different), cure)
        ends = ends_of(first, named_models.generation_ends(*map(named_models.found, sources.values())))
        return cls(named, identified, first, ends, min((n for n in positions if n is not None), default=None))

    def about(self) -> dict[str, Any]:
        return {role: f"{name} ({self.identified[role]['digest']})" for role, name in self.named.items()}

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


@dataclass
class _Asked:
    """What is asked of the models: given responses to score, and prompts (line, ids) to answer, `samples` times."""

    tokeniser: Tokeniser
    given: list[Response]
    prompts: list[tuple[int, tuple[int, ...]]]
    samples: int
    new_tokens: int
    about: dict[str, Any]
    notes: list[str]

    @classmethod
    def of(cls, request: AuditRequest, models: _Models, say: Say) -> _Asked:
        tokeniser, notes = Tokeniser(models.tokenizer), list[str]()
        layout = replace(request.layout, chat=tokeniser.template is not None)
        samples = request.samples if request.samples is not None else SAMPLES if request.reward is not None else 0
        about: dict[str, Any] = {"samples_per_prompt": samples, "new_tokens": request.new_tokens}
        given: list[Response] = []
        if request.pairs is not None:
            pairs, tokens = tokeniser.kept(read_pairs(request.pairs, request.rows, layout=layout), "pairs")
            for text in (pairs.summary(), *pairs.told()):
                say(text)
                notes.append(text)
            about |= {"pairs_file": str(request.pairs), "pairs": pairs.plain()}
            given += pair_responses(tokens, notes)
        if request.target_file is not None:
            _, rows = tokeniser.kept(read_examples(request.target_file, layout), "examples")
            given += [Response(row.line, "target", None, tuple(row.prompt), tuple(row.chosen)) for row in rows]
        given = fitting(given, models.limit, notes)
        if request.prompts is not None:
            _, rows = tokeniser.kept(read_prompts(request.prompts, request.rows, layout), "prompts")
            asked = [(row.line, tuple(row.prompt)) for row in rows]
        else:
            asked = [(response.line, response.prompt) for response in given]
        first: dict[tuple[int, ...], int] = {}
        for line, ids in asked if samples else ():
            first.setdefault(ids, line)
        _check_room(first, request.new_tokens, models.limit)
        if samples and not models.ends.agree:
            notes.append(f"drawn answers end at any of {models.ends.words(models.tokenizer)}")
        prompts = [(line, ids) for ids, line in first.items()]
        return cls(tokeniser, given, prompts, samples, request.new_tokens, about, notes)

    def scored(self, cache: NodeCache, models: _Models, reward: Reward | None) -> ScoredResponses:
        """Answers and log-probabilities from the cache, or from the models."""
        from alignfirst.worlds.user_models.audit_pieces import drawn_score_nodes, sample_nodes, score_nodes

        ids = [ids for _, ids in self.prompts]
        settings: dict[str, Any] = {"samples": self.samples, "new_tokens": self.new_tokens, "seed": SEED}
        settings["ends"] = list(models.ends.ids)
        draw = {role: sample_nodes(model, ids, **settings) for role, model in models.identified.items()}
        drawn = [node for nodes in draw.values() for node in nodes]
        # A prompt that stands before several responses is computed once
        rows = [(ids, [r.response for r in group]) for ids, group in groupby(self.given, lambda r: r.prompt)]
        score = {
            role: [*score_nodes(model, rows), *drawn_score_nodes(model, drawn)]
            for role, model in models.identified.items()
        }
        nodes = {node.key: node for part in (drawn, *score.values()) for node in part}
        found = cache.artefacts(WORLD, nodes, nodes)
        responses = [*self.given, *self._drawn(draw, found)]
        if not responses:
            raise InputError("there must be a response to score", "none", "Give --pairs or --prompts.")
        ends = np.cumsum([len(r.response) for r in responses])[:-1]
        logps = [np.split(np.concatenate([found[n.key].arrays["logp"] for n in s]), ends) for s in score.values()]
        return scored_responses(responses, logps, reward, models.decode)

    def _drawn(self, draw: Mapping[str, Sequence[Node]], found: Mapping[str, Artefact]) -> Iterator[Response]:
        """In the order in which they are scored."""
        from alignfirst.worlds.user_models.audit_pieces import drawn_rows

        for role, nodes in draw.items():
            rows = [row for node in nodes for row in drawn_rows(node.settings["prompts"], found[node.key])]
            for (line, ids), (_, answers) in zip(self.prompts, rows, strict=True):
                for answer in answers:
                    yield Response(line, "sample", role, ids, tuple(answer))


def pair_responses(rows: Iterable[TokenRow], notes: list[str]) -> Iterator[Response]:
    """Both answers of every pair, cut as training cuts them."""
    moved = 0
    for row in rows:
        moved += row.moved > 0
        for kind, answer in (("chosen", row.chosen), ("rejected", row.rejected)):
            yield Response(row.line, kind, None, tuple(row.prompt), tuple(answer))
    if moved:
        notes.append(
            f"in {moved} pairs a token spans the end of the prompt: their answers begin before it, as in training"
        )


def _check_room(prompts: Iterable[Sequence[int]], new_tokens: int, limit: int | None) -> None:
    longest = max((len(ids) + new_tokens for ids in prompts), default=0)
    if limit is not None and longest > limit:
        cure = "Ask for fewer tokens (--new-tokens), or leave long prompts out."
        raise InputError(f"prompt and answer fit the model's {limit} positions", f"{longest} tokens", cure)


@contextmanager
def _reward(given: str | user_code.Function | None) -> Iterator[Reward | None]:
    """The user's function; whatever it does wrong is told with the row. One that is named works in a process of its
    own, so that nothing it does ends this one."""
    if given is None:
        yield None
    elif isinstance(given, str):
        process = user_code.FunctionProcess(given, Path.cwd())
        try:
            yield lambda prompts, responses: np.array(process(prompts, responses, "the audit"))
        finally:
            process.close()
    else:
        name = getattr(given, "__name__", "function")
        yield lambda prompts, responses: np.array(user_code.rewards(given, prompts, responses, name, "the audit"))


def _tokens(found: ScoredResponses, line: int, tokenizer: Any) -> dict[str, Any]:
    """Prompt and tokens of a chosen response, and the costliest: furthest behind the teacher, or least likely."""
    at = next(i for i, r in enumerate(found.responses) if r.line == line and r.kind == "chosen")
    q, p = found.token_logp[at]
    cost = q if p is None else q - p

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    texts = pieces(found.responses[at].response, decode)
    teacher = None if p is None else [float(x) for x in p]
    costliest = [
        {"at": int(n), "text": texts[n], "logp_reference": float(q[n]), "logp_teacher": teacher and teacher[n]}
        for n in np.argsort(cost, kind="stable")[:WORST_TOKENS]
    ]
    tokens = {"text": texts, "logp_reference": [float(x) for x in q], "logp_teacher": teacher}
    return {"prompt": decode(found.responses[at].prompt), "tokens": tokens, "costliest_tokens": costliest}
