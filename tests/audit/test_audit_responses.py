"""Responses on their way to a table, with a model whose probabilities are known; the cut between prompt and answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from alignfirst.auditing.findings import audit
from alignfirst.auditing.gated_prediction import Plan
from alignfirst.auditing.inputs import Target, inputs_of
from alignfirst.data.pairs import LoadedRows
from alignfirst.data.rows import Message, RowCounts, Text, TextRow, TokenRow
from alignfirst.data.tokenise import Tokeniser
from alignfirst.data.turns import common_prefix
from alignfirst.errors import InputError
from alignfirst.study.audit.language_models import pair_responses
from alignfirst.study.audit.responses import Response, fitting, scored_responses


class Letters:
    """A tokenizer of letters, with one token for "ab", as a byte-pair encoding has; `$` ends."""

    eos_token, bos_token_id, chat_template = "$", None, "template"

    def __call__(self, texts: list[str]) -> dict[str, list[list[int]]]:
        return {"input_ids": [self._ids(text) for text in texts]}

    def _ids(self, text: str) -> list[int]:
        ids, i = [], 0
        while i < len(text):
            step = 2 if text[i : i + 2] == "ab" else 1
            ids.append(1 if step == 2 else ord(text[i]))
            i += step
        return ids

    def apply_chat_template(
        self, chats: list[list[dict[str, str]]], tokenize: bool, add_generation_prompt: bool, return_dict: bool
    ) -> dict[str, list[list[int]]]:
        end = "<a>" if add_generation_prompt else ""
        return self(["".join(f"<{m['role'][0]}>{m['content']}$" for m in messages) + end for messages in chats])

    def decode(self, ids: Sequence[int]) -> str:
        return "".join("ab" if i == 1 else chr(i) for i in ids)


def pairs(*rows: tuple[Text, Text, Text]) -> LoadedRows:
    return LoadedRows(tuple(TextRow(i, *row) for i, row in enumerate(rows, 1)), RowCounts(len(rows)))


def responses(*rows: tuple[Text, Text, Text]) -> list[Response]:
    return list(pair_responses(Tokeniser(Letters()).rows(pairs(*rows).rows), []))


def test_an_answer_begins_where_training_lets_it_begin() -> None:
    """ "xa" + "b" is one token at the boundary: it and all after it are the answer's, as in TRL's `tokenize_fn`."""
    [encoded] = Tokeniser(Letters()).rows([TextRow(1, "xa", "b", "c")])
    assert encoded == TokenRow(1, [ord("x")], [1, ord("$")], [ord("a"), ord("c"), ord("$")], 1)
    [plain] = Tokeniser(Letters()).rows([TextRow(2, "x", "c", "d$")])
    assert plain == TokenRow(2, [ord("x")], [ord("c"), ord("$")], [ord("d"), ord("$")], 0)


def test_messages_go_through_the_template() -> None:
    user, yes, no = Message("user", "q"), Message("assistant", "y"), Message("assistant", "n")
    [encoded] = Tokeniser(Letters()).rows([TextRow(1, (user,), (yes,), (no,))])
    show = Letters().decode
    assert [show(part) for part in encoded[1:4]] == ["<u>q$<a>", "y$", "n$"]
    bare = Letters()
    bare.chat_template = None  # type: ignore[assignment]
    with pytest.raises(InputError, match="chat template"):
        Tokeniser(bare).rows([TextRow(1, (user,), (yes,), (no,))])


def test_a_prompt_without_a_token_needs_a_first_one() -> None:
    with pytest.raises(InputError, match=r"must have a token.*line 4"):
        Tokeniser(Letters()).rows([TextRow(4, "", "b", "c")])
    begun = Letters()
    begun.bos_token_id = 7  # type: ignore[assignment]
    assert Tokeniser(begun).rows([TextRow(4, "", "b", "c")])[0].prompt == [7]


def test_the_policy_on_end_and_template_is_told() -> None:
    told = Tokeniser(Letters()).policy()
    assert "'$'" in told["end token"] and told["truncation"] == "none"


@pytest.mark.parametrize(("a", "b", "n"), [([], [], 0), ([1], [1, 2], 1), ([1, 2, 3], [1, 9, 3], 1), ([1], [2], 0)])
def test_common_prefix(a: list[int], b: list[int], n: int) -> None:
    assert common_prefix(a, b) == n


def coin(mass: float, response: Response) -> np.ndarray:
    """Log-probabilities of the tokens of a response under a model that answers X with probability `mass`, else Y."""
    chances = {ord("X"): mass, ord("Y"): 1 - mass}
    return np.log([chances.get(token, 0.5) for token in response.response])


def test_samples_scores_and_rewards_become_an_audit() -> None:
    """A coin with 5 % heads, and a teacher with 40 %: the audit finds both, and the order of the two answers."""
    random = np.random.default_rng(0)
    given = responses(("q", "X", "Y"), ("r", "X", "Y"))
    for source, mass in (("reference", 0.05), ("teacher", 0.4)):
        for prompt in (given[0].prompt, given[2].prompt):
            answers = np.where(random.random(500) < mass, ord("X"), ord("Y"))
            given += [Response(1, "sample", source, prompt, (int(answer),)) for answer in answers]
    scores = [[coin(mass, response) for response in given] for mass in (0.05, 0.4)]

    def reward(prompts: list[str], texts: list[str]) -> np.ndarray:
        assert set(prompts) == {"q", "r"}
        return np.array([float("X" in text) for text in texts])

    found = scored_responses(given, scores, reward, Letters().decode)
    result = audit(inputs_of(found.table, Target.parse("R >= 1")), [Plan("reinforce", 0.1, 10_000)])
    assert result.evidence is not None and result.rows is not None
    assert result.evidence.mass.value == pytest.approx(0.05, abs=5 * 0.005)
    assert result.rows["discrimination"]["value"] == 0.0  # Y is likelier than X
    assert result.rows["cost_chosen"]["value"] == pytest.approx(np.log(0.05 / 0.4))
    np.testing.assert_array_equal(found.token_logp[0][1], coin(0.4, given[0]))


def test_rows_longer_than_the_model_are_left_out_and_counted() -> None:
    notes: list[str] = []
    kept = fitting(responses(("q", "X", "Y"), ("q", "X" * 60, "Y")), 50, notes)
    assert [response.line for response in kept] == [1, 1]
    assert notes == ["1 rows are longer than the 50 positions of the model and were left out"]
    with pytest.raises(InputError, match=r"response to score.*50 positions"):
        fitting(responses(("q", "X" * 60, "Y")), 50, [])


def test_a_row_with_an_empty_answer_goes_as_a_whole() -> None:
    notes: list[str] = []
    first, second, third = (Response(line, kind, None, (1,), ids) for line, kind, ids in (
        (1, "chosen", (2,)), (1, "rejected", ()), (2, "target", (3,))
    ))  # fmt: skip
    assert fitting([first, second, third], None, notes) == [third]
    assert notes == ["1 rows have an answer of no tokens and were left out"]


def test_a_moved_boundary_is_noted() -> None:
    notes: list[str] = []
    list(pair_responses(Tokeniser(Letters()).rows(pairs(("xa", "b", "c"), ("x", "b", "c")).rows), notes))
    [note] = notes
    assert "in 1 pairs a token spans the end of the prompt" in note
