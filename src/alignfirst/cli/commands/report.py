"""`alignfirst report`: the page, the summary and the figures of a run, or the page of an audit."""

from __future__ import annotations

from alignfirst.cli import out
from alignfirst.cli.places import RunPath, run_path


def report(run: RunPath, json: out.Json = False) -> None:
    """Build a run's report again, or the page of an audit's folder.

    The numbers are those of the run: nothing is computed anew.
    """
    from alignfirst import report as building

    if (run / building.AUDIT).is_file():
        page = building.build_audit(run)
        return out.as_json({"report": str(page)}) if json else out.line(page)
    page = building.build(run_path(run))
    if json:
        figures = sorted(str(path) for path in (page.parent / "figures").glob("*"))
        out.as_json({"report": str(page), "summary": str(page.parent / "summary.md"), "figures": figures})
    else:
        out.line(page)
