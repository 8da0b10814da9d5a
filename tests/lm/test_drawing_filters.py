"""Filters of drawn text: top-p against a plain search, every filter in both loops, in distillations and in studies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from alignfirst.errors import InputError
from alignfirst.lm.distil.distillation import Distillation, DistilSettings
from alignfirst.lm.models.load import TinyLlama, build
from alignfirst.lm.sampling.sample import _Draw, cut_to_filter, sample
from alignfirst.lm.text.batch import Batch, Prompts
from alignfirst.lm.text.logprobs import next_token_logp
from alignfirst.lm.training.optim import OptimSettings
from alignfirst.study.config.preset_files import load
from alignfirst.study.plan.planner import plan_study
from alignfirst.theory.drawing_filters import FILTERS, parse_filter
from alignfirst.worlds import get

V, P = 13, "top_p=0.7"


def peaked(seed: int) -> Any:
    model = build(TinyLlama(V, 16, 1, 2, 2, 32, 16), seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.mul_(12.0)
    return model.double()


MODEL = peaked(0)


def probabilities(seed: int) -> Any:
    return np.random.default_rng(seed).dirichlet(np.full(V, 0.5), 64)


@pytest.mark.parametrize("number", [1e-9, 0.3, 0.7, 0.999])
def test_top_p_is_the_smallest_set_of_likeliest_tokens(number: float) -> None:
    p = probabilities(0)
    found = cut_to_filter(torch.tensor(p), *parse_filter(f"top_p={number}")).numpy()
    for row, got in zip(p, found, strict=True):
        kept, total = set(), 0.0
        for token in sorted(range(V), key=lambda i: -row[i]):
            if total >= number:
                break
            kept.add(token)
            total += row[token]
        assert set(np.flatnonzero(got)) == kept
        np.testing.assert_allclose(got[sorted(kept)], row[sorted(kept)] / total, rtol=1e-12)


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_keeps_the_likeliest_token_and_ratios_in_arrays_and_tensors(name: str) -> None:
    rule, p = FILTERS[name], probabilities(1)
    ordered = np.sort(p, -1)[:, ::-1].copy()
    for number in np.linspace(rule.low, min(rule.high, 4.0), 7)[1:-1]:
        kept = np.asarray(rule.keeps(ordered, number))
        assert kept[:, 0].all()
        np.testing.assert_array_equal(kept, np.asarray(rule.keeps(torch.tensor(ordered), number)))
        found = cut_to_filter(torch.tensor(p), rule, number).numpy()
        np.testing.assert_allclose(found.sum(-1), 1.0, rtol=1e-12)
        share = np.where(found > 0, p, 0.0)
        np.testing.assert_allclose(found, share / share.sum(-1, keepdims=True), rtol=1e-12)


def test_of_equal_tokens_the_smaller_number_stays() -> None:
    assert cut_to_filter(torch.full((1, 4), 0.25), *parse_filter("top_p=0.5")).tolist() == [[0.5, 0.5, 0.0, 0.0]]


def test_tokens_are_drawn_as_often_as_their_share_of_the_kept_ones() -> None:
    """Evenly spaced numbers: the count of a token is its probability times their number, to one."""
    n = 4000
    p = torch.tensor([0.05, 0.4, 0.1, 0.3, 0.15], dtype=torch.float64)
    draw = _Draw(((torch.arange(n) + 0.5) / n)[None].double(), 1.0, filtered="top_p=0.8")
    counts = torch.bincount(draw.draw(p.log().expand(n, -1)), minlength=5)
    expected = torch.tensor([0.0, 0.4, 0.0, 0.3, 0.15]) / 0.85 * n
    assert (counts - expected).abs().max() <= 1


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_both_loops_draw_from_the_kept_tokens_and_say_how_likely(temperature: float) -> None:
    asked = torch.zeros(64, 1, dtype=torch.long)
    own, other = (
        sample(
            MODEL, asked, 6, torch.Generator().manual_seed(1), temperature, filtered=P, loop=loop, keep=True  # type: ignore[arg-type]
        )
        for loop in ("own", "generate")
    )  # fmt: skip
    assert torch.equal(own.tokens, other.tokens) and own.forward is None
    torch.testing.assert_close(own.logp, other.logp, atol=1e-5, rtol=0)
    with torch.no_grad():
        whole = next_token_logp(MODEL, Batch.of(asked, own.tokens), temperature).double().exp()
    cut = cut_to_filter(whole.flatten(0, 1), *parse_filter(P)).view_as(whole)
    expected = cut.gather(-1, own.tokens[..., None])[..., 0].log()
    torch.testing.assert_close(own.logp.double(), expected, atol=1e-5, rtol=0)
    assert bool((cut == 0).any())  # the filter had something to do


def test_a_distillation_learns_from_filtered_text() -> None:
    prompts = Prompts(torch.tensor([[0], [1]]), 5)
    settings = DistilSettings("sequence", OptimSettings(1e-3), samples=64, updates=1, batch=8, filter=P)
    text = Distillation(MODEL, MODEL, prompts, settings, 0, None).teacher_text()
    with torch.no_grad():
        whole = next_token_logp(MODEL, text, settings.temperature).double().exp()
    cut = cut_to_filter(whole.flatten(0, 1), *parse_filter(P)).view_as(whole)
    assert bool((cut.gather(-1, text.responses[..., None]) > 0).all())


# -- studies ----------------------------------------------------------------------------------------------------------


def filters_of(preset: str, *changes: str) -> dict[str, set[Any]]:
    found: dict[str, set[Any]] = {}
    config = load(preset, list(changes))
    for node in plan_study(config, get(config.world)).nodes.values():
        found.setdefault(node.kind, set()).add(node.settings.get("filter", "not there"))
    return found


def test_a_study_filters_what_it_names_and_else_its_nodes_are_as_they_were() -> None:
    plain = filters_of("grammar-quick")
    assert all(kinds == {"not there"} for kinds in plain.values())
    asked = filters_of("grammar-quick", f"distil.filter={P}", "measure.filter=top_p=0.9")
    assert asked == plain | {"distil": {P}, "measure": {"top_p=0.9"}}
    chain = filters_of("smollm2-tiny", f"distil.filter={P}")
    assert chain["draw"] == {"not there", P} and chain["sft"] == {"not there"}


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ("nucleus=0.9", "one of top_p"),
        ("top_p", "above 0 and below 1"),
        ("top_p=1.0", "above 0"),
        ("top_p=x", "above 0"),
    ],
)
def test_unknown_filters_and_numbers_are_refused(wrong: str, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        load("grammar-quick", [f"distil.filter={wrong}"])
    with pytest.raises(InputError, match=rule):
        sample(MODEL, torch.zeros(1, 1, dtype=torch.long), 1, torch.Generator(), filtered=wrong)
