from __future__ import annotations

import re
import sys
from pathlib import Path
from subprocess import run as command
from types import ModuleType

import pytest

from alignfirst.report.run_files import load
from alignfirst.report.static_figures import figures
from alignfirst.report.static_figures.figures import draw
from alignfirst.report.static_figures.plots import PLOTS

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def small(synthetic: ModuleType, tmp_path: Path) -> Path:
    spec = synthetic.Spec(algorithms=("grpo",), betas=(0.1, 0.3), seeds=5)
    return Path(synthetic.write(tmp_path / "run", spec))


def contents(run: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((run / "figures").iterdir())}


def test_figures_are_complete_undated_and_the_same_bytes_again(small: Path) -> None:
    drawn = draw(load(small))
    names = [d.name for d in drawn]
    assert names == [name for name in PLOTS if name in names] and "seeds" in names
    assert {"behaviours", "training", "boundary"}.isdisjoint(names)  # of text, and of studies that vary two keys
    first = contents(small)
    for name in names:
        svg = first[f"{name}.svg"].decode()
        assert svg.startswith("<?xml") and "<dc:date>" not in svg and not re.search(r"\d{4}-\d\d-\d\dT", svg)
        assert first[f"{name}.png"].startswith(PNG)
    (small / "figures" / "index.json").unlink()
    draw(load(small))
    assert contents(small) == first


def test_figures_of_the_same_run_are_not_drawn_again(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = draw(load(small))
    monkeypatch.setattr(figures, "_save", lambda *_: pytest.fail("drawn although nothing changed"))
    assert draw(load(small)) == drawn


def test_a_missing_or_foreign_index_means_drawing(small: Path) -> None:
    drawn = draw(load(small))
    folder, identity = small / "figures", figures._identity(load(small))
    assert figures._known(folder, identity) == drawn
    assert figures._known(folder, "another run") is None
    index = (folder / "index.json").read_bytes()
    for damage in (b"{", b"[]", b'{"identity": "x"}', b'{"figures": [[1]]}'):
        (folder / "index.json").write_bytes(damage)
        assert figures._known(folder, identity) is None
    (folder / "index.json").write_bytes(index)
    (folder / "seeds.svg").unlink()
    assert figures._known(folder, identity) is None


def test_a_figure_without_data_is_neither_drawn_nor_left_over(synthetic: ModuleType, tmp_path: Path) -> None:
    spec = synthetic.Spec(recipes=("align-only",), algorithms=("grpo",), betas=(0.1,), seeds=2)
    run = synthetic.write(tmp_path / "run", spec)
    (run / "figures").mkdir()
    (run / "figures" / "order-reward.svg").write_text("of an earlier run")
    (run / "figures" / "mine.svg").write_text("the user's own")
    assert "order-reward" not in [d.name for d in draw(load(run))]
    assert not (run / "figures" / "order-reward.svg").exists()
    assert (run / "figures" / "mine.svg").exists()


def test_two_varied_keys_give_a_map_of_the_boundary(synthetic: ModuleType, tmp_path: Path) -> None:
    vary = {"distil.selectivity": [1.0, 3.0], "distil.components": [2, 8]}
    spec = synthetic.Spec(algorithms=("grpo",), betas=(0.1,), seeds=5, vary=vary)
    assert "boundary" in [d.name for d in draw(load(synthetic.write(tmp_path / "run", spec)))]


def test_names_with_formulas_or_rare_scripts_are_drawn_as_they_are(synthetic: ModuleType, tmp_path: Path) -> None:
    spec = synthetic.Spec(algorithms=("$\\frac{1}$", "中文🙂"), betas=(0.1,), seeds=2)
    assert draw(load(synthetic.write(tmp_path / "run", spec)))


def test_importing_the_report_does_not_import_matplotlib() -> None:
    code = "import sys, alignfirst.report.run_files as _; sys.exit(bool({'matplotlib', 'plotly'} & set(sys.modules)))"
    assert command([sys.executable, "-c", code], check=False).returncode == 0


def test_text_has_bars_by_behaviour_and_training_curves(
    synthetic: ModuleType, of_text: ModuleType, tmp_path: Path
) -> None:
    spec = synthetic.Spec(algorithms=("grpo",), betas=(0.1,), seeds=2, recipes=("align-distil", "distil-only"))
    names = {True: ["behaviours", "training"], False: ["training"]}
    for exact, drawn in names.items():
        run = synthetic.write(tmp_path / str(exact), spec, of_text.TextSpec(exact=exact, behaviours=("a", "$b$", "c")))
        assert [d.name for d in draw(load(run))][: len(drawn)] == drawn
        first = contents(run)
        (run / "figures" / "index.json").unlink()
        draw(load(run))
        assert contents(run) == first
