"""SIGKILL at 30 random moments of mog-quick, resumed: store and records equal the uninterrupted ones. Two minutes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

from common import CLI, RUNS, cli, conclude, fresh, store_digests

FILES = ("records.jsonl", "records.csv", "statistics.json", "exhibits.json")
rng, kills, attempts, failures = random.Random(20260), 0, 0, []
begin = time.perf_counter()
whole = fresh(RUNS / "kill-whole")
assert cli("run", "mog-quick", "--out", whole, "--no-report").returncode == 0
length = time.perf_counter() - begin
while kills < 30 and attempts < 200:
    out = fresh(RUNS / "kill-one")
    while kills < 30:
        attempts += 1
        child = subprocess.Popen(
            [*CLI, "run", "mog-quick", "--out", str(out), "--no-report"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            child.wait(timeout=rng.uniform(0.2, length))
            break  # it was faster
        except subprocess.TimeoutExpired:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            kills += 1
    done = cli("run", "mog-quick", "--out", out, "--no-report")
    if done.returncode:
        failures.append(f"after {kills} kills the resumed run exited {done.returncode}: {done.stderr[-300:]}")
        break
    if store_digests(out) != store_digests(whole):
        failures.append(f"after {kills} kills the store differs")
    differing = [f for f in FILES if (out / f).read_bytes() != (whole / f).read_bytes()]
    failures += [f"after {kills} kills {f} differs" for f in differing]
print(f"uninterrupted {length:.1f} s; {kills} kills in {attempts} starts, {len(store_digests(whole))} artefacts each")
conclude(failures + ([] if kills == 30 else [f"only {kills} kills"]))
