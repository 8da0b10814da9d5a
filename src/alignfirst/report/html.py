"""One offline page: markup, styles, scripts and data in a single file that asks for nothing."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from alignfirst.errors import StoreError
from alignfirst.report.page_budget import within_budget
from alignfirst.report.palette import style_sheet
from alignfirst.report.payload import SHOWN_FAILURES, failures, payload, timings_by_kind
from alignfirst.report.run_files import RunFiles
from alignfirst.report.sections import sections_of, theory_known
from alignfirst.report.sentences import words
from alignfirst.report.sentences.order_verdict import VERDICTS, OrderVerdict, TrapWindow
from alignfirst.report.text_metrics import parts
from alignfirst.report.user_models_page import own
from alignfirst.stats import intervals
from alignfirst.stats.audited import VERDICTS as CALLS
from alignfirst.stats.claims import ALPHA

MOST_BYTES = 8_000_000
HEAD = "head.js"
STYLES = ("page", "figure", "verdict", "filmstrip", "text", "screens")
SCRIPTS = (
    "shell",
    "study.js",
    "figures",
    "text",
    "start_study.js",
)  # in this order; a folder is all that is in it, by name


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


def page(run: RunFiles, verdict: OrderVerdict) -> str:
    """The whole report. Raises StoreError where even the thinnest form does not fit the size of a page."""
    scripts = [script(get_plotlyjs()), script(joined(SCRIPTS))]
    head = script(static(HEAD))
    fixed = {
        "css": styles(STYLES), "head": head, "scripts": scripts, "sections": sections_of(run),
        "policy": policy([head, *scripts]), **_context(run, verdict),
    }  # fmt: skip
    template = environment().get_template("report.html.j2")
    bare = len(template.render(**fixed, data="", left_out=[]).encode())
    data = within_budget(payload(run), MOST_BYTES - bare - 2_000)
    text = template.render(**fixed, data=embedded(data), left_out=data["left_out"])
    if len(text.encode()) > MOST_BYTES:
        raise StoreError(
            f"the report would be larger than {MOST_BYTES // 1_000_000} MB even in its thinnest form. "
            "Its numbers are in records.csv and statistics.json; split the study to see them drawn."
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


def _context(run: RunFiles, verdict: OrderVerdict) -> dict[str, Any]:
    lost = failures(run)
    context = {
        "manifest": dict(run.manifest),
        "counts": dict(run.counts),
        "config": run.config,
        "verdict": dataclasses.asdict(verdict),
        "verdicts": list(VERDICTS),
        "calls": list(CALLS),
        "strips": [strip(w) for w in verdict.windows],
        "failures": lost[:SHOWN_FAILURES],
        "failures_left_out": max(0, len(lost) - SHOWN_FAILURES),
        "failure_columns": [*run.varied, "recipe", "algorithm", "beta", "seed", "stage", "status", "error"],
        "timings": timings_by_kind(run.timings),
        "seeds": _seeds(run),
        "kind": run.exhibits.get("kind"),
        "parts": sorted(parts(run)),
        "theory": theory_known(run),
        "theory_window": any(w.known for w in verdict.windows),
        "digests": run.manifest["digests"],
        "traps": _traps(run),
        "own": dataclasses.asdict(own(run)),
    }
    result: dict[str, Any] = words.shown(context)
    return result


def strip(window: TrapWindow) -> dict[str, Any]:
    """Where the marks of one algorithm's window stand, in per cent of an axis with the study's betas evenly spaced."""
    betas = [b for b, _ in window.shares]
    band = None
    if window.low is not None and window.high is not None and window.low < window.high:
        left, right = _position(window.low, betas), _position(window.high, betas)
        if right > left:  # else the whole window lies beyond the study's betas
            band = {"left": round(left, 2), "width": round(max(right - left, 0.5), 2)}
    dots = [
        {"at": round(_position(b, betas), 2), "share": share, "percent": None if share is None else round(100 * share)}
        for b, share in window.shares
    ]
    return {"band": band, "dots": dots}


def _position(beta: float, grid: Sequence[float]) -> float:
    """Piecewise logarithmic between neighbouring betas; half a place is kept free at both ends."""
    if len(grid) == 1:
        return 50.0 if beta == grid[0] else 100.0 * (beta > grid[0])
    logs = [math.log(b) for b in grid]
    x = math.log(max(beta, 1e-12))
    i = max(0, min(len(grid) - 2, sum(x >= v for v in logs) - 1))
    place = i + (x - logs[i]) / (logs[i + 1] - logs[i])
    return 100 * (max(-0.5, min(len(grid) - 0.5, place)) + 0.5) / len(grid)


def _seeds(run: RunFiles) -> str:
    seeds = list(run.manifest.get("seeds") or [])
    if seeds == list(range(len(seeds))) and len(seeds) > 2:
        return f"0 to {len(seeds) - 1}"
    return words.listed(str(s) for s in seeds)


def _traps(run: RunFiles) -> list[Mapping[str, Any]]:
    """Trapped seeds by recipe and kind, over every algorithm and beta; none where no optimum says what a trap is."""
    if not any(r.get("trap") or r.get("exact_target_mass") is not None for r in run.rows):
        return []
    counts: dict[str, Counter[str]] = {}
    aligned: Counter[str] = Counter()
    for row in run.rows:
        if row["stage"] == "align" and row["status"] == "ok":
            aligned[row["recipe"]] += 1
            counts.setdefault(row["recipe"], Counter())
            if row.get("trap"):
                counts[row["recipe"]][row["trap"]] += 1
    kinds = ("anchor", "sampling", "exploration")
    return [
        {"recipe": r, "aligned": aligned[r], "kinds": [c[k] for k in kinds], "free": aligned[r] - sum(c.values())}
        for r, c in counts.items()
    ]
