"""Wrong lines in the audit of a reference."""

from __future__ import annotations

from . import WrongLine

PROMPTS = "tests/audit/test_audit_prompts.py::"
POOLED = "tests/audit/test_audit_pooled.py::"
GUARDS = "tests/audit/test_audit_guards.py::"

LINES = [
    WrongLine(
        "C03",
        "share_interval(m0, float(per_prompt.var(ddof=1)) / draws.prompts, draws.prompts - 1)",
        "share_interval(m0, float(per_prompt.var(ddof=1)) / len(hit), draws.prompts - 1)",
        (PROMPTS + "test_intervals_over_prompts_hold_as_often_as_they_say",),
        "The interval of the reference's target mass over several prompts is several times too narrow.",
    ),
    WrongLine(
        "P01",
        "    variance = float(per_prompt.var(ddof=1)) / draws.prompts\n    return Number(m, *share",
        "    variance = float(per_prompt.var(ddof=1)) / len(w)\n    return Number(m, *share",
        (PROMPTS + "test_intervals_over_prompts_hold_as_often_as_they_say",),
        "The interval of the optimum's target mass over several prompts is several times too narrow: a wrong go.",
    ),
    WrongLine(
        "P02",
        "ess = float(np.median(1.0 / draws.total(w * w)))",
        "ess = float(np.sum(1.0 / draws.total(w * w)))",
        (
            PROMPTS + "test_the_effective_sample_size_is_that_of_the_median_prompt",
            PROMPTS + "test_a_tilt_that_collapsed_in_most_prompts_is_no_verdict",
        ),
        "With several prompts the guard against a collapsed tilt never fires.",
    ),
    WrongLine(
        "P09",
        "drawn = [np.bincount(inverse, side, len(ids))[inverse] for side in (~from_p, from_p)]",
        "drawn = [np.full(n, side.sum() / len(ids)) for side in (~from_p, from_p)]",
        (PROMPTS + "test_prompts_are_pooled_by_their_own_numbers_of_draws",),
        "Prompts with unequal numbers of draws get wrong weights, so every pooled number of the audit is wrong.",
    ),
    WrongLine(
        "C12",
        "max(OFF_BALANCE, OFF_BALANCE_WIDTHS * (total.high - total.low))",
        "max(100 * OFF_BALANCE, OFF_BALANCE_WIDTHS * (total.high - total.low))",
        (
            GUARDS + "test_weights_that_do_not_add_up_are_never_a_go",
            GUARDS + "test_the_draws_of_an_anchor_must_be_trusted_too",
        ),
        "Log-probabilities that do not belong to the draws are trusted, and a go is built on them.",
    ),
    WrongLine(
        "C10",
        "for own in (evidence,) if evidence.anchor is None else (evidence, evidence.anchor):",
        "for own in (evidence,):",
        (GUARDS + "test_the_draws_of_an_anchor_must_be_trusted_too",),
        "An anchored alignment is a go although its anchor was hardly seen to hit the target.",
    ),
    WrongLine(
        "C13",
        "if not draws.pooled and draws.hits < MIN_HITS:",
        "if not draws.pooled and draws.hits < 1:",
        (
            GUARDS + "test_nine_hits_are_never_a_go_and_ten_may_be",
            GUARDS + "test_the_draws_of_an_anchor_must_be_trusted_too",
        ),
        "A go rests on a handful of hits, whose rewards need not be those of the others.",
    ),
    WrongLine(
        "C09",
        "missed = ~draws.in_target & ~draws.teacher",
        "missed = ~draws.in_target",
        (
            POOLED + "test_the_reward_outside_the_target_is_that_of_the_references_own_misses",
            POOLED + "test_the_quality_of_hits_weighs_them_as_the_reference_draws_them",
        ),
        "Misses of the teacher count as the reference's, so the reward gap and the quality of hits are wrong.",
    ),
    WrongLine(
        "P05",
        "return float((w * draws.reward).sum() / w.sum()) if w.sum() > 0 else None",
        "return float(draws.reward[draws.in_target].mean()) if w.sum() > 0 else None",
        (
            POOLED + "test_the_quality_of_hits_weighs_them_as_the_reference_draws_them",
            POOLED + "test_what_a_hit_is_worth_is_their_weighted_mean_where_nothing_is_preferred",
        ),
        "The teacher's good hits pass for the reference's own, so diffuse hits get a go.",
    ),
    WrongLine(
        "C02",
        "return Number(m0, *share_interval(m0, variance, effective - 1))",
        "return Number(m0, *share_interval(m0, variance, 1e9))",
        (POOLED + "test_the_pooled_interval_of_the_mass_is_korn_and_graubards_on_the_effective_hits",),
        "A pooled interval that rests on a few hits is as narrow as if its variance were known.",
    ),
    WrongLine(
        "C06",
        "g_low = 0.0  # whether",
        "g_low = 1.0  # whether",
        (GUARDS + "test_without_rollouts_the_low_end_is_that_of_nothing_found",),
        "Without a number of rollouts the interval shown leaves out that training may find nothing.",
    ),
]

EQUIVALENT: list[tuple[str, str]] = []
