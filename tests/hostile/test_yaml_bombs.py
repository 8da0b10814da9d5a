"""Study files made to hurt: each is refused in an instant, with little memory, in words."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from ledger import Count

from alignfirst.errors import InputError
from alignfirst.study.config import preset_files

LAUGHS = "a: &a [x]\n" + "".join(  # ten to the ninth
    f"{c}: &{c} [{', '.join([f'*{p}'] * 10)}]\n" for p, c in zip("abcdefghi", "bcdefghij", strict=True)
)
VARIED = ("reward.width", "distil.rehearsal", "align.learning_rate")
THOUSAND = ", ".join(f"0.{i:04}" for i in range(1, 1001))
HOSTILE = {
    "laughs": LAUGHS,
    "laughs at the end": "k: [" + "1, " * 5000 + "1]\n" + LAUGHS,
    "1 MB of aliases": LAUGHS * 2500,
    "merge keys": "a: &a {x: 1}\nb:\n  <<: *a\n",
    "depth 1,000 in brackets": "a: " + "[" * 1000 + "]" * 1000,
    "depth 1,000 in lines": "".join(" " * i + f"k{i}:\n" for i in range(700)),
    "depth 1,000 in dashes": "- " * 1000 + "x",
    "depth 100,000": "a: " + "[" * 100_000,
    "depth 100,000 in braces": "a: " + "{" * 100_000,
    "wide": "a: [" + "1," * 100_000 + "1]",
    "many keys": "".join(f"k{i}: 1\n" for i in range(30_000)),
    "long scalar": "a: '" + "x" * 200_000 + "'",
    "open quote": "a: '" + "x" * 200_000,
    "dashes": "- " * 100_000,
    "colons": ": " * 100_000,
    "question marks": "? " * 100_000,
    "digits": "a: " + "9" * 200_000,
    "anchor": "&" * 200_000,
    "tag": "a: !" + "x" * 200_000,
    "python object": "a: !!python/object/apply:os.system ['touch canary']\n",
    "1 MB of comment": "#" * 1_000_000,
    "1 MB of betas": "beta: [" + "0.1, " * 200_000 + "0.1]",
    "duplicate keys": "beta: 0.1\nseeds: 5\nbeta: 0.2\n",
    "duplicate keys inside": "align:\n  updates: 3\n  updates: 4\n",
    "tabs": "align:\n\tupdates: 3\n",
    "two documents": "beta: 0.1\n---\nbeta: 0.2\n",
    "quoted number": "align: {learning_rate: '1e-5'}\n",
    "a list of studies": "- extends: mog\n",
    "itself": "extends: ./study.yaml\n",
    "another folder's secrets": "extends: ../../../../../../etc/passwd\n",
    "a device": "extends: /dev/zero\n",
    "a billion seeds": "seeds: 1000000000\n",
    "a billion cells": "beta: [" + ", ".join(f"0.{i:03}" for i in range(1, 999)) + "]\nseeds: 100000\n",
    "a grid of a billion": "vary:\n" + "".join(f"  {key}: [{THOUSAND}]\n" for key in VARIED),
}  # fmt: skip
SECONDS, MEGABYTES = 0.2, 50.0

CHILD = """
import json, sys, time
from pathlib import Path
from alignfirst.errors import InputError
from alignfirst.study.config import preset_files
preset_files.load("mog")  # imports

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

found = {}
for path in sys.argv[1:]:
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, begin = peak(), time.process_time()
    try:
        said = str(preset_files.load(Path(path)).beta)
    except InputError as e:
        said = "refused: " + str(e)
    found[path] = [said, time.process_time() - begin, peak() - before]
print(json.dumps(found))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads memory from /proc")
def test_hostile_study_files(tmp_path: Path, count: Callable[[str], Count]) -> None:
    """A study file cannot hurt: aliases, depth, width, size, tags, duplicate keys and tabs are refused within 0.2
    seconds of CPU and 50 MB, in a message of one line that names what is wrong; nothing in it is executed."""
    counted, paths = count("yaml"), {}
    for i, (name, text) in enumerate(HOSTILE.items()):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "study.yaml").write_text(text)
        paths[str(folder / "study.yaml")] = name
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *paths], capture_output=True, text=True, timeout=120, cwd=tmp_path, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    for path, (said, seconds, megabytes) in json.loads(done.stdout).items():
        with counted.trial():
            counted.most(cpu_seconds=seconds, megabytes=megabytes)
            assert said.startswith("refused: "), f"{paths[path]}: {said}"
            assert seconds < SECONDS and megabytes < MEGABYTES, f"{paths[path]}: {seconds} s, {megabytes} MB"
            assert len(said) < 800 and said.isprintable(), said
            assert "root:" not in said
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(("text", "value"), [("1e-5", 1e-5), ("1E-5", 1e-5), (".1", 0.1), ("1.e-5", 1e-5)])
def test_numbers_are_numbers(tmp_path: Path, text: str, value: float) -> None:
    """`1e-5`, which YAML 1.1 reads as text, is a number."""
    path = tmp_path / "study.yaml"
    path.write_text(f"extends: mog\nalign: {{learning_rate: {text}}}\n")
    assert preset_files.load(path).value("align.learning_rate") == value


def test_what_is_wrong_is_named_with_its_line(tmp_path: Path) -> None:
    """A refusal names file and line."""
    path = tmp_path / "study.yaml"
    for text, words in (
        ("beta: 0.1\nbeta: 0.2\n", "line 2 must have every key once"),
        ("a:\n\tb: 1\n", "line 2 must be indented"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=rf"study\.yaml {words}"):
            preset_files.load(path)
