"""Wrong lines in language models, in the user's own data and in the report."""

from __future__ import annotations

from acceptance.wrong_lines import WrongLine

LINES = [
    WrongLine(
        "N04",
        'order = streams.generator(self.s["seed"], "rows").permutation(self.rows.side(held=False))',
        'order = streams.generator(self.s["seed"], "rows").permutation(len(self.rows.index.arrays["held"]))',
        ("tests/lm/test_own_split.py::test_held_out_prompts_are_measured_on_and_never_trained_on",),
        "Models are trained on the held-out rows that they are then measured on: held-out numbers look too good.",
    ),
    WrongLine(
        "L06",
        "own = self.rollouts.mask.T  # [L, N]",
        "own = np.ones_like(self.rollouts.mask.T)  # [L, N]",
        ("tests/lm/test_align_ends.py::test_ppos_gradient_is_that_of_the_clipped_surrogate_over_own_tokens",),
        "PPO at token level standardises over padding: where answers end early it climbs another objective.",
    ),
    WrongLine(
        "G01",
        'first=decimal(final.get((*_identity(run, p), "align-distil"))),\n'
        '        second=decimal(final.get((*_identity(run, p), "distil-align"))),',
        'first=decimal(final.get((*_identity(run, p), "distil-align"))),\n'
        '        second=decimal(final.get((*_identity(run, p), "align-distil"))),',
        ("tests/report/test_verdict.py::test_columns_of_the_key_table_are_the_two_sides_of_its_difference",),
        "The report's key table gives each order the reward of the other.",
    ),
    WrongLine(
        "G05",
        'kind = "align-distil" if all(c > 0 for c in clear) else "distil-align" if all(c < 0 for c in clear) else ""',
        'kind = "distil-align" if all(c > 0 for c in clear) else "align-distil" if all(c < 0 for c in clear) else ""',
        ("tests/report/test_verdict.py::test_the_tile_of_the_quoted_beta_marks_the_order_that_is_ahead",),
        "The report's first tile has the colour of the order that is behind.",
    ),
    WrongLine(
        "G04",
        "values[group[good], seed[good]] = as_samples(cells[good])",
        "values[group, seed] = as_samples(cells)",
        ("tests/report/test_data.py::test_theory_is_averaged_over_rows_that_are_ok",),
        "The report sets what theory says of seeds that failed against what was trained of the others.",
    ),
    WrongLine(
        "G03",
        'r = at.recipes.add(p["recipe"] or "align-distil")',
        'r = at.recipes.add(p["recipe"] or "distil-align")',
        ("tests/report/test_data.py::test_differences_stand_under_their_recipe",),
        "The report's heatmap shows the differences between the two orders under the wrong recipe.",
    ),
]

EQUIVALENT = [
    (
        "G04 in the payload",
        "the statistics carry every theory column, and runs of another schema are refused: its own mean is never taken",
    ),
]
