"""Bad input gets its clear error and exit code 2 (or 1 where the disk refuses), and nothing earlier is harmed."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from common import RUNS, cli, conclude, fresh, store_digests

good = fresh(RUNS / "bad-input")
assert cli("run", "mog-quick", "--out", good, "--no-report").returncode == 0
before = store_digests(good), (good / "records.jsonl").read_bytes()
failures: list[str] = []


def expect(label: str, code: int, *args: object, words: str = "", limit: float = 20.0, **options: object) -> None:
    begin = time.perf_counter()
    done = cli(*args, **options)
    seconds, message = time.perf_counter() - begin, done.stderr.strip().splitlines()
    text = " ".join(message)
    print(f"{label:22s} exit {done.returncode} in {seconds:.1f} s: {text[:160]}")
    if done.returncode != code or "Traceback" in text or not text or words not in text or seconds > limit:
        failures.append(f"{label}: exit {done.returncode}, wanted {code}: {text[:300]}")


def study(text: str) -> Path:
    path = Path(folder) / "study.yaml"
    path.write_text(text)
    return path


with tempfile.TemporaryDirectory() as folder:
    spare = Path(folder) / "out"
    for label, setting, words in (
        ("unknown key", "align.updatess=3", "align.updates"),
        ("beta 0", "beta=0", "beta must be"),
        ("beta negative", "beta=-0.1", "beta"),
        ("beta NaN", "beta=nan", "beta"),
        ("reward width inf", "reward.width=inf", "reward.width"),
        ("empty recipe list", "recipes=[]", "recipes"),
        ("negative weights", "p_star.weights=[1,1,1,1,1,1,1,-1]", "weights"),
        ("no seeds", "seeds=0", "seeds"),
        ("flip 0.5", "preferences.flip=0.5", "flip"),
        ("name ../x", "name=../x", "name"),
    ):
        expect(label, 2, "run", "mog-quick", "--out", spare, "--set", setting, words=words)
    bomb = "a: &a [x, x]\n" + "".join(f"k{i}: &k{i} [*a, *a]\n" for i in range(50_000))
    expect("1 MB of aliases", 2, "run", study(bomb), "--out", spare, limit=5)
    expect("duplicate keys", 2, "run", study("world: mog\nbeta: 0.1\nbeta: 0.2\n"), "--out", spare, words="beta")
    expect("tabs", 2, "run", study("world: mog\nalign:\n\tupdates: 3\n"), "--out", spare)
    expect("unknown preset", 2, "run", "mogg", words="mog")
    expect("another's directory", 2, "run", "mog-quick", "--set", "seeds=6", "--out", good)
    expect("no run there", 2, "report", Path(folder) / "nothing")
    (Path(folder) / "file").write_text("")
    expect("output is a file", 1, "run", "mog-quick", "--out", Path(folder) / "file" / "run")
    if os.path.isdir("/proc/sys"):
        expect("read-only output", 1, "run", "mog-quick", "--out", "/proc/sys/alignfirst")
    small, many = Path(folder) / "small", ("mog-quick", "--no-report", "--set", "seeds=100")
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)], capture_output=True).returncode:
        print("4 MB disk              not tried: needs the right to mount a tmpfs")
    else:
        try:
            expect("4 MB disk", 1, "run", *many, "--out", small / "run", limit=120, words="No space")
            subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
            codes = [cli("run", *many, "--out", out).returncode for out in (small / "run", fresh(RUNS / "spacious"))]
            same = store_digests(small / "run") == store_digests(RUNS / "spacious")
            print(f"after freeing space    exit {codes[0]}, equal to the uninterrupted run: {same}")
            failures += [] if same and codes == [0, 0] else ["the run on the small disk did not resume"]
        finally:
            subprocess.run(["umount", str(small)], check=True)
    if spare.exists():
        failures.append("a refused run left files behind")
if (store_digests(good), (good / "records.jsonl").read_bytes()) != before:
    failures.append("an earlier run was harmed")
print(f"earlier run: {len(before[0])} artefacts compared")
conclude(failures)
