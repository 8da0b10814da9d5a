"""A copy of this checkout to which one thing is added, as docs/architecture.md "Adding things" says."""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("src", "tests", "docs", "examples")
FAILED = "{what} in a copy of the checkout:\n{said}"


class ExtendedCheckout:
    """Texts are put in by `replace` and `add_below`; `python` and `tests` run in the copy, on its own src/."""

    def __init__(self, folder: Path) -> None:
        """Copies with times, so that what was compiled of unchanged files is not compiled again."""
        self.folder, self.before = folder, dict[str, str]()
        for name in COPIED:
            shutil.copytree(ROOT / name, folder / name)
        for file in (*ROOT.glob("*.md"), ROOT / "pyproject.toml"):
            shutil.copy(file, folder)

    def replace(self, file: str, old: str, new: str) -> None:
        """Put `new` where `old` stands, which must be in one place of the file. Paths begin at the checkout."""
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {file}"
        self.before.setdefault(file, text)
        path.write_text(text.replace(old, new), encoding="utf-8")

    def add_below(self, file: str, line: str, new: str) -> None:
        """Put the lines `new` below the one line of the file that begins with `line`, spaces in front left out."""
        text = (self.folder / file).read_text(encoding="utf-8")
        found = [x for x in text.splitlines() if x.strip().startswith(line)]
        assert len(found) == 1, f"{len(found)} lines of {file} begin with {line!r}"
        self.replace(file, f"{found[0]}\n", f"{found[0]}\n{new}\n")

    def add_file(self, file: str, text: str) -> None:
        """A file that was not there before."""
        path = self.folder / file
        assert not path.exists(), f"{file} is there already"
        self.before[file] = ""
        path.write_text(text, encoding="utf-8")

    def edits(self) -> dict[str, int]:
        """Lines that were added or changed, by file."""
        return {file: self._lines(file, old) for file, old in self.before.items()}

    def _lines(self, file: str, old: str) -> int:
        new = (self.folder / file).read_text(encoding="utf-8")
        return sum(x.startswith("+ ") for x in difflib.ndiff(old.splitlines(), new.splitlines()))

    def python(self, *arguments: str) -> str:
        """Run Python in the copy, and what it printed; AssertionError with its output where it fails."""
        env = os.environ | {"PYTHONPATH": str(self.folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=self.folder, env=env)
        said = (done.stdout + done.stderr)[-4000:]
        assert done.returncode == 0, FAILED.format(what=f"`python {' '.join(arguments)[:200]}` failed", said=said)
        return done.stdout

    def check(self, code: str) -> str:
        """Run a piece of Python; its asserts decide."""
        return self.python("-c", code)

    def tests(self, *names: str, chosen: str | None = None) -> None:
        """Every named test (file, or `-k` expression in `chosen`) passes."""
        only = [] if chosen is None else ["-k", chosen]
        self.python("-m", "pytest", "-q", "-x", "--tb=short", "-p", "no:cacheprovider", *only, *names)

    def run(self, preset: str, *sets: str) -> Path:
        """Run a study in the copy; the folder of its run. AssertionError unless it ended well."""
        options = [part for s in sets for part in ("--set", s)]
        self.python("-m", "alignfirst", "run", preset, "--workers", "1", *options, "--out", "run")
        return self.folder / "run"
