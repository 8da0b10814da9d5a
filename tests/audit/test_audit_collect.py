"""The seam to language models, with a model whose probabilities are known, and the cut between prompt and answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignfirst.auditing.collect import Collected, Request, collect
from alignfirst.auditing.findings import audit
from alignfirst.auditing.gated_prediction import Plan
from alignfirst.auditing.inputs import Target, inputs_of
from alignfirst.data.pairs import LoadedRows
from alignfirst.data.rows import Message, RowCounts, Text, TextRow, TokenRow
from alignfirst.data.tokenise import Tokeniser, common_prefix
from alignfirst.errors import InputError
from alignfirst.store import Store


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


class Coin:
    """Answers of one token: X with probability `mass`, else Y. Counts what it is asked."""

    limit = 50

    def __init__(self, mass: float) -> None:
        self.mass, self.identity = mass, f"coin {mass}"
        self.asked = 0

    def score(self, rows: Any) -> list[list[np.ndarray]]:
        self.asked += len(rows)
        return [[np.array([self._logp(t) for t in response]) for response in responses] for _, responses in rows]

    def _logp(self, token: int) -> float:
        return float(np.log({ord("X"): self.mass, ord("Y"): 1 - self.mass}.get(token, 0.5)))

    def sample(self, prompt: Sequence[int], count: int, new_tokens: int, seed: int) -> list[list[int]]:
        self.asked += 1
        return [[ord("X" if x < self.mass else "Y")] for x in np.random.default_rng(seed).random(count)]


def pairs(*rows: tuple[Text, Text, Text]) -> LoadedRows:
    return LoadedRows(tuple(TextRow(i, *row) for i, row in enumerate(rows, 1)), RowCounts(len(rows)))


def run(request: Request, store: Path, q: Coin, p: Coin | None = None) -> Collected:
    def reward(prompts: list[str], responses: list[str]) -> np.ndarray:
        return np.array([float("X" in r) for r in responses])

    return collect(request, q, p, reward, Letters().decode, Store(store))


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


def test_samples_scores_and_rewards_become_an_audit(tmp_path: Path) -> None:
    """A coin with 5 % heads, and a teacher with 40 %: the audit finds both, and the order of the two answers."""
    request = Request(Tokeniser(Letters()), pairs(("q", "X", "Y"), ("r", "X", "Y")), samples=500)
    found = run(request, tmp_path, Coin(0.05), Coin(0.4))
    inputs = inputs_of(found.table, Target.parse("R >= 1"))
    result = audit(inputs, [Plan("reinforce", 0.1, 10_000)])
    assert result.evidence is not None and result.rows is not None
    mass = result.evidence.mass
    assert mass.value == pytest.approx(0.05, abs=5 * 0.005)
    assert result.rows["discrimination"]["value"] == 0.0  # Y is likelier than X
    assert result.rows["cost_chosen"]["value"] == pytest.approx(np.log(0.05 / 0.4))


def test_nothing_is_computed_twice(tmp_path: Path) -> None:
    request = Request(Tokeniser(Letters()), pairs(("q", "X", "Y"), ("r", "Y", "X")), samples=20)
    q, again = Coin(0.3), Coin(0.3)
    first = run(request, tmp_path, q)
    second = run(request, tmp_path, again)
    assert q.asked > 0 and again.asked == 0
    assert first.table.logp_reference.tolist() == second.table.logp_reference.tolist()
    assert first.items == second.items
    other = Coin(0.31)
    run(request, tmp_path, other)
    assert other.asked > 0  # other weights, other numbers


def test_an_interrupted_audit_goes_on_where_it_stopped(tmp_path: Path) -> None:
    class Broken(Coin):
        def score(self, rows: Any) -> list[list[np.ndarray]]:
            if self.asked >= 16:
                raise KeyboardInterrupt
            return super().score(rows)

    many = pairs(*((f"q{n}", "X", "Y") for n in range(40)))
    request = Request(Tokeniser(Letters()), many)
    broken, whole, resumed = Broken(0.3), Coin(0.3), Coin(0.3)
    with pytest.raises(KeyboardInterrupt):
        run(request, tmp_path / "a", broken)
    interrupted = run(request, tmp_path / "a", resumed)
    uninterrupted = run(request, tmp_path / "b", whole)
    assert resumed.asked == whole.asked - 16
    assert interrupted.table.logp_reference.tolist() == uninterrupted.table.logp_reference.tolist()


def test_rows_longer_than_the_model_are_left_out_and_counted(tmp_path: Path) -> None:
    request = Request(Tokeniser(Letters()), pairs(("q", "X", "Y"), ("q", "X" * 60, "Y")))
    found = run(request, tmp_path, Coin(0.3))
    assert len(found.items) == 2 and any("longer than the 50 positions" in note for note in found.notes)
    with pytest.raises(InputError, match="response to score"):
        run(Request(Tokeniser(Letters()), pairs(("q", "X" * 60, "Y"))), tmp_path, Coin(0.3))


def test_a_moved_boundary_is_noted(tmp_path: Path) -> None:
    found = run(Request(Tokeniser(Letters()), pairs(("xa", "b", "c"))), tmp_path, Coin(0.3))
    assert any("spans the end of the prompt" in note for note in found.notes)


def test_draws_of_a_prompt_do_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    def draws(folder: str, prompts: list[tuple[int, Text]]) -> dict[str, list[Any]]:
        asked = [TextRow(line, text) for line, text in prompts]
        found = run(Request(Tokeniser(Letters()), prompts=asked, samples=50), tmp_path / folder, Coin(0.3))
        texts: dict[str, list[Any]] = {}
        for item in found.items:
            texts.setdefault(json.dumps(item.prompt), []).append(item.response)
        return texts

    alone, together = draws("a", [(1, "q")]), draws("b", [(1, "r"), (2, "q"), (3, "s")])
    key = json.dumps([ord("q")])
    assert alone[key] == together[key] and len(together) == 3
