"""The card of an exported model under hostile names: YAML that says what it should, Markdown that nothing breaks.

It is read as the hub reads it: front matter by YAML and by huggingface_hub, the text by a Markdown parser with tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from ledger import Count
from payloads import PAYLOADS

pytest.importorskip("torch", reason="needs alignfirst[lm]")
hub = pytest.importorskip("huggingface_hub", reason="needs alignfirst[lm]")
markdown_it = pytest.importorskip("markdown_it", reason="the parser comes with rich")

from alignfirst.worlds.user_models.card import card, code

HOSTILE = (
    "---\nlicense: mit\n---",
    "a\n---\nbase_model: evil/model\n---\n# Owned",
    "`</code><script>alert(1)</script>`",
    "|| a | b |\n|---|---|",
    "[click](javascript:alert(1)) ![x](http://x.invalid/a.png)",
    "<img src=x onerror=alert(1)>",
    "```\n# not code\n```",
    "{{7*7}} ${x} %{y} &amp; &#60;b&#62;",
    "!!python/object/apply:os.system ['true']",
    "*a: &b [c, {d: e}]",
    "yes",
    "1e3",
    "null",
    "\u202e\u2066reordered\u2028line\x00\x1b[31m\ufeff",
    '\'; "quoted" \\',
    "    four spaces",
    "\t- a list\n\t1. another",
    "> quote\n===\n***",
    "",
    " ",
    "x" * 5_000,
    "مرحبا 你好 🎉 e\u0301",
    *PAYLOADS,
)
TABLES, SECTIONS = 3, ["Lineage", "Models and data", "Measured on held-out prompts", "Cost", "Settings", "Made by"]
TAGS = {"library_name", "pipeline_tag", "tags"}


def made(word: str) -> str:
    """A card in which every string that a user, a hub or a file names is `word`."""
    row = {
        "recipe": "align-distil", "algorithm": word or None, "beta": 0.1, "seed": 0, "stage": "align", "stage_index": 1,
        "updates": 3, "samples": 4, "model": word, "flops": 1e9, "tokens": {"sampled": 1, "scored": 2, "trained": 3},
        "intervals": {"logp_chosen": [-3.0, -1.0]}, "logp_chosen": -2.0, "held_out_pairs": 5, "measured_on": 6,
    }  # fmt: skip
    config = {
        "name": word, "description": word, "teacher": {"model": word}, "reward": {"function": word, "label": word},
        "data": {"pairs": word or None, "prompts": "prompts.jsonl"}, "measure": {"tasks": [word]},
    }  # fmt: skip
    data = {
        "teacher": {"source": word, "digest": word}, "student": {"model": {"source": word}}, "identity": word,
        "rows": 9, "kept": 8, "train": 6, "held_out": 2, "dropped": {word: {"count": 1}},
    }  # fmt: skip
    about = {"version": "0.1.0", "command": word}
    return card(config, [{**row, "stage": "sft"}, row], {word: word}, data, about, adapter_of=None)


def parsed(text: str) -> Any:
    return markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)


def inner(tokens: Any) -> list[Any]:
    return [child for token in tokens for child in (token.children or [])]


def front_matter(text: str, word: str) -> None:
    assert text.startswith("---\n")
    front = text.removeprefix("---\n").partition("\n---\n")[0]
    found = yaml.safe_load(front)
    assert set(found) == TAGS
    assert found["tags"] == ["alignfirst", "align-distil", *([word] if word else [])], "a string stays that string"


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
def test_front_matter_is_yaml_of_these_keys_and_no_others(word: str, count: Callable[[str], Count]) -> None:
    """Whatever a model card names, its front matter is YAML with the keys that it should have, and no others."""
    with count("markup: model card").trial():
        front_matter(made(word), word)


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
def test_the_hub_reads_the_same(word: str) -> None:
    found = hub.ModelCard(made(word))
    assert found.data.tags == ["alignfirst", "align-distil", *([word] if word else [])]
    assert found.data.library_name == "transformers" and found.data.pipeline_tag == "text-generation"
    assert found.data.license is None and found.data.base_model is None
    again = hub.ModelCard(str(found))
    assert again.data.to_dict() == found.data.to_dict() and again.text.strip() == found.text.strip()


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
def test_the_text_keeps_its_sections_and_tables_and_has_no_markup_of_theirs(
    word: str, count: Callable[[str], Count]
) -> None:
    """Whatever a model card names, its sections and tables are its own and nothing of it becomes a link, an image or
    an element."""
    with count("markup: model card").trial():
        sections(made(word))


def sections(text: str) -> None:
    tokens = parsed(hub.ModelCard(text).text)
    headings = [tokens[i + 1].content for i, t in enumerate(tokens) if t.type == "heading_open"]
    assert headings[0].startswith("A model of the recipe") and headings[1:] == SECTIONS
    kinds = {token.type for token in tokens} | {child.type for child in inner(tokens)}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "fence", "blockquote_open", "hr"}
    assert sum(token.type == "table_open" for token in tokens) == TABLES
    assert sum(token.type == "code_block" for token in tokens) == 1, "the settings, verbatim"
    columns = 0
    for i, token in enumerate(tokens):
        if token.type == "thead_open":
            end = next(k for k in range(i, len(tokens)) if tokens[k].type == "thead_close")
            columns = sum(t.type == "th_open" for t in tokens[i:end])
        if token.type == "tbody_open":
            end = next(k for k in range(i, len(tokens)) if tokens[k].type == "tbody_close")
            rows = sum(t.type == "tr_open" for t in tokens[i:end])
            assert sum(t.type == "td_open" for t in tokens[i:end]) == rows * columns


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
def test_settings_are_the_config_again(word: str) -> None:
    [block] = [token.content for token in parsed(hub.ModelCard(made(word)).text) if token.type == "code_block"]
    found = yaml.safe_load(block)
    assert found["name"] == found["teacher"]["model"] == found["reward"]["label"] == word
    assert found["measure"]["tasks"] == [word]


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_is_one_piece_of_code_without_what_hides_or_reorders(word: str) -> None:
    tokens = parsed(f"before {code(word)} after")
    [paragraph] = [token for token in tokens if token.type == "inline"]
    assert [child.type for child in paragraph.children] == ["text", "code_inline", "text"]
    shown = paragraph.children[1].content
    assert shown.isprintable() and "|" not in shown and "`" not in shown


@pytest.mark.parametrize(("teacher", "digest", "expected"), [
    ("org/model@main", "abc", "org/model"), ("org/model", "sha256:ab", None), ("org/mo\ndel", "abc", None),
    ("org/model\n", "abc", None), ("./org/model", "abc", None), ("org/model/..", "abc", None),
])  # fmt: skip
def test_only_an_id_of_the_hub_is_a_base_model(teacher: str, digest: str, expected: str | None) -> None:
    from alignfirst.worlds.user_models.card import front_matter

    row = {"recipe": "align-distil", "algorithm": None}
    front = front_matter({"teacher": {"model": teacher}}, {"teacher": {"digest": digest}}, row, None)
    assert yaml.safe_load(front.strip("-\n")).get("base_model") == expected
