"""One line is one line: a thing is added where docs/architecture.md "Adding things" says, and nothing else changes.

Each test makes a copy of the checkout, adds one thing, and runs there what it must not break and what it must do.
`acceptance/house_3.py` prints the lines that each took.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from extended_checkout import ExtendedCheckout

RECIPES, CLAIMS = "src/alignfirst/study/config/recipe.py", "src/alignfirst/stats/claims.py"
NOT_YET = "not architecture"  # the page is redrawn when every room is in its place


@pytest.fixture
def checkout(tmp_path: Path, record_property: Callable[[str, object], None]) -> Iterator[ExtendedCheckout]:
    """A copy of the checkout; what was added to it is noted for `acceptance/house_3.py`."""
    copy = ExtendedCheckout(tmp_path / "checkout")
    assert copy.check("import alignfirst; print(alignfirst.__file__)").startswith(str(copy.folder))
    yield copy
    for file, lines in copy.edits().items():
        record_property(file, lines)


def test_a_recipe(checkout: ExtendedCheckout) -> None:
    checkout.add_below(RECIPES, '"distil-only"', '    "distil-align-distil": (DISTIL, ALIGN, DISTIL),')
    checkout.add_below("docs/science.md", "| `distil-only`", "| `distil-align-distil` | distil, align, distil |")
    checkout.tests(
        "tests/docs",
        "tests/study/test_plan.py",
        "tests/report/test_variants.py",
        chosen=f"{NOT_YET} and not two_orders",
    )


def test_b_claim(checkout: ExtendedCheckout) -> None:
    words = "Aligning first ends with more of the target"
    claim = f'    Claim("higher-mass", "{words}", "target_mass", 1, "difference", 0.05),'
    row = f"| `higher-mass` | {words} | mean of paired differences in `target_mass` | > 0 | 0.05 |"
    checkout.replace(CLAIMS, "    ),\n)\n\nTESTS", f"    ),\n{claim}\n)\n\nTESTS")
    checkout.add_below("docs/statistics.md", "| `lower-spread-over-samples`", row)
    summary = "tests/stats/test_stats_summary.py::test_the_default_study_takes_less_than_a_second"
    checkout.tests("tests/docs", "tests/stats/test_stats_claims.py", summary, chosen=NOT_YET)
