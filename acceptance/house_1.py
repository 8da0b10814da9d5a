"""The house in numbers: modules per folder, names that stand once, arrows that run one way, sizes of functions and
files, and lines of code before and after the move. A minute.

    python acceptance/house_1.py [--end]

Lines of code (Python under src, without blanks, comments and docstrings) are judged with `--end` alone: later work
adds to them.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from common import ROOT, conclude

SRC = ROOT / "src" / "alignfirst"
MODULES, FUNCTION, FILE = 14, 70, 400  # at most: modules of a folder, lines of a function, lines of a file
BEFORE, AT_MOST = 20_966, 19_500  # lines of code at commit 19c0982, counted in the same way, and the bar
ALLOWED = {"world": "the base class, and its subclass in every world"}
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def lines_of_code(text: str) -> int:
    """Lines that hold a token other than a comment or a docstring."""
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT:
            found.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            found -= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    return len(found)


def crowded() -> Iterator[str]:
    """Folders with too many modules; scripts and styles of the report count as modules, too."""
    folders: dict[Path, int] = defaultdict(int)
    for path in SRC.rglob("*"):
        if path.suffix in (".py", ".js", ".css") and not path.name.startswith("__"):
            folders[path.parent] += 1
    for folder, count in sorted(folders.items(), key=lambda item: -item[1]):
        if count >= MODULES - 2:
            print(f"  {folder.relative_to(SRC.parent)}: {count} modules")
        if count > MODULES:
            yield f"{folder.relative_to(ROOT)} has {count} modules, {MODULES} is the end"


def shared_names() -> Iterator[str]:
    """Modules that share a name outside the chapters of sibling worlds, without a reason in ALLOWED."""
    places: dict[str, list[Path]] = defaultdict(list)
    for path in SRC.rglob("*.py"):
        if not path.name.startswith("__"):
            places[path.stem].append(path.relative_to(SRC))
    for name, paths in sorted(places.items()):
        elsewhere = [p for p in paths if not (p.parts[0] == "worlds" and len(p.parts) == 3)]
        if elsewhere and len(paths) > 1 and name not in ALLOWED:
            yield f"{name}.py stands in {', '.join(map(str, paths))}"


def arrows() -> Iterator[str]:
    """What import-linter says, with no exception told to it."""
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    for contract in told:
        for key in ("ignore_imports", "unmatched_ignore_imports_alerting"):
            if key in contract:
                yield f"the contract '{contract['name']}' has {key}"
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    print(f"  import-linter: {len(told)} contracts, exit code {done.returncode}")
    if done.returncode:
        yield done.stdout[-2000:]


def long_ones() -> Iterator[str]:
    """Functions and files that are too long, in src and tests."""
    for path in sorted([*SRC.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]):
        text = path.read_text()
        if len(text.splitlines()) > FILE:
            yield f"{path.relative_to(ROOT)} has {len(text.splitlines())} lines"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or 0) - node.lineno + 1
                if length > FUNCTION:
                    yield f"{path.relative_to(ROOT)}: {node.name} has {length} lines"


def main() -> None:
    print("folders with twelve modules and more")
    failures = [*crowded(), *shared_names(), *arrows(), *long_ones()]
    after = sum(lines_of_code(path.read_text()) for path in SRC.rglob("*.py"))
    print(f"lines of code: {BEFORE:,} before, {after:,} now (bar at the end of the move: {AT_MOST:,})")
    if "--end" in sys.argv and after > AT_MOST:
        failures.append(f"{after:,} lines of code are more than {AT_MOST:,}")
    conclude(failures)


if __name__ == "__main__":
    main()
