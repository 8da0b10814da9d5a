"""The table of docs/reliability.md, made from what the campaign wrote down.

    python -m pytest tests --figures figures.json
    python tests/faults/table.py figures.json

merges the file into docs/reliability.json, in which a count of the same name is replaced, and writes the table anew.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[2] / "docs"
LEDGER, PAGE = DOCS / "reliability.json", DOCS / "reliability.md"
BEGIN, END = "<!-- made by tests/faults/table.py from docs/reliability.json -->\n", "<!-- end of the table -->\n"
HEADER = "| what | the promise, and its test | tried | survived | largest measured |\n|---|---|---:|---:|---|\n"
Counts = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Item:
    """One part of the campaign: names of its counts, and how many trials a whole campaign makes of each."""

    title: str
    least: Mapping[str, int]


ITEMS = (
    Item(
        "Killed",
        {
            "kill: mixture, random moments": 50, "kill: grammar, random moments": 50, "kill: mixture, while saving": 10,
            "kill: grammar, while saving weights": 10, "ray: node lost, toy": 1, "ray: driver killed, toy": 1,
            "ray: node lost, mixture": 1, "ray: node lost, grammar": 1,
        },
    ),
    Item("Two at once", {"two at once": 20}),
    Item("Full disks", {"disk full": 20}),
    Item("Rot", {"rot: artefacts": 110, "rot: records and manifest": 110}),
    Item(
        "Numbers",
        {
            "numbers: rewards": 8, "numbers: log-probabilities": 32, "numbers: diverging training": 6,
            "numbers: intervals from few seeds": 4,
        },
    ),
    Item(
        "Rows",
        {
            "rows: pairs": 19, "rows: log-probabilities": 18, "rows: prompts": 18, "rows: packed": 1,
            "rows: 2 GB of pairs": 1, "rows: 2 GB of log-probabilities": 1, "rows: 2 GB of pairs for a training": 1,
        },
    ),
    Item("Models", {"models": 49}),
    Item("YAML", {"yaml": 34}),
    Item(
        "Markup",
        {
            "markup: study page": 40, "markup: texts of models": 40, "markup: audit page": 40, "markup: terminal": 40,
            "markup: CSV": 40, "markup: model card": 80,
        },
    ),
    Item("Paths", {"paths: names": 28, "paths: places": 10, "paths: links": 14}),
    Item(
        "Signals",
        {"signals: SIGINT": 20, "signals: SIGTERM": 20, "signals: SIGINT twice": 5, "ray: training interrupted": 1},
    ),
    Item(
        "Odd places",
        {"places: names": 7, "places: environments": 9, "places: no network": 2, "places: read-only disk": 2},
    ),
    Item("Load", {"load: 10,000 cells": 1, "load: 100,000 rows": 1, "load: page of 100,000 rows": 1}),
    Item(
        "Versions",
        {"versions: records": 6, "versions: configs": 1, "versions: stores": 2, "versions: manifests": 1},
    ),
    Item(
        "Fuzz",
        {
            f"fuzz: {what}": 10_000
            for what in (
                "configs", "study files", "preference rows", "log-probabilities", "stores", "manifests", "command lines"
            )
        },
    ),
    Item(
        "Foreign code",
        {
            "foreign code: files beside the user": 9, "foreign code: processes that are started": 4,
            "foreign code: Ray tasks": 1, "foreign code: reward modules": 6,
        },
    ),
    Item(
        "Gates",
        {
            "gates: rewards at import": 4, "gates: rewards at work": 4, "gates: plug-ins at import": 3,
            "gates: worlds at work": 4, "gates: audits": 2,
        },
    ),
    Item("Output", {"output: prints of user code": 2}),
    Item("Homes", {"homes: no place for compiled kernels": 2, "homes: temporary folders of others": 2}),
    Item("Leaks", {"leaks: links out of a model": 10, "leaks: links that may stay": 2}),
)  # fmt: skip


def shortcomings(counts: Counts) -> Iterator[str]:
    """What a ledger lacks to be that of a whole campaign that held."""
    for number, item in enumerate(ITEMS, 1):
        for name, least in item.least.items():
            count = counts.get(name)
            if count is None:
                yield f"{number} {item.title}: {name} was not tried"
            elif count["tried"] < least:
                yield f"{number} {item.title}: {name} was tried {count['tried']} times, a whole campaign does {least}"
            elif count["survived"] != count["tried"]:
                yield f"{number} {item.title}: {name} survived {count['survived']} of {count['tried']}"
    known = {name for item in ITEMS for name in item.least}
    yield from (f"{name} belongs to no item" for name in counts if name not in known)


def table(counts: Counts) -> str:
    """Markdown: every count under its item; one that is not in the ledger says so."""
    lines = [HEADER]
    for number, item in enumerate(ITEMS, 1):
        lines.append(f"| **{number}. {item.title}** | | | | |\n")
        for name in item.least:
            count = counts.get(name)
            lines.append(_line(name, count) if count else f"| {name} | | not yet | | |\n")
    return "".join(lines)


def _line(name: str, count: Mapping[str, Any]) -> str:
    said: dict[str, list[str]] = {}
    for test, promise in count["promises"].items():
        said.setdefault(promise, []).append(f"`{test.removeprefix('tests/')}`")
    promises = "<br>".join(f"{promise} {', '.join(tests)}" for promise, tests in said.items()).replace("|", "\\|")
    figures = ", ".join(f"{figure.replace('_', ' ')} {value:g}" for figure, value in count["figures"].items())
    where = f"{count['day']}, {count['cores']} cores"
    return f"| {name} | {promises} | {count['tried']:,} | {count['survived']:,} | {figures or '–'} ({where}) |\n"


def page(text: str, counts: Counts) -> str:
    """The page with its table made anew."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    assert found, f"{PAGE.name} has no room for the table"
    return before + BEGIN + table(counts) + END + after


def main(paths: list[str]) -> None:
    counts = json.loads(LEDGER.read_text()) if LEDGER.exists() else {}
    for path in paths:
        counts |= json.loads(Path(path).read_text())
    LEDGER.write_text(json.dumps(dict(sorted(counts.items())), indent=1) + "\n")
    PAGE.write_text(page(PAGE.read_text(), counts))
    print("\n".join(shortcomings(counts)) or "a whole campaign, and all of it held")


if __name__ == "__main__":
    main(sys.argv[1:])
