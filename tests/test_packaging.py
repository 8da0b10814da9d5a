"""What is shipped: the wheel's files, the declared dependencies and their pins."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import alignfirst

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(
    re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)", line).groups()  # type: ignore[union-attr]
    for line in (ROOT / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
)
LIGHT = [Requirement(text) for text in PROJECT["dependencies"]]
EXTRAS = [Requirement(text) for texts in PROJECT["optional-dependencies"].values() for text in texts]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned_within_its_range() -> None:
    pins = {canonical(name): version for name, version in PINS.items()}
    for requirement in LIGHT + EXTRAS:
        assert requirement.specifier.contains(pins[canonical(requirement.name)]), requirement


def test_the_light_install_carries_no_language_model_library() -> None:
    assert {r.name for r in LIGHT}.isdisjoint({"torch", "transformers", "trl", "scikit-learn"})


def test_every_import_of_the_package_is_declared() -> None:
    """Of third-party packages, by the names that they are imported under; `lm/` is what its extra is for."""
    imported_as = {"pyyaml": "yaml"}
    declared = {imported_as.get(canonical(r.name), canonical(r.name)) for r in LIGHT}
    indirect = {"pydantic_core", "llvmlite"}  # come with pydantic and numba, in step with them
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        if "lm" not in path.parts:
            found |= {name.partition(".")[0] for name in _imports(ast.parse(path.read_text()))}
    optional = {"pandas", "datasets"}  # each asked for by one function, which says how to get it
    third_party = found - set(sys.stdlib_module_names) - {"alignfirst"} - indirect - optional
    assert third_party <= declared


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def test_no_path_of_a_machine_is_shipped() -> None:
    for path in [*(ROOT / "src").rglob("*.py"), *ROOT.glob("*.md"), *ROOT.glob("*.toml"), ROOT / "Makefile"]:
        assert str(ROOT.parent) + "/" not in path.read_text(), path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = out.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_everything_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name.startswith(f"alignfirst-{alignfirst.__version__}-py3-none-any")
    package = ROOT / "src" / "alignfirst"
    # Everything that is not Python is data that some code reads: presets, templates, scripts, styles
    expected = {
        f"alignfirst/{path.relative_to(package)}"
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shipped = {name for name in names if name.startswith("alignfirst/")}
    assert shipped == expected
    assert {"alignfirst/study/config/presets/mog.yaml", "alignfirst/py.typed"} <= shipped
    assert any(name.startswith("alignfirst/report/templates/") for name in shipped)
    assert any(name.endswith("LICENSE") for name in names)


@pytest.mark.slow
def test_the_installed_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(target),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    sets = ["--set=align.updates=5", "--set=seeds=2", "--set=sft.samples=200", "--set=distil.samples=100"]
    code = f"import sys; sys.path.insert(0, {str(target)!r}); from alignfirst.cli import main; main()"
    command = [sys.executable, "-I", "-c", code, "run", "mog-quick", *sets, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "report.html").stat().st_size > 100_000
