"""What a command prints: results on stdout, everything else on stderr, and no text of others as markup or control."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignfirst.errors import printable

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a key, such as beta=0.1,0.3 or align.updates=100. Repeatable."
    ),
]
Shape = Annotated[
    str,
    typer.Option(
        "--shape", help="Of the data: auto, preference, conversation, sharegpt, alpaca or transcript, where auto fails."
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column", metavar="PART=COLUMN", help="Which column is which part, such as prompt=question. Repeatable."
    ),
]
WIDE = 10_000  # columns where nobody looks at a screen: a table in a file is never cut


def tolerate_any_text() -> None:
    """A terminal that cannot show a character gets its escape instead of an error."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def clean(value: object) -> str:
    """Text with every character that could steer a terminal escaped; line breaks too."""
    return printable(str(value))


def complain(message: str) -> None:
    sys.stderr.write(f"error: {clean(message)}\n")


def note(message: str) -> None:
    """Something about the work, not its result."""
    sys.stderr.write(f"{clean(message)}\n")


def line(*parts: object) -> None:
    """One line of the result."""
    sys.stdout.write(" ".join(clean(part) for part in parts).rstrip() + "\n")


def as_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=2, allow_nan=False, default=str)
    sys.stdout.write("\n")


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def compact(value: Any) -> str:
    """One value of a config or record on one line."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def table(header: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> None:
    """A table on stdout. `right` names the columns of numbers."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in header:
        grid.add_column(Text(clean(name)), justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(clean(cell)) for cell in row))
    screen = console()
    with screen.capture() as drawn:
        screen.print(grid)
    lines = (text.rstrip() for text in drawn.get().strip("\n").splitlines())
    sys.stdout.write("".join(f"{text}\n" for text in lines if text))


def console(stderr: bool = False) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDE
    return Console(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)
