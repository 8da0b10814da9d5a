"""Static figures of a run, SVG and PNG, for papers and READMEs. Matplotlib is imported only when one is drawn."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from alignfirst.files import write_atomic, writing
from alignfirst.report.palette import light
from alignfirst.report.run_files import RunFiles
from alignfirst.report.static_figures.first_choices import Selection
from alignfirst.report.static_figures.style import Drawing, title

Draw = Callable[[Selection], Drawing | None]
INDEX = "index.json"
# The bundled font and a fixed salt: the same run gives the same bytes on every machine.
STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 9.5, "text.parse_math": False, "svg.hashsalt": "alignfirst",
    "axes.edgecolor": light("line"), "axes.labelcolor": light("muted"),
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": light("grid"), "axes.axisbelow": True, "text.color": light("ink"),
    "xtick.color": light("muted"), "ytick.color": light("muted"), "xtick.major.size": 0, "ytick.major.size": 0,
    "legend.frameon": False, "figure.facecolor": "white", "axes.facecolor": "white",
}  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """One static figure: its file name without ending, and the question that it answers."""

    name: str
    question: str


def draw(run: RunFiles) -> list[Drawn]:
    """Write figures/*.svg and *.png, unless they already show exactly this run; return what there is."""
    folder = run.path / "figures"
    with writing(folder):
        folder.mkdir(exist_ok=True)
    identity = _identity(run)
    known = _known(folder, identity)
    if known is not None:
        return known
    from alignfirst.report.static_figures.plots import PLOTS

    selection = Selection(run)
    drawn = []
    for name, (question, plot) in PLOTS.items():
        if _save(folder / name, question, plot, selection):
            drawn.append(Drawn(name, question))
    _drop_others(folder, {d.name for d in drawn})
    index = {"identity": identity, "figures": [[d.name, d.question] for d in drawn]}
    write_atomic(folder / INDEX, [json.dumps(index, indent=1).encode()])
    return drawn


def _save(path: Path, question: str, plot: Draw, selection: Selection) -> bool:
    import matplotlib

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # a name in a script that the font lacks is drawn as boxes; that is no reason to fail
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        drawing = plot(selection)
        if drawing is None:
            return False
        figure, below = drawing
        title(figure, question, below)
        for ending, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 160})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=ending, bbox_inches="tight", pad_inches=0.15, **options)
            write_atomic(path.with_suffix(f".{ending}"), [buffer.getvalue()])
    return True


def _identity(run: RunFiles) -> str:
    """What the figures depend on: the run's results and the code that draws them; not when it was run."""
    here = Path(__file__).parent
    files = [*sorted(here.glob("*.py")), *(here.parent / f"{name}.py" for name in ("palette", "text_metrics"))]
    code = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    digests = {n: run.manifest["digests"][n] for n in ("records.jsonl", "statistics.json", "exhibits.json")}
    text = json.dumps([digests, code, version("matplotlib")], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _known(folder: Path, identity: str) -> list[Drawn] | None:
    """The figures that are there, where they are those of this very run."""
    try:
        index = json.loads((folder / INDEX).read_bytes())
        drawn = [Drawn(name, question) for name, question in index["figures"]]
        complete = all((folder / f"{d.name}.{e}").is_file() for d in drawn for e in ("svg", "png"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return drawn if complete and index["identity"] == identity else None


def _drop_others(folder: Path, names: set[str]) -> None:
    """A figure that an earlier run had and this one has not must not stay beside it. Other files are left alone."""
    from alignfirst.report.static_figures.plots import PLOTS

    for name in set(PLOTS) - names:
        for ending in ("svg", "png"):
            (folder / f"{name}.{ending}").unlink(missing_ok=True)
