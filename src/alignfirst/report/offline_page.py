"""One offline page: markup, styles, scripts and data in a single file that asks for nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from alignfirst.errors import StoreError
from alignfirst.report.palette import style_sheet
from alignfirst.report.sentences import words
from alignfirst.stats import intervals
from alignfirst.stats.intervals import ALPHA

MOST_BYTES = 8_000_000
MARGIN = 2_000  # bytes kept for what a page says of the numbers that it leaves out


@dataclass(frozen=True)
class Layout:
    """What a page is made of. `styles`: names in static/styles/; `scripts`: files and folders of static/, in order."""

    template: str
    styles: Sequence[str]
    scripts: Sequence[str]


@dataclass(frozen=True)
class Script:
    """An inline script and the hash by which the page's content policy knows it."""

    text: str
    source: str


def script(text: str) -> Script:
    """A browser hashes the text as parsed: line ends are newlines, and nothing in it may close the element."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script").replace("<!--", "<\\!--")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Script(text, f"'sha256-{digest}'")


def embedded(data: Any) -> str:
    """JSON that is safe inside a script element: it holds neither markup nor line separators."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def assemble(layout: Layout, context: Mapping[str, Any], data: Callable[[int], dict[str, Any]]) -> str:
    """The page; `data` makes the payload of its scripts in at most so many bytes of JSON, or as thin as it gets.

    Raises StoreError where even the thinnest payload does not fit the size of a page.
    """
    scripts = [script(get_plotlyjs()), script(joined(layout.scripts))]
    head = script(static("head.js"))
    fixed = {
        "css": styles(layout.styles), "head": head, "scripts": scripts, "policy": policy([head, *scripts]), **context
    }  # fmt: skip
    template = environment().get_template(layout.template)
    bare = len(template.render(**fixed, data="", left_out=[]).encode())
    payload = data(MOST_BYTES - bare - MARGIN)
    text = template.render(**fixed, data=embedded(payload), left_out=payload["left_out"])
    if len(text.encode()) > MOST_BYTES:
        raise StoreError(
            f"the page would be larger than {MOST_BYTES // 1_000_000} MB even in its thinnest form. Its numbers are in "
            "the files beside it; split the study, or audit fewer rows (--rows), to see them drawn."
        )
    return text


def policy(scripts: Sequence[Script]) -> str:
    """The content policy of a page: these scripts by their hashes, its own styles and images, nothing else."""
    return (
        f"default-src 'none'; script-src {' '.join(s.source for s in scripts)}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def styles(names: Sequence[str]) -> str:
    """Style sheets of the package as one, after the colours that they use."""
    return "\n".join([style_sheet(), *(static(f"styles/{name}.css") for name in names)])


def static(name: str) -> str:
    """A file of report/static, or all files of a folder by name, as text. Raises StoreError where it is missing."""
    try:
        return _text(files("alignfirst.report") / "static" / name)
    except OSError as e:
        raise StoreError(f"the installed package lacks report/static/{name}. Install alignfirst again.") from e


def _text(place: Traversable) -> str:
    if place.is_dir():
        return "\n".join(_text(each) for each in sorted(place.iterdir(), key=lambda each: each.name))
    return place.read_text(encoding="utf-8")


def joined(names: Sequence[str]) -> str:
    """Scripts of the package as one, their names out of everybody's way."""
    return '(() => {\n"use strict";\n' + "\n".join(static(n) for n in names) + "})();\n"


def environment() -> jinja2.Environment:
    """Templates of this package; whatever they print is escaped."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("alignfirst.report", "templates"), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.globals.update(
        count=words.count, number=words.number, seconds=words.seconds_text, megabytes=words.bytes_text,
        beta=words.beta_text, value=words.value_text,
        level=intervals.level_words(), min_seeds=intervals.MIN_SEEDS, alpha=ALPHA,
        page_size=f"{MOST_BYTES // 1_000_000} MB",
    )  # fmt: skip
    return made
