"""Presets, files that extend them, and keys set on top as on the command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from alignfirst.errors import InputError
from alignfirst.study.config import preset_files
from alignfirst.study.config.recipe import RECIPES

EXPECTED = {
    "mog", "mog-uniform", "mog-two-rare", "mog-noisy", "mog-boundary", "mog-budget", "mog-mitigations", "mog-quick",
    "grammar", "grammar-rare", "grammar-common", "grammar-prompts", "grammar-budget", "grammar-distil", "grammar-quick",
    "smollm2", "smollm2-cpu", "smollm2-tiny", "hf-dpo", "hf-grpo",
}  # fmt: skip
ONE_SEED = {"smollm2-cpu", "smollm2-tiny", "hf-dpo", "hf-grpo"}  # their pages say what one seed shows


def test_every_preset_is_a_described_study_under_its_own_name() -> None:
    assert set(preset_files.names()) == EXPECTED
    for name in preset_files.names():
        config = preset_files.load(name)
        assert (config.name, config.preset) == (name, name)
        assert config.description
        assert len(config.seed_list) >= 5 or name in ONE_SEED, "fewer seeds have no interval"


def test_presets_ask_what_they_are_for() -> None:
    mog = preset_files.load("mog")
    assert mog.value("p_star.weights") == [0.2, 0.06, 0.2, 0.06, 0.2, 0.2, 0.06, 0.02]
    assert len(set(preset_files.load("mog-uniform").value("p_star.weights"))) == 1
    assert preset_files.load("mog-two-rare").value("p_star.targets") == [[-1, -1], [1, 1]]
    assert preset_files.load("mog-noisy").vary == {"preferences.flip": (0.0, 0.1, 0.2, 0.3, 0.4)}
    assert set(preset_files.load("mog-boundary").vary) == {"distil.selectivity", "distil.components", "p_star.weights"}
    assert preset_files.load("mog-budget").vary["align.updates"] == (600, 2400)
    assert set(preset_files.load("mog-mitigations").recipes) == set(RECIPES)
    assert mog.with_values({"name": "study", "preset": "study", "description": ""}) == preset_files.load({})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("align.updates=100", ("align.updates", 100)),
        ("align.learning_rate=1e-5", ("align.learning_rate", 1e-5)),
        ("beta=0.1,0.3", ("beta", [0.1, 0.3])),
        ("beta=[0.1, 0.3]", ("beta", [0.1, 0.3])),
        ("algorithms=ppo,rloo", ("algorithms", ["ppo", "rloo"])),
        ("p_star.targets=[[1, 1], [0, 1]]", ("p_star.targets", [[1, 1], [0, 1]])),
        ("description=a=b, c", ("description", "a=b, c")),
        ("seeds = 3", ("seeds", 3)),
    ],
)
def test_set(text: str, expected: tuple[str, Any]) -> None:
    assert preset_files.parse_set(text) == expected


@pytest.mark.parametrize(
    "text", ["beta", "=1", "beta=[", "beta=*a", "beta=!x 1", "beta=\udcff", "a.b.c=1", "vary=1", "vary.x=1"]
)
def test_a_bad_set_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        preset_files.load("mog", [text])


def test_set_varies_a_key_of_one_value() -> None:
    config = preset_files.load("mog-quick", ["distil.components=2,4", "seeds=5,6"])
    assert (config.vary, config.seed_list) == ({"distil.components": (2, 4)}, (5, 6))


def test_a_file_extends_a_preset_or_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("extends: mog-boundary\nname: base\ndescription: base\nbeta: 0.3\n")
    (tmp_path / "my study.yaml").write_text("extends: base.yaml\ndistil: {selectivity: 1}\n")
    config = preset_files.load(tmp_path / "my study.yaml")
    assert (config.name, config.preset, config.description) == ("my-study", "mog-boundary", "")
    assert config.beta == (0.3,)
    assert set(config.vary) == {"distil.components", "p_star.weights"}
    assert preset_files.load(str(tmp_path / "base.yaml")).name == "base"


def test_a_file_alone_has_the_defaults_and_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("beta: 0.3\n")
    config = preset_files.load(tmp_path / "mine.yaml")
    assert (config.name, config.preset, config.value("align.updates")) == ("mine", "mine", 600)


def test_data_may_extend_a_preset() -> None:
    config = preset_files.load({"extends": "mog-quick", "seeds": 6, "name": "x"}, {"beta": 0.2})
    assert (config.preset, config.name, config.seeds, config.beta) == ("mog-quick", "x", 6, (0.2,))


def test_refusals_name_the_file_and_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("extends: loop.yaml\n")
    (tmp_path / "typo.yaml").write_text("extends: mog\nbta: 0.1\n")
    (tmp_path / "list.yaml").write_text("extends: [mog]\n")
    cases = {
        "mgo": "Did you mean mog?",
        "mog_quick": "Did you mean mog-quick?",
        str(tmp_path / "loop.yaml"): "a circle",
        str(tmp_path / "typo.yaml"): "typo.yaml: every key must be a known one, got bta. Did you mean beta?",
        str(tmp_path / "list.yaml"): "extends must name a preset or a file",
        str(tmp_path / "none.yaml"): "No such file",
        str(tmp_path): "Is a directory",
        "a\0b": "must be a preset or a YAML file",
        "a\0b.yaml": "must be readable",
        "x" * 5000: "must be a preset or a YAML file",
    }
    for source, words in cases.items():
        with pytest.raises(InputError, match=re.escape(words)):
            preset_files.load(source)
