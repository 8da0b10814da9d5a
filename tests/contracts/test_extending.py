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

from alignfirst.records import SCHEMA_VERSION

RECIPES, CLAIMS = "src/alignfirst/study/config/recipe.py", "src/alignfirst/stats/claims.py"
SECTIONS, PALETTE = "src/alignfirst/report/sections.yaml", "src/alignfirst/report/palette.py"
READING, PLOTS = "docs/reading-the-report.md", "src/alignfirst/report/static_figures/plots.py"
SUMMARY = "tests/stats/test_stats_summary.py::test_the_default_study_takes_less_than_a_second"
FILTERS = "src/alignfirst/theory/drawing_filters.py"
SMALL = ("seeds=2", "beta=0.1", "align.updates=20")


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
        chosen="not two_orders",
    )


def test_b_claim(checkout: ExtendedCheckout) -> None:
    words = "Aligning first ends with more of the target"
    claim = f'    Claim("higher-mass", "{words}", "target_mass", 1, "difference", 0.05),'
    row = f"| `higher-mass` | {words} | mean of paired differences in `target_mass` | > 0 | 0.05 |"
    checkout.replace(CLAIMS, "    ),\n)\n\nTESTS", f"    ),\n{claim}\n)\n\nTESTS")
    checkout.add_below("docs/statistics.md", "| `lower-spread-over-samples`", row)
    checkout.tests("tests/docs", "tests/stats/test_stats_claims.py", SUMMARY)


PAGE = "tests/report/test_html.py"
STATIC = "tests/report/test_figures.py::test_figures_are_complete_undated_and_the_same_bytes_again"
SECTION = """- id: wells
  name: Wells
  question: Where are the wells?
  lead: One mark a mode.
  when: mixtures
  figures: [wells]
"""
SCRIPT = """// One mark a mode of the chosen model.
FIGURES.wells = { deps: [], draw: (element) => element.replaceChildren(EXHIBIT.models.length) };
"""
PLOT = '''def wells(s: Selection) -> Drawing | None:
    """One mark a mode of p_star; None where the exhibits are no mixtures."""
    if s.run.exhibits.get("kind") != "mixture":
        return None
    figure = Figure(figsize=(4, 3))
    figure.subplots().plot(*np.array(s.run.exhibits["p_star"]["means"]).T, "o")
    return figure, s.words


'''
SHOWN = """
import sys
from pathlib import Path
sys.path.insert(0, "tests/report")
import synthetic, synthetic_text
from alignfirst.report import build
small = synthetic.Spec(algorithms=("grpo",), betas=(0.1, 0.3), seeds=5)
for name, world, there in (("mixture", None, True), ("text", synthetic_text.TextSpec(), False)):
    run = synthetic.write(Path(name), small, world)
    page, summary = build(run).read_text(), (run / "summary.md").read_text()
"""


def test_e_figure_of_one_world(checkout: ExtendedCheckout) -> None:
    """A section of the page with the script that draws it, and the static figure of the same name."""
    checkout.replace(SECTIONS, "- id: frontier\n", f"{SECTION}- id: frontier\n")
    checkout.add_file("src/alignfirst/report/static/figures/wells.js", SCRIPT)
    checkout.replace(PLOTS, "# File name of a figure", f"{PLOT}# File name of a figure")
    checkout.add_below(PLOTS, '"seeds": (', '    "wells": ("Where are the wells?", wells),')
    checkout.replace(READING, "## Reward and KL", "## Wells\n\nOne mark a mode.\n\n## Reward and KL")
    shown = [
        "assert there == ('href=\"#wells\">Wells<' in page) == ('data-figure=\"wells\"' in page)",
        "assert 'FIGURES.wells = {' in page and 'One mark a mode.</p>' in page or not there",
        "assert there == ('figures/wells.svg' in summary) == (run / 'figures' / 'wells.png').exists()",
    ]
    checkout.check(SHOWN + "".join(f"    {line}\n" for line in shown))
    checkout.tests("tests/docs", f"{PAGE}::test_every_figure_has_a_place_for_its_table", STATIC)


def test_f_colour_of_a_recipe(checkout: ExtendedCheckout) -> None:
    """Another colour in one line: in the style sheet, the scripts, the static figures and every caption."""
    checkout.replace(PALETTE, '"align-distil": Look(BLUE,', '"align-distil": Look(GREEN,')
    shown = [
        "import json, re",
        "data = json.loads(re.search(r'id=\"payload\">(.*?)</script>', page, re.S)[1])",
        "look = next(r['look'] for r in data['recipes'] if r['name'] == 'align-distil')",
        "assert look['word'] == data['words']['colours']['align-distil'] == 'green' and look['light'] == '#12805c'",
        "assert '--align-distil:#12805c;' in page and '--align-distil:#0a66ad;' not in page",
        "svg = (run / 'figures' / 'order-reward.svg').read_text()",
        "assert 'Green: aligning first is ahead.' in svg and 'Blue' not in svg",
        "assert '#12805c' in (run / 'figures' / 'seeds.svg').read_text()",
    ]
    checkout.check(SHOWN + "".join(f"    {line}\n" for line in shown))
    checkout.tests(STATIC, "tests/report/test_constants.py", chosen="complete or colour")


SIMPO = '''def simpo(winner: Answers, loser: Answers, b: Any) -> tuple[Array, Array]:
    """Meng et al. 2024, eq. 6: +-b sigmoid(b / 2 - b m) / N a token, m the margin of mean log-probabilities."""
    c = b * sigmoid(b / 2 - b * (winner.logp / winner.length - loser.logp / loser.length)) / winner.logp.shape[-1]
    return c / winner.length, -c / loser.length


def simpo_objective(winner: Answers, loser: Answers, b: Any) -> Array:
    """mean log sigmoid(b m - b / 2)."""
    m = winner.logp / winner.length - loser.logp / loser.length
    return np.asarray(log_expit(b * m - b / 2).mean(-1))


'''
SOURCE = "Meng et al. 2024, arXiv 2405.14734"
SIMPO_LINE = f"""        Algorithm(
            "simpo", "pairs-offline", simpo, "{SOURCE}", objective=simpo_objective, reference=False
        ),
"""
SIMPO_ROW = f"| `simpo` | pairs drawn once | +-b sigmoid(b / 2 - b m) / N a token; no reference | {SOURCE} |"


def add_simpo(checkout: ExtendedCheckout) -> None:
    objectives = "src/alignfirst/theory/objectives.py"
    checkout.replace(objectives, "def _same_shape(", f"{SIMPO}def _same_shape(")
    checkout.replace(objectives, "    )\n}\nALGORITHMS", f"{SIMPO_LINE}    )\n}}\nALGORITHMS")
    checkout.add_below("docs/science.md", "| `sft-preferred` (baseline)", SIMPO_ROW)


def test_c_algorithm(checkout: ExtendedCheckout) -> None:
    """It sees log-probabilities and lengths of both answers, and no reference."""
    add_simpo(checkout)
    refused = "tests/audit/test_audit_predict.py::test_every_algorithm_is_predicted_or_refused_with_a_reason"
    checkout.tests("tests/docs", "tests/contracts/test_objectives.py", refused)
    checkout.tests("tests/contracts/test_kernel.py", chosen="simpo")
    checkout.run("mog-quick", *SMALL, "algorithms=simpo")
    checkout.check(
        ENDED.format(stages=3) + "assert {r['exact_reward'] for r in rows} == {None}  # no optimum to be near\n"
    )


ENDED = """
import json
rows = [json.loads(line) for line in open("run/records.jsonl")]
assert len(rows) >= {stages} and all(r["status"] == "ok" for r in rows), rows
assert "simpo" in {{r["algorithm"] for r in rows}}
"""
OWN = """
import sys
from pathlib import Path
sys.path.insert(0, "tests/lm")
import own_models as made
import alignfirst
rows = made.write(Path("pairs.jsonl"), made.pairs())
study = made.study(made.teacher(Path("teacher")), rows, algorithms="simpo")
alignfirst.run(study, out="run", workers=0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("world", ["grammar", "own models"])
def test_c_algorithm_of_language_models(checkout: ExtendedCheckout, world: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    add_simpo(checkout)
    if world == "grammar":
        checkout.tests("tests/lm/test_align.py", "tests/worlds/test_grammar_world.py", chosen="simpo or everything")
        checkout.run("grammar-quick", "seeds=1", "algorithms=simpo", "align.updates=4", "sft.steps=4", "distil.steps=4")
    else:
        checkout.check(OWN)
    checkout.check(ENDED.format(stages=3))


def test_d_metric(checkout: ExtendedCheckout) -> None:
    """Measured in one world; the others leave it null."""
    records, measure = "src/alignfirst/records.py", "src/alignfirst/worlds/mog/measure.py"
    words = "variance of reward over the model's outputs"
    checkout.add_below(
        records, 'Column("reward_sd"', f'    Column("reward_var", "float", "{words}", "variance of reward"),'
    )
    checkout.replace(records, f"SCHEMA_VERSION = {SCHEMA_VERSION}", f"SCHEMA_VERSION = {SCHEMA_VERSION + 1}")
    checkout.add_below(measure, '"reward_sd": ', '            "reward_var": float(square - reward**2),')
    checkout.replace("src/alignfirst/worlds/mog/world.py", '"measure": 1,', '"measure": 2,')
    checkout.add_below("docs/records.md", "| `reward_sd`", f"| `reward_var` | float | {words} |")
    version = f"schema version {SCHEMA_VERSION}"
    checkout.replace("docs/records.md", f"{version}.", f"schema version {SCHEMA_VERSION + 1}.")
    checkout.tests("tests/docs", SUMMARY, "tests/report/test_data.py", "tests/study/test_rows.py")
    checkout.run("mog-quick", *SMALL, "algorithms=grpo")
    checkout.check(
        "import json; rows = [json.loads(line) for line in open('run/records.jsonl')]\n"
        "assert all(abs(r['reward_var'] - r['reward_sd'] ** 2) < 1e-12 for r in rows)\n"
        "cells = json.load(open('run/statistics.json'))['cells']\n"
        "assert all(c['reward_var']['mean'] is not None for c in cells)\n"
        "assert 'variance of reward' in open('run/report.html').read()"
    )


def test_g_schedule(checkout: ExtendedCheckout) -> None:
    schedule = '    "square-root": lambda done: (1.0 - done) ** 0.5,'
    checkout.add_below("src/alignfirst/theory/schedules.py", '"linear": ', schedule)
    checkout.replace("docs/science.md", "`constant`, `linear`:", "`constant`, `linear`, `square-root`:")
    kernel = "tests/contracts/test_kernel.py::test_rates_follow_their_schedule"
    checkout.tests("tests/docs", "tests/theory/test_schedules.py", kernel)
    checkout.run("mog-quick", *SMALL, "algorithms=grpo", "align.schedule=square-root")


MIN_P = '''def min_p(p: Any, number: float) -> Any:
    """Tokens with at least this share of the likeliest token's probability (Nguyen et al. 2024, 2407.01082)."""
    return p >= number * p[..., :1]


'''
DRAWS = """
import torch
from alignfirst.lm.models.build import TinyLlama, build
from alignfirst.lm.sampling.sample import sample
from alignfirst.study.config.preset_files import load
from alignfirst.study.plan.planner import plan_study
from alignfirst.worlds import get
changes = ["distil.filter=min_p=0.9", "measure.filter=min_p=0.9"]
nodes = plan_study(load("grammar-quick", changes), get("grammar")).nodes.values()
named = {node.kind for node in nodes if node.settings.get("filter") == "min_p=0.9"}
assert named == {"distil", "measure"}, named
model, asked = build(TinyLlama(50, 8, 1, 1, 1, 8, 8), 0), torch.zeros(400, 1, dtype=torch.long)
drawn = [sample(model, asked, 1, torch.Generator().manual_seed(0), filtered=f) for f in (None, "min_p=0.9")]
p = model(asked[:1]).logits[0, -1].softmax(-1)
kept = set(torch.nonzero(p >= 0.9 * p.max())[:, 0].tolist())
assert set(drawn[1].tokens[:, 0].tolist()) <= kept < set(drawn[0].tokens[:, 0].tolist())
"""


def test_h_filter_of_drawn_text(checkout: ExtendedCheckout) -> None:
    """Which tokens may be drawn: in samples, and by name and number in the studies that draw text."""
    pytest.importorskip("torch")
    checkout.replace(FILTERS, "FILTERS: dict", f"{MIN_P}FILTERS: dict")
    checkout.add_below(FILTERS, '"top_p":', '    "min_p": DrawingFilter(min_p, high=1.0),')
    checkout.check(DRAWS)
    checkout.tests("tests/lm/test_drawing_filters.py", chosen="every_filter or refused")
