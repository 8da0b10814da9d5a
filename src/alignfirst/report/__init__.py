"""The report of a run: a page, a summary and static figures. Reads what the run wrote; never recomputes."""

from __future__ import annotations

from pathlib import Path

__all__ = ["AUDIT", "AUDIT_PAGE", "build", "build_audit"]

AUDIT, AUDIT_PAGE = "audit.json", "audit.html"  # in the folder of an audit


def build(run_dir: Path) -> Path:
    """Write report.html, summary.md and figures/ of a finished or partial run; return the path of the page.

    Raises StoreError where a file of the run is missing or is not the one that the run wrote, InputError where a link
    in the directory leads out of it.
    """
    from alignfirst.files import refuse_links, write_atomic
    from alignfirst.report.html import page
    from alignfirst.report.run_files import load
    from alignfirst.report.sentences.order_verdict import verdict
    from alignfirst.report.sentences.summary import summary
    from alignfirst.report.static_figures.figures import draw

    run = load(Path(run_dir))
    for folder in (run.path, run.path / "figures"):
        refuse_links(folder)
    words = verdict(run)
    figures = draw(run)
    write_atomic(run.path / "summary.md", [summary(run, words, figures).encode()])
    path = run.path / "report.html"
    write_atomic(path, [page(run, words).encode()])
    return path


def build_audit(folder: Path) -> Path:
    """Write audit.html beside the audit.json of `alignfirst audit --out`; return its path.

    Raises StoreError where audit.json is missing, damaged or of another version. Texts of rows come from the file that
    was audited, as long as it is where it was and what it was.
    """
    from alignfirst.files import write_atomic
    from alignfirst.report.audit.audit_files import load
    from alignfirst.report.audit.page import page

    path = Path(folder) / AUDIT_PAGE
    write_atomic(path, [page(load(Path(folder))).encode()])
    return path
