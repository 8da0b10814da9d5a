"""Numbers, lists and foreign text as a reader sees them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alignfirst.auditing import constants
from alignfirst.report.palette import NAMED, RECIPE_LOOKS
from alignfirst.stats import intervals

# Controls, zero-width and bidirectional characters: invisible, or able to reorder the text around them.
_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
_LONE = re.compile(r"[\ud800-\udfff]")
DASH = "–"
STAGES: Mapping[str, str] = {"sft": "sft", "align": "aligned", "distil": "student"}  # what each leaves behind


def visible(text: str) -> str:
    """The text with every hidden or reordering character written out, like ⟨U+202E⟩."""
    return _LONE.sub("\ufffd", _HIDDEN.sub(lambda m: f"⟨U+{ord(m.group()):04X}⟩", text.replace("\r\n", "\n")))


def shown(value: Any) -> Any:
    """`visible` applied to every string of a JSON-like value, keys included; NaN and infinities become null."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(str(k)): shown(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [shown(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def tight(value: Any) -> Any:
    """Strings of a JSON-like value with `5 %` and `no-go` held together: neither is to be broken between lines."""
    if isinstance(value, str):
        return value.replace(" %", "\u00a0%").replace("no-go", "no\u2011go").replace("NO-GO", "NO\u2011GO")
    if isinstance(value, dict):
        return {k: tight(v) for k, v in value.items()}
    return [tight(v) for v in value] if isinstance(value, list | tuple) else value


def rounded(value: Any, digits: int = 4) -> Any:
    """A float with `digits` significant digits; anything else as it is; NaN and infinities become null."""
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    if not math.isfinite(short):  # the largest doubles have no shorter neighbour
        return value
    return int(short) if short.is_integer() and abs(short) < 1e6 else short


def number(value: float | None, digits: int = 3) -> str:
    """A number for reading: significant digits, a true minus sign, no exponent between 1e-4 and 1e6."""
    if value is None or not math.isfinite(value):
        return DASH
    if value == 0:
        return "0"
    if 1e-4 <= abs(value) < 1e6:
        places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = f"{value:.{min(places, 6)}f}"
    else:
        text = f"{value:.{digits - 1}e}"
    return text.replace("-", "−")


def decimal(value: float | None, places: int = 3) -> str:
    """A number with fixed places, as columns of a table want it."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:.{places}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def signed(value: float | None, places: int = 3) -> str:
    text = decimal(value, places)
    return f"+{text}" if value is not None and value > 0 and text[0] != "−" and float(text or 0) > 0 else text


def grouped(n: int) -> str:
    """A count, its thousands apart."""
    return f"{n:,}".replace(",", "\u202f").replace("-", "−")


def colours() -> dict[str, str]:
    """The colours of recipes and of what has one meaning, as captions call them."""
    return {name: colour.word for name, colour in NAMED.items()} | {
        r: look.colour.word for r, look in RECIPE_LOOKS.items()
    }


def of_study() -> dict[str, Any]:
    """Words that follow constants, for a study's page: level of intervals, seeds that one needs, names of stages."""
    return {
        "level": intervals.level_words(),
        "min_seeds": intervals.MIN_SEEDS,
        "stages": dict(STAGES),
        "colours": colours(),
    }


def of_audit() -> dict[str, Any]:
    """The same for the page of an audit."""
    return {"level": intervals.level_words(constants.LEVEL), "colours": colours()}


def count(n: int, noun: str, plural: str | None = None) -> str:
    return f"{grouped(n)} {noun if n == 1 else plural or noun + 's'}"


def listed(items: Iterable[str], last: str = "and") -> str:
    """`a, b and c`."""
    names = list(items)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}" if names else "none"


def beta_text(beta: float | None) -> str:
    return "no beta" if beta is None else f"{beta:g}"


def runs_of(betas: Sequence[float], grid: Sequence[float]) -> str:
    """Betas of a study's grid as a reader lists them: neighbours of three or more as a range."""
    places = sorted({grid.index(b) for b in betas})
    parts: list[str] = []
    while places:
        length = 1
        while length < len(places) and places[length] == places[0] + length:
            length += 1
        chunk, places = places[:length], places[length:]
        texts = [f"{grid[i]:g}" for i in chunk]
        parts += [f"{texts[0]} to {texts[-1]}"] if length > 2 else texts
    return listed(parts)


def value_text(value: Any) -> str:
    """A varied value: short, unambiguous."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def cut(text: str, most: int) -> str:
    """The text, or its beginning and how many characters it had more."""
    return text if len(text) <= most else f"{text[:most]}… ({count(len(text) - most, 'more character')})"


def bytes_text(megabytes: float) -> str:
    return f"{megabytes:,.0f} MB".replace(",", "\u202f")


def seconds_text(seconds: float | None) -> str:
    if seconds is None:
        return DASH
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
