"""Wrong lines in the mixture world and in what every world shares: rows, store, statistics, plug-ins and tilt."""

from __future__ import annotations

from . import WrongLine

KERNEL = "tests/contracts/test_kernel.py::"
TRAINING = f"{KERNEL}test_training_equals_plain_numpy"
REFERENCES = f"{KERNEL}test_runs_of_one_pair_source_and_seed_keep_their_own_references"

LINES = [
    WrongLine(
        "H02",
        "yield PairBatch(batch.x, batch.logp_ref, first, labels.scale * runs.beta, s.algorithm)",
        "yield PairBatch(batch.x, batch.logp_ref, first, runs.beta, s.algorithm)",
        (TRAINING,),
        "Online preference training would ignore preferences.scale and hold to the reference with another strength.",
    ),
    WrongLine(
        "H03",
        "yield PairBatch(x, ref, first, labels.scale * runs.beta, s.algorithm)",
        "yield PairBatch(x, ref, first, runs.beta, s.algorithm)",
        (TRAINING,),
        "Offline preference training would ignore preferences.scale and hold to the reference with another strength.",
    ),
    WrongLine(
        "H04",
        "identity = [(row, source.tobytes(), reference.tobytes()) for row, source, reference in models]",
        'identity = [(row, source.tobytes(), b"") for row, source, reference in models]',
        (TRAINING, REFERENCES),
        "A run would train against the reference of another run that has the same pair source and seed.",
    ),
    WrongLine(
        "H05",
        "theta[r, p, k] = min_log_sd if (p >= LOG_SD) & (value < min_log_sd) else value",
        "theta[r, p, k] = min_log_sd if (p > LOG_SD) & (value < min_log_sd) else value",
        (f"{KERNEL}test_a_step_never_crosses_the_floor_of_the_standard_deviations",),
        "Components could collapse to a line on the first axis, below the floor that align.min_sd promises.",
    ),
    WrongLine(
        "H08",
        "kernel.sample(runs.pair_source[shared], u, z, row, x)",
        "kernel.sample(runs.reference[shared], u, z, row, x)",
        (TRAINING,),
        "Offline pairs would come from the reference, whatever model preferences.source names.",
    ),
    WrongLine(
        "H09",
        "stored[..., 4:6] = log_density(runs.reference[shared], x)",
        "stored[..., 4:6] = log_density(runs.pair_source[shared], x)",
        (TRAINING,),
        "Offline training would hold the model to its pair source in place of its reference.",
    ),
    WrongLine(
        "F04",
        "return [{name: stage[name] for name in PREDICTED} for stage in stages]",
        "return [{name: stages[-1][name] for name in PREDICTED} for stage in stages]",
        ("tests/study/test_rows.py::test_a_row_holds_the_prediction_of_its_own_stage",),
        "Every stage would show the prediction of the last one in predicted_reward and predicted_target_mass.",
    ),
    WrongLine(
        "F06",
        'return {"audit_verdict": audit_nodes.REFUSED, "audit_reason": stage.unaudited}',
        'return {"audit_verdict": "go", "audit_reason": stage.unaudited}',
        ("tests/study/test_audits.py::test_rows_of_refused_alignments_say_so_and_why",),
        "The records would say go for alignments that the audit refused to predict.",
    ),
    WrongLine(
        "A07",
        "low, high = high, 1.3 * high",
        "low, high = high, 3.0 * high",
        ("tests/theory/test_tilt.py::test_crossings_that_lie_a_third_apart_are_told_apart",),
        "The recovery threshold would be missed, and told as 0, where a rival takes the mass back soon after.",
    ),
    WrongLine(
        "D02",
        "if key not in index or entry.sha256 < index[key].sha256:",
        "if key not in index:",
        ("tests/test_store.py::test_the_same_key_with_two_contents_reads_the_same_whoever_looks",),
        "Which of two contents of a key is read would hang on names of files, not on the smallest digest as promised.",
    ),
    WrongLine(
        "B08",
        "at = np.ix_(groups, np.searchsorted(seeds, side.seeds))",
        "at = np.ix_(groups, np.arange(len(side.seeds)))",
        ("tests/stats/test_stats_summary.py::test_seeds_are_paired_by_their_numbers_where_the_recipes_have_others",),
        "Seeds would be paired by position, so differences would be taken between runs of different seeds.",
    ),
    WrongLine(
        "E07",
        'return {"kind": REWARD_FUNCTIONS.spec(kind), "plugin": str(REWARD_FUNCTIONS.origin(kind))}',
        'return {"kind": REWARD_FUNCTIONS.spec(kind)}',
        ("tests/study/test_plugins.py::test_a_reward_of_another_version_is_another_stage",),
        "After an update of a reward plug-in, stages that its old version trained would be reused as if still right.",
    ),
]

EQUIVALENT: list[tuple[str, str]] = []
