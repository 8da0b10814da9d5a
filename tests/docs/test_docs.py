"""The documentation says what the code does: tables are compared with the registries they describe."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from alignfirst.errors import ExitCode
from alignfirst.records import COLUMNS, SCHEMA_VERSION
from alignfirst.report.page_sections import SECTIONS
from alignfirst.stats import CLAIMS
from alignfirst.study.config import preset_files
from alignfirst.study.config.recipe import RECIPES
from alignfirst.theory.objectives import ALGORITHMS
from alignfirst.theory.schedules import SCHEDULES
from alignfirst.theory.tilt import depth, recovery_threshold

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))


def text(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def table(page: str, first: str) -> list[list[str]]:
    """Cells of the rows below the header whose first cell is `first`."""
    lines = text(page).splitlines()
    start = next(i for i, s in enumerate(lines) if s.startswith(f"| {first} |") and lines[i + 1].startswith("|---"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([c.strip().replace("\\|", "|") for c in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def test_every_column_of_the_records_is_documented() -> None:
    assert table("records.md", "column") == [[f"`{c.name}`", c.type, c.meaning] for c in COLUMNS]
    assert f"schema version {SCHEMA_VERSION}." in text("records.md")


def test_every_claim_is_documented() -> None:
    for claim, row in zip(CLAIMS, table("statistics.md", "id"), strict=True):
        id, statement, tested, sign, small = row
        assert (id, statement) == (f"`{claim.id}`", claim.statement)
        assert f"`{claim.metric}`" in tested
        assert tested.startswith({"difference": "mean of paired differences", "ratio": "ratio of"}[claim.scale])
        assert sign == f"{'>' if claim.direction > 0 else '<'} {0 if claim.scale == 'difference' else 1}"
        assert float(small) == claim.small


def test_every_algorithm_is_documented() -> None:
    words = {"rollouts": "policy", "pairs-offline": "pairs drawn once", "pairs-online": "pairs redrawn"}
    for algorithm, row in zip(ALGORITHMS.values(), table("science.md", "name"), strict=True):
        name, samples, coefficient, source = row
        assert name == f"`{algorithm.name}`" + ("" if algorithm.uses_beta else " (baseline)")
        assert samples.startswith(words[algorithm.data])
        assert ("reused" in samples) == algorithm.reuses_batches
        assert ("no reference" in coefficient) == (not algorithm.uses_reference)
        assert source == algorithm.source


def test_every_schedule_is_documented() -> None:
    (words,) = [row[2] for row in table("science.md", "key") if row[0] == "`align.schedule`"]
    assert words.split(":")[0] == ", ".join(f"`{name}`" for name in SCHEDULES)


def test_every_recipe_is_documented() -> None:
    for (name, stages), row in zip(RECIPES.items(), table("science.md", "recipe"), strict=True):
        assert row[0].startswith(f"`{name}`")
        assert re.findall(r"\b(align|distil)\b(?!led)", row[1].split(":")[0])[:1] == [stages[0].kind]
        told = re.sub(r"\(.*?\)", "", row[1].split(": the control")[0])
        assert re.findall(r"\b(align|distil)\b", told) == [s.kind for s in stages]


def test_every_key_of_a_mixture_study_is_documented_with_its_default() -> None:
    data = preset_files.load("mog").resolved()
    keys: dict[str, Any] = {"beta": data["beta"], "seeds": data["seeds"]}
    for section, values in data.items():
        if isinstance(values, dict) and section != "vary":
            keys |= {f"{section}.{key}": value for key, value in values.items()}
    rows = [row[:2] for row in table("science.md", "key")]
    assert sorted(rows) == sorted([f"`{key}`", plain(value)] for key, value in keys.items())


def plain(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], list):
        return ", ".join(f"({','.join(f'{x:g}' for x in point)})" for point in value)
    if isinstance(value, list):
        return ", ".join(f"{x:g}" for x in value) or "none"
    return str(value)


def test_every_preset_is_documented() -> None:
    assert sorted(row[0].strip("`") for row in table("science.md", "preset")) == sorted(preset_files.names())


def test_the_worked_example_is_right() -> None:
    """Default weights, selectivity 3, on behaviours alone with a reward gap of 1."""
    weights = preset_files.load("mog").resolved()["p_star"]["weights"]
    rare = weights[-1] / sum(weights)
    kept = weights[-1] ** 3 / sum(w**3 for w in weights)
    page = text("science.md")
    assert f"the target keeps a mass of {kept * 1e4:.1f}e-4" in page
    assert f"{float(depth(rare)):.2f} to {float(depth(kept)):.2f} nats" in page
    low, high = recovery_threshold(kept, 1.0), recovery_threshold(rare, 1.0)
    assert f"{float(low):.3f} <= beta < {float(high):.3f}" in page


def test_the_architecture_names_files_that_exist() -> None:
    package = ROOT / "src" / "alignfirst"
    tree = text("architecture.md").split("```")[1]
    folder = package
    for line in tree.splitlines()[2:]:
        depth_of_line = len(line) - len(line.lstrip())
        names = re.findall(r"(?<![\w/.])([\w/]+(?:\.py|/))(?=[\s:;]|$)", line)
        assert names, line
        base = package if depth_of_line == 2 else folder
        for name in names:
            assert (base / name).exists(), f"{name} in: {line}"
        if depth_of_line == 2 and names[0].endswith("/"):
            folder = package / names[0]
    rooms = {p.name + "/" * p.is_dir() for p in package.iterdir() if (p / "__init__.py").exists() or p.suffix == ".py"}
    assert [room for room in rooms if f"\n  {room}" not in tree and not room.startswith("__")] == []


def test_the_arrows_of_the_architecture_are_those_that_are_checked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    told = next(line for line in text("architecture.md").splitlines() if line.startswith("    errors")).strip()
    expected = [layer.replace("alignfirst.", "").replace(" : ", ", ") for layer in reversed(layers)]
    assert told == " <- ".join(expected)


def test_the_walks_through_the_code_name_what_stands_there() -> None:
    """Every file of docs/reading.md exists, and every name beside it is defined in one of its files."""
    rows = re.findall(r"^\| (`[^|]+) \| ([^|]+) \|", text("reading.md"), re.MULTILINE)
    assert len(rows) > 20
    for files, names in rows:
        sources = [(ROOT / "src" / "alignfirst" / name).read_text(encoding="utf-8") for name in quoted(files)]
        for name in quoted(names):
            defined = rf"^\s*(def|class) {name.rpartition('.')[2]}\b"
            assert any(re.search(defined, source, re.MULTILINE) for source in sources), f"{name} in {files}"


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_section_of_the_report_is_explained() -> None:
    headings = re.findall(r"^## (.*)$", text("reading-the-report.md"), re.MULTILINE)
    assert headings[:-1] == [section.name for section in SECTIONS]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}, target


def test_every_command_and_option_is_documented() -> None:
    import typer

    from alignfirst.cli.app import app

    page = text("cli.md")
    command = typer.main.get_command(app)
    sections = {s.split("`")[0].split()[0]: s for s in page.split("### `alignfirst ")[1:]}
    assert list(sections) == list(command.commands)  # type: ignore[attr-defined]
    for name, found in command.commands.items():  # type: ignore[attr-defined]
        section = sections[name].split("\n## ")[0].split("\n### ")[0]
        options = {o for p in found.params for o in (*p.opts, *p.secondary_opts) if o.startswith("--")}
        assert set(re.findall(r"--[a-z][a-z-]+", section)) == options - {"--help"}, name
        heading = section.split("`")[0]
        arguments = [p for p in found.params if p.param_type_name == "argument"]
        assert heading.split()[1:] == [f"[{p.metavar}]" if not p.required else p.metavar for p in arguments]
    for option in (o for p in command.params for o in p.opts if o.startswith("--")):
        assert f"`{option}`" in page


def test_every_exit_code_is_documented() -> None:
    assert [row[:2] for row in table("cli.md", "code")] == [[str(int(c)), c.name] for c in ExitCode]


def test_the_yaml_of_the_command_line_page_is_a_study(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text("cli.md").split("```yaml\n")[1].split("```")[0], encoding="utf-8")
    study = preset_files.load(file)
    assert (study.name, study.value("distil.selectivity"), len(study.points)) == ("my-study", 2, 2)
    varied = preset_files.load("mog", ["distil.selectivity=1,3", "beta=0.1,0.2"])
    assert varied.vary == {"distil.selectivity": (1, 3)} and varied.beta == (0.1, 0.2)
