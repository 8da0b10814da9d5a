"""The mixture world: node identity, measurements against Monte Carlo, recipes, labels and annotators."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from alignfirst import worlds
from alignfirst.nodes import Artefact, Failure, Node
from alignfirst.study.config.preset_files import load
from alignfirst.worlds.mog.measure import Gauge
from alignfirst.worlds.mog.mixture import MODES, Mixture, p_star, p_target, target_radius
from alignfirst.worlds.mog.reward import Labels, Oracle

WORLD = worlds.get("mog")
SMALL = {"sft.samples": 2000, "sft.restarts": 1, "distil.samples": 1000, "distil.restarts": 1, "align.updates": 40}
CONFIG = load("mog-quick", SMALL)
MEASURE = WORLD.settings("measure", CONFIG, beta=0.1, algorithm="reinforce")


def align_settings(config, algorithm, **changes):
    context = {"seed": 0, "algorithm": algorithm, "beta": 0.1, "updates": 1.0, "occurrence": 0}
    return WORLD.settings("align", config, **context | changes)


class Chain:
    """Runs nodes one by one or together, keeping artefacts."""

    def __init__(self, config=CONFIG):
        self.config, self.store = config, {}

    def do(self, *nodes):
        for node, outcome in zip(nodes, WORLD.run(nodes, self.store.__getitem__), strict=True):
            assert isinstance(outcome, Artefact), outcome
            self.store[node.key] = outcome
        return nodes[0] if len(nodes) == 1 else nodes

    def sft(self, seed=0):
        return self.do(Node("sft", WORLD.settings("sft", self.config, seed=seed)))

    def distil(self, teacher, seed=0, rehearsed=False):
        settings = WORLD.settings("distil", self.config, seed=seed, rehearsed=rehearsed, occurrence=0)
        return self.do(Node("distil", settings, {"teacher": teacher.key}))

    def align_node(self, start, algorithm="reinforce", reference=None, **changes):
        inputs = {"initial": start.key, "reference": (reference or start).key, "pairs": start.key}
        return Node("align", align_settings(self.config, algorithm, **changes), inputs)

    def theta(self, node):
        return self.store[node.key].arrays["theta"]


@pytest.mark.parametrize(
    ("changed", "algorithm", "same"),
    [
        ({"preferences.flip": 0.2}, "reinforce", True),
        ({"preferences.flip": 0.2}, "dpo-offline", False),
        ({"preferences.pairs": 512}, "dpo-online", True),
        ({"preferences.pairs": 512}, "dpo-offline", False),
        ({"align.ppo_epochs": 2}, "grpo", True),
        ({"align.ppo_epochs": 2}, "ppo", False),
        ({"align.group_size": 4}, "dpo-online", True),
        ({"align.group_size": 4}, "rloo", False),
        ({"distil.samples": 900}, "reinforce", True),
        ({"reward.width": 0.3}, "reinforce", False),
        ({"seeds": 9}, "reinforce", True),
    ],
)
def test_a_stage_is_identified_by_what_changes_its_output(changed, algorithm, same):
    other = load("mog-quick", SMALL | changed)
    assert (align_settings(CONFIG, algorithm) == align_settings(other, algorithm)) is same


def test_measurements_agree_with_monte_carlo():
    """Means over samples of the model and of p_target, within 5 standard errors."""
    rng, n = np.random.default_rng(0), 400_000
    model = Mixture(np.array([0.5, 0.3, 0.2]), np.array([[1, 0.9], [-0.5, 0], [0, -1]]), np.full((3, 2), 0.3))
    sft = Mixture(np.array([0.6, 0.4]), np.array([[0.5, 0.5], [-0.5, -0.5]]), np.full((2, 2), 0.6))
    gauge = Gauge(MEASURE)
    reference = gauge.reference("sft", sft)
    found = gauge.describe(model, reference, reference)

    def draw(m):
        k = rng.choice(len(m.weights), n, p=m.weights)
        return m.means[k] + m.sds[k] * rng.normal(size=(n, 2))

    def density(m, x):
        z = (x[:, None] - m.means) / m.sds
        return np.log((m.weights * np.exp(-0.5 * (z**2).sum(-1)) / (2 * np.pi * m.sds.prod(-1))).sum(-1))

    def check(name, values):
        assert found[name] == pytest.approx(values.mean(), abs=5 * values.std() / np.sqrt(n)), name

    x, truth = draw(model), MEASURE["p_star"]
    target, star = p_target(truth), p_star(truth)
    reward = np.exp(-((x - 1) ** 2).sum(-1) / (2 * 0.25**2))
    check("reward", reward)
    assert found["reward_sd"] == pytest.approx(reward.std(), rel=0.01)
    check("target_mass", (((x - 1) ** 2).sum(-1) <= target_radius(truth) ** 2).astype(float))
    check("target_precision", density(target, x))
    check("kl_to_sft", density(model, x) - density(sft, x))
    check("kl_to_reference", density(model, x) - density(sft, x))
    y = draw(target)
    check("target_recall", density(model, y))
    for size in (10, 100, 1000):
        covered = density(target, y) - density(model, y) <= np.log(size)
        assert found["coverage"][str(size)] == pytest.approx(covered.mean(), abs=0.01)
    z = draw(star)
    check("overall_recall", density(model, z))


def test_kl_to_the_optimum_is_zero_at_the_optimum_of_a_flat_reward():
    flat = Gauge(MEASURE | {"oracle": MEASURE["oracle"] | {"width": 1e3}})
    sft = flat.reference("sft", p_star(MEASURE["p_star"]))
    found = flat.describe(sft.model, sft, sft)
    exact = flat.against_optimum(found, sft, 0.1, 1000)
    assert exact["kl_to_optimum"] == pytest.approx(0, abs=1e-6)
    assert exact["exact_reward"] == pytest.approx(found["reward"])


def test_a_model_that_wandered_off_is_measured_all_the_same():
    """A component beyond every grid: closed forms for its part."""
    sd, far = 0.5, 40.0
    model = Mixture(np.array([0.25, 0.75]), np.array([[1.0, 1.0], [far, 0.0]]), np.array([[0.1, 0.1], [sd, sd]]))
    gauge = Gauge(MEASURE)
    sft = gauge.reference("sft", Mixture(np.ones(1), np.zeros((1, 2)), np.ones((1, 2))))
    found = gauge.describe(model, sft, None)
    near = gauge.describe(Mixture(np.ones(1), model.means[:1], model.sds[:1]), sft, None)
    assert found["reward"] == pytest.approx(0.25 * near["reward"], rel=1e-3)
    assert found["target_mass"] == pytest.approx(0.25 * near["target_mass"], rel=1e-3)
    variance = MEASURE["p_star"]["variance"]
    beyond = -np.log(2 * np.pi * variance) - ((far - 1) ** 2 + 1 + 2 * sd**2) / (2 * variance)
    expected = 0.25 * near["target_precision"] + 0.75 * beyond
    assert found["target_precision"] == pytest.approx(expected, rel=1e-4)
    kl_far = -np.log(sd**2) + ((far**2 + 2 * sd**2) - 2) / 2
    assert found["kl_to_sft"] == pytest.approx(
        0.25 * near["kl_to_sft"] + 0.75 * kl_far + entropy_of((0.25, 0.75)), rel=1e-4
    )


def entropy_of(weights):
    """Minus the entropy of well separated weights: what mixing adds to a KL."""
    return sum(w * np.log(w) for w in weights)


def test_both_orders_end_in_students_of_one_size():
    chain = Chain()
    sft = chain.sft()
    aligned = chain.do(chain.align_node(sft))
    student = chain.distil(sft)
    ends = chain.theta(chain.distil(aligned)), chain.theta(chain.do(chain.align_node(student)))
    assert ends[0].shape == ends[1].shape == (5, CONFIG.distil.components)


def test_nodes_of_several_sizes_can_share_a_call():
    chain = Chain()
    sft = chain.sft()
    student = chain.distil(sft)
    nodes = [chain.align_node(start, beta=b) for start in (sft, student) for b in (0.1, 0.3)]
    assert len({WORLD.group(n) for n in nodes}) == 1
    chain.do(*nodes)
    alone = Chain()
    alone.store |= {sft.key: chain.store[sft.key], student.key: chain.store[student.key]}
    for node in nodes:
        alone.do(node)
        assert alone.theta(node).tobytes() == chain.theta(node).tobytes()


def test_an_anchored_student_keeps_its_own_start():
    chain = Chain()
    sft = chain.sft()
    student = chain.distil(sft)
    own, anchored = chain.align_node(student), chain.align_node(student, reference=sft)
    chain.do(own)
    chain.do(anchored)
    assert own.key != anchored.key
    assert not np.array_equal(chain.theta(own), chain.theta(anchored))


def test_rehearsal_brings_target_samples_into_the_student():
    chain = Chain(load("mog-quick", SMALL | {"distil.rehearsal": 0.3}))
    sft = chain.sft()
    gauge = Gauge(MEASURE)
    reference = gauge.reference("sft", Mixture.of_theta(chain.theta(sft)))
    mass = [
        gauge.describe(Mixture.of_theta(chain.theta(chain.distil(sft, rehearsed=r))), reference, None)["target_mass"]
        for r in (False, True)
    ]
    assert mass[1] > mass[0] + 0.1


def test_a_second_align_draws_other_noise():
    chain = Chain()
    sft = chain.sft()
    first, second = chain.align_node(sft), chain.align_node(sft, occurrence=1)
    chain.do(first)
    chain.do(second)
    assert not np.array_equal(chain.theta(first), chain.theta(second))


def test_a_diverging_run_fails_alone_with_its_reason():
    chain = Chain(load("mog-quick", SMALL))
    sft, bad = chain.sft(), chain.sft(seed=1)
    broken = chain.store[bad.key].arrays["theta"].copy()
    broken[1, 0] = np.inf
    chain.store[bad.key] = dataclasses.replace(chain.store[bad.key], arrays={"theta": broken})
    outcomes = WORLD.run([chain.align_node(sft), chain.align_node(bad, seed=1)], chain.store.__getitem__)
    assert isinstance(outcomes[0], Artefact)
    assert isinstance(outcomes[1], Failure) and "align.learning_rate" in outcomes[1].reason


def test_hard_labels_record_no_optimum():
    hard = load("mog-quick", {"preferences.labels": "hard"})
    assert WORLD.settings("measure", hard, beta=0.1, algorithm="dpo-offline")["beta"] is None
    assert WORLD.settings("measure", hard, beta=0.1, algorithm="reinforce")["beta"] == 0.1


def pairs_of_points(n):
    """First members at the first target, second members at the second one, far from each other."""
    x = np.empty((1, 2, 2 * n), np.float32)
    x[0, :, :n], x[0, :, n:] = 1.0, -1.0
    return x


@pytest.mark.parametrize(
    ("kind", "flip", "expected"), [("hard", 0.0, 1.0), ("hard", 0.2, 0.8), ("bradley-terry", 0.1, None)]
)
def test_labels_have_their_probability(kind, flip, expected):
    n, u = 100_000, np.random.default_rng(1).random((1, 2, 100_000), dtype=np.float32)
    oracle = Oracle((np.array([[1.0, 1.0]], np.float32),), np.ones(1), 0.25)
    won = Labels(kind, 1.0, flip).first_preferred(oracle.each(pairs_of_points(n)), oracle, u).mean()
    if expected is None:
        expected = flip + (1 - 2 * flip) / (1 + np.exp(-1.0))
    assert won == pytest.approx(expected, abs=5 * np.sqrt(0.25 / n))


def test_annotators_share_pairs_by_weight_and_rewards_by_mean():
    targets = (np.array([[1.0, 1.0]], np.float32), np.array([[-1.0, -1.0]], np.float32))
    oracle = Oracle(targets, np.array([0.7, 0.3]), 0.25)
    n, x = 100_000, pairs_of_points(100_000)
    u = np.random.default_rng(2).random((1, 2, n), dtype=np.float32)
    won = Labels("hard", 1.0, 0.0).first_preferred(oracle.each(x), oracle, u).mean()
    assert won == pytest.approx(0.7, abs=5 * np.sqrt(0.21 / n))
    np.testing.assert_allclose(oracle(x)[0, [0, -1]], [0.7, 0.3], atol=1e-6)


def test_modes_are_in_the_order_of_the_study():
    assert MODES == ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
