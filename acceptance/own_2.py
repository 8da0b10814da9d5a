"""The native and TRL's trainer on real preference data and a real model: the same first five losses of DPO on
SmolLM2-135M-Instruct, within 1e-3. Four minutes on one core.

    python acceptance/own_2.py PAIRS.jsonl      # or ALIGNFIRST_PAIRS=PAIRS.jsonl

PAIRS is any file in one of TRL's preference formats with a few hundred rows; the line was written for AlpacaEval's 805.
"""

from __future__ import annotations

from pathlib import Path

from common import RUNS, cli, conclude, fresh, rows
from own import EXAMPLE, pairs_file

WITHIN = 1e-3
UPDATES = 5
# Pairs of the shortest rows, and a rate at which five updates change the loss by much more than the tolerance
STUDY = {
    "recipes": "align-only", "data.max_length": 192, "align.updates": UPDATES, "align.samples": 8, "align.chunk": 4,
    "align.learning_rate": 1e-5, "measure.pairs": 2, "measure.prompts": 2, "measure.samples": 2,
    "measure.new_tokens": 2,
}  # fmt: skip


def losses(pairs: Path, trainer: str) -> list[float]:
    from alignfirst.store import Store

    out = fresh(RUNS / f"own-2-{trainer}")
    values = {**STUDY, "data.pairs": pairs, "align.trainer": trainer}
    sets = [x for name, value in values.items() for x in ("--set", f"{name}={value}")]
    done = cli("run", EXAMPLE, *sets, "--out", out, "--no-report", "--workers", 1)
    if done.returncode:
        conclude([f"{trainer}: exit code {done.returncode}: {done.stderr[-2000:]}"])
    row = next(row for row in rows(out) if row["stage"] == "align")
    found: list[float] = Store(out / "store").get(row["model"]).meta["curves"]["loss"]
    return found


def main() -> None:
    pairs = pairs_file(__doc__)
    native, trl = losses(pairs, "native"), losses(pairs, "trl")
    for update, (a, b) in enumerate(zip(native, trl, strict=True), 1):
        print(f"update {update}: native {a:.6f}, TRL {b:.6f}, apart {abs(a - b):.1e}")
    apart = [abs(a - b) for a, b in zip(native, trl, strict=True)]
    moved = max(native) - min(native)
    failures = [f"losses are {max(apart):.2g} apart"] * (len(apart) != UPDATES or not max(apart) <= WITHIN)
    failures += [f"losses moved by {moved:.2g} only: they show nothing"] * (moved < 10 * WITHIN)
    conclude(failures)


if __name__ == "__main__":
    main()
