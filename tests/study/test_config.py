"""Configs: defaults, keys set and varied, round trips, and refusals that say rule, value and cure."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignfirst.errors import InputError
from alignfirst.study.config import preset_files, yaml_io
from alignfirst.study.config.mog_sections import MODES
from alignfirst.study.config.overrides import depths
from alignfirst.study.config.recipe import RECIPES
from alignfirst.study.config.study_config import StudyConfig, from_mapping, from_mappings
from alignfirst.study.config.validation import keys, nearest
from alignfirst.theory.objectives import ALGORITHMS

MOG = from_mapping({})
KEYS = keys(type(MOG))


def refusal(data: Any) -> str:
    with pytest.raises(InputError) as caught:
        from_mapping(data)
    return str(caught.value)


def test_defaults_are_those_of_the_glossary() -> None:
    assert (MOG.recipes, MOG.seeds, MOG.world) == (("align-distil", "distil-align"), 20, "mog")
    assert MOG.beta == (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)
    assert set(MOG.algorithms) == set(ALGORITHMS)
    assert MOG.value("distil.selectivity") == 3.0
    assert MOG.value("p_star.targets") == [[1.0, 1.0]]
    assert MODES == ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


def test_mode_points_are_those_of_the_world() -> None:
    from alignfirst.worlds.mog import mixture

    assert mixture.MODES == MODES


def test_every_registered_recipe_and_algorithm_is_accepted() -> None:
    config = from_mapping({"recipes": list(RECIPES), "algorithms": list(ALGORITHMS)})
    assert config.recipes == tuple(RECIPES)
    assert from_mapping({"recipes": "all", "algorithms": "all"}) == config


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"beta": 0}, "beta must be > 0, got 0: the optimum ignores the reference. For a near-greedy policy use 1e-3."),
        ({"beta": [0.1, -1.0]}, "beta must be > 0, got -1"),
        ({"beta": [0.1, math.nan]}, "beta[1] must be a finite number, got nan"),
        ({"beta": math.inf}, "must be a finite number"),
        ({"beta": []}, "beta must have at least one value"),
        ({"beta": [0.1, 0.1]}, "beta must name each value once, got 0.1"),
        ({"beta": True}, "must be a number, got True"),
        ({"beta": "0.1"}, "must be a number, got the text '0.1'"),
        ({"recipes": []}, "recipes must have at least one value"),
        ({"recipes": ["align-distill"]}, "Did you mean align-distil?"),
        ({"algorithms": "pp0"}, "Did you mean ppo?"),
        ({"seeds": 0}, "seeds must be a count from 1"),
        ({"seeds": [1, 1]}, "seeds must name each seed once"),
        ({"seeds": [-1]}, "seeds must be whole numbers from 0"),
        ({"seeds": []}, "seeds must have at least one seed"),
        ({"seeds": 2.0}, "seeds must be a count"),
        ({"selectivty": 1}, "every key must be a known one, got selectivty. Did you mean distil.selectivity?"),
        ({"distil": {"selectivty": 1}}, "got distil.selectivty. Did you mean distil.selectivity?"),
        ({"aling": {"updates": 1}}, "Did you mean align?"),
        ({"world": "mgo"}, "Did you mean mog?"),
        ({"distil": 3}, "distil must be a mapping"),
        ({"distil": {"selectivity": 0}}, "distil.selectivity must be > 0, got 0"),
        ({"distil": {"components": 0}}, "distil.components must be >= 1"),
        ({"distil": {"components": 5.5}}, "distil.components must be a whole number"),
        ({"sft": {"components": 20, "samples": 10}}, "sft.components must be at most sft.samples (10), got 20"),
        ({"align": {"samples": 255}}, "align.samples must be even, got 255"),
        ({"align": {"group_size": 7}}, "align.group_size must divide align.samples (256), got 7"),
        ({"align": {"group_size": 1}}, "align.group_size must be >= 2"),
        ({"align": {"reference": "p_star"}}, "must be one of 'start' or 'sft', got p_star"),
        ({"align": {"updates": 3}, "recipes": "align-distil-align"}, "every align stage at least one update"),
        ({"p_star": {"weights": [0.5, 0.5]}}, "p_star.weights must be 8 numbers, got 2"),
        ({"p_star": {"weights": [-1, 1, 1, 1, 1, 1, 1, 1]}}, "p_star.weights must be between 0 and 1e6"),
        ({"p_star": {"weights": [0] * 8}}, "p_star.weights must have a positive sum"),
        ({"p_star": {"weights": [1] * 7 + [0]}}, "must give every target at least 1e-6"),
        ({"p_star": {"targets": [[0, 0]]}}, "must be one of the mode points, got [0.0, 0.0]. Choose from [-1, -1]"),
        ({"p_star": {"targets": [1, 1]}}, "must be a list, got 1"),
        ({"p_star": {"targets": []}}, "p_star.targets must have at least one value"),
        ({"preferences": {"flip": 0.5}}, "preferences.flip must be < 0.5, got 0.5"),
        ({"preferences": {"flip": -0.1}}, "preferences.flip must be >= 0"),
        ({"preferences": {"annotators": [{"targets": [[1, 1]], "weight": 0}]}}, "weights with a positive sum"),
        ({"distil": {"rehearsal": 0}, "recipes": "distil-align-rehearsed"}, "mix in at least one example"),
        ({"vary": {"beta": [0.1]}}, "vary must not name an axis, got beta. Put the list under beta: itself."),
        ({"vary": {"distil.selectivty": [1]}}, "Did you mean distil.selectivity?"),
        ({"vary": {"distil.selectivity": []}}, "vary.distil.selectivity must be a list of at least one value"),
        ({"vary": {"distil.selectivity": [1, 1.0]}}, "vary.distil.selectivity must name each value once"),
        ({"vary": {"distil.selectivity": [1, -1]}}, "distil.selectivity must be > 0, got -1"),
        ({"vary": {"align.updates": list(range(1, 200)), "sft.samples": list(range(50, 200))}}, "10000 combinations"),
        ({"vary": 3}, "vary must map dotted keys"),
        ({"seeds": 100_000}, "a study must have at most 1000000 cells"),
        ({"distil.selectivity": 1, "distil": {"selectivity": 2}}, "a key must be given once"),
        ({"description": "two\nlines"}, "one line of printable text"),
        ({"beta": 10**400}, "beta must fit 64 bits"),
        ({"beta": object()}, "beta must be plain data, got object"),
        ({1: 2}, "keys must be text"),
    ],
)
def test_refused_with_rule_value_and_cure(data: Any, words: str) -> None:
    assert words in refusal(data)


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "..", ".hidden", "a\0b", "", "nul", "COM1.txt", "x" * 65, "a b", "é", 3]
)
def test_a_name_that_cannot_name_a_folder_is_refused(name: Any) -> None:
    assert refusal({"name": name}).startswith("name must")


@pytest.mark.parametrize("name", ["a", "my-study", "x" * 64, "2026.11", "A_b"])
def test_plain_names_are_accepted(name: str) -> None:
    assert from_mapping({"name": name}).name == name


def test_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        MOG.seeds = 3


def test_one_value_stands_for_a_list_of_one() -> None:
    config = MOG.with_values({"beta": 0.3, "algorithms": "ppo", "recipes": "align-only", "seeds": [7]})
    assert (config.beta, config.algorithms, config.recipes, config.seed_list) == (
        (0.3,),
        ("ppo",),
        ("align-only",),
        (7,),
    )
    assert MOG.with_values({"seeds": 3}).seed_list == (0, 1, 2)


def test_a_list_for_a_key_of_one_value_varies_it_and_one_value_ends_that() -> None:
    varied = MOG.with_values({"distil.selectivity": [1, 2], "p_star.targets": [[[1, 1]], [[0, 1], [1, 0]]]})
    assert varied.vary == {"distil.selectivity": (1.0, 2.0), "p_star.targets": ([[1.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]])}
    assert [p["distil.selectivity"] for p in varied.points] == [1.0, 1.0, 2.0, 2.0]
    at_point = varied.with_values(varied.points[-1])
    assert at_point.vary == {}
    assert at_point.value("p_star.targets") == [[0.0, 1.0], [1.0, 0.0]]
    assert MOG.points == [{}]


def test_a_list_that_is_one_value_is_not_varied() -> None:
    assert MOG.with_values({"p_star.weights": [1] * 8}).vary == {}
    annotators = [{"targets": [[1, 1]], "weight": 2}, {"targets": [[0, 1]], "weight": 1}]
    assert MOG.with_values({"preferences.annotators": annotators}).vary == {}
    varied = MOG.with_values({"preferences.annotators": [[], annotators]})
    assert [len(v) for v in varied.vary["preferences.annotators"]] == [0, 2]


def test_combinations_are_checked_as_combinations() -> None:
    both = {"align.samples": [60, 120], "align.group_size": [10, 12]}  # neither base value fits the other's
    assert len(MOG.with_values(both).points) == 4
    with pytest.raises(InputError, match="divide"):
        MOG.with_values({"align.samples": [60, 64], "align.group_size": [10, 12]})


def test_resolved_is_plain_complete_and_read_back() -> None:
    for config in (MOG, *map(preset_files.load, preset_files.names())):
        data = config.resolved()
        assert from_mapping(data) == config
        assert yaml_io.loads(yaml_io.dumps(data)) == data
        assert set(keys(type(config))) == {*data, *(f"{k}.{i}" for k in data if k != "vary" for i in _inner(data[k]))}


def _inner(value: Any) -> list[str]:
    if not isinstance(value, dict):
        return []
    return [*value, *(f"{key}.{name}" for key, inner in value.items() for name in _inner(inner))]


def test_no_minus_zero_splits_a_key_in_two() -> None:
    config = MOG.with_values({"p_star.targets": [[-0.0, 1]], "preferences.flip": -0.0})
    assert math.copysign(1, config.value("p_star.targets")[0][0]) == 1
    assert math.copysign(1, config.value("preferences.flip")) == 1


def test_numpy_values_are_taken() -> None:
    import numpy as np

    config = MOG.with_values({"beta": np.array([0.1, 0.2]), "align.updates": np.int64(5)})
    assert (config.beta, config.value("align.updates")) == ((0.1, 0.2), 5)


def test_layers_merge_sections_and_replace_keys() -> None:
    config = from_mappings(
        {"distil": {"selectivity": [1, 2], "components": 8}, "beta": [0.1, 0.2]},
        {"distil": {"selectivity": 5}, "beta": 0.3, "vary": {"align.updates": [1, 2]}},
    )
    assert (config.value("distil.selectivity"), config.value("distil.components"), config.beta) == (5.0, 8, (0.3,))
    assert config.vary == {"align.updates": (1, 2)}


def test_nearest_by_last_part_and_by_whole() -> None:
    assert nearest("selectivity", KEYS) == "distil.selectivity"
    assert nearest("learning-rate", KEYS) == "align.learning_rate"
    assert nearest("p_star.weight", KEYS) == "p_star.weights"
    assert nearest("zzzzqqq", KEYS) is None


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.sampled_from([*RECIPES, *ALGORITHMS])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=8,
)
NAMES = st.one_of(st.sampled_from(KEYS), st.text(max_size=10), st.sampled_from(KEYS).map(lambda k: "vary." + k))


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_any_data_is_a_study_or_an_input_error(data: dict[str, Any]) -> None:
    try:
        config = from_mapping(data)
    except InputError as e:
        assert e.rule and e.cure and str(e).isprintable()
        return
    assert from_mapping(config.resolved()) == config


@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_any_key_and_value_set_is_a_study_or_an_input_error(values: dict[str, Any]) -> None:
    try:
        config = MOG.with_values(values)
    except InputError as e:
        assert e.rule and e.cure and str(e).isprintable()
        return
    assert isinstance(config, StudyConfig)


def _around(key: str) -> st.SearchStrategy[Any]:
    default = MOG.value(key)
    if isinstance(default, int):
        return st.integers(-3, 3 * default + 3)
    if isinstance(default, float):
        return st.floats(-1, 4 * default + 1)
    return VALUES


@given(st.sampled_from(sorted(depths(type(MOG)))).flatmap(lambda k: st.tuples(st.just(k), _around(k))))
def test_values_near_the_defaults(pair: tuple[str, Any]) -> None:
    key, value = pair
    try:
        config = MOG.with_values({key: value})
    except InputError as e:
        assert key.partition(".")[0] in str(e)
        return
    assert config.value(key) == value or key in config.vary or isinstance(value, list)
