"""Bad input to the audit: a clear error and exit code 2, or `insufficient data`, and never a made-up number.

Files of log-probabilities, preference pairs, and two tiny language models that are made here. A minute.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import RUNS, cli, conclude, fresh

CAUSES = ("Traceback", "fault of alignfirst")
PLAN = ("--rollouts", 100_000, "--target", "R >= 0.5")
failures: list[str] = []
folder = fresh(RUNS / "audit_bad")
folder.mkdir(parents=True)


def file(name: str, *rows: Any) -> Path:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def sample(reward: float, logp: Any = -2.0, **more: Any) -> dict[str, Any]:
    return {"kind": "sample", "source": "reference", "logp_reference": logp, "reward": reward} | more


def refused(what: str, words: str, *arguments: object) -> None:
    """Exit code 2, one message with these words, nothing on stdout, nothing written."""
    out = fresh(folder / "out")
    done = cli("audit", *arguments, "--out", out)
    said = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""
    print(f"{what:45s} exit {done.returncode}: {said[:120]}")
    if done.returncode != 2 or words not in said or not said.startswith("error: "):
        failures.append(f"{what}: exit code {done.returncode}, {said!r}")
    if done.stdout or out.exists() or any(cause in done.stderr for cause in CAUSES):
        failures.append(f"{what}: more than an error: {done.stdout[:200]} {done.stderr[-300:]}")


def insufficient(what: str, *arguments: object) -> None:
    """Every plan is `insufficient data`, every number has its interval or the reason why not, and so says the page."""
    out = fresh(folder / "out")
    done = cli("audit", *arguments, "--out", out, "--json")
    if done.returncode:
        failures.append(f"{what}: exit code {done.returncode}: {done.stderr[-300:]}")
        return
    found = json.loads(done.stdout, parse_constant=lambda name: failures.append(f"{what}: {name} in the result"))
    calls = {plan["verdict"] for plan in found["plans"]}
    print(f"{what:45s} {', '.join(sorted(calls)) or 'no plan'}: {found['headline'][:90]}")
    if calls != {"insufficient data"} or any(not plan["because"] or not plan["todo"] for plan in found["plans"]):
        failures.append(f"{what}: {calls}")
    for place, n in numbers(found):
        if (n["value"] is None or n["low"] is None or n["high"] is None) and not n["why"]:
            failures.append(f"{what}: {place} has neither an interval nor a reason")
        if n["value"] is None and None not in (n["low"], n["high"]):  # one end alone is a bound: at least so many
            failures.append(f"{what}: {place} has an interval about nothing")
    if cli("audit", *arguments, "--require-go").returncode != 4:
        failures.append(f"{what}: a required go lets it pass")
    page = (out / "audit.html").read_text()
    shown = page[page.index("<main>") : page.index("</main>")]
    if "insufficient data" not in shown or any(word in shown for word in (">nan", ">None", "undefined", "Infinity")):
        failures.append(f"{what}: the page says otherwise")


def numbers(value: Any, place: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Everything with a value and an interval, wherever it stands."""
    if isinstance(value, dict):
        if {"value", "low", "high", "why"} <= set(value):
            yield place, value
        for name, inner in value.items():
            yield from numbers(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner, place)


def tiny_models() -> None:
    """Two models whose tokenizers differ in one word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from alignfirst.lm.models.load import TinyLlama, build, save

    for name, words in (("student", "a b c d"), ("other", "a b c e")):
        vocab = {word: n for n, word in enumerate(["<unk>", "<end>", *words.split()])}
        backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<end>")
        save(build(TinyLlama(6, 16, 1, 2, 1, 32, 32), seed=0), folder / name, tokenizer)


good = [sample(i % 2 * 1.0) for i in range(100)]
rows = file("good.jsonl", *good)
refused("an empty file", "at least one row", "--log-probs", file("empty.jsonl"))
refused("a file of blank lines", "at least one row", "--log-probs", file("blank.jsonl", "", "  "))
for what, bad in (
    ("above 0", 0.5),
    ("NaN", float("nan")),
    ("infinite", float("-inf")),
    ("text", "-2"),
    ("missing", None),
):
    words = {"above 0": "must be <= 0", "text": "must be a number", "missing": "needs logp_reference"}.get(
        what, "finite"
    )
    refused(f"a log-probability that is {what}", words, "--log-probs", file("bad.jsonl", *good, sample(1.0, bad)))
refused("a reward that is NaN", "finite", "--log-probs", file("bad.jsonl", *good, sample(float("nan"))))
refused(
    "a reward in some rows only",
    "either every sample",
    "--log-probs",
    file("bad.jsonl", *good, good[0] | {"reward": None}),
)
refused("beta 0", "beta", "--log-probs", rows, "--beta", 0)
refused("beta below 0", "beta", "--log-probs", rows, "--beta", -0.1)
refused("no rollouts", "rollouts", "--log-probs", rows, "--rollouts", 0)

insufficient("a constant reward", "--log-probs", file("constant.jsonl", *[sample(1.0)] * 200), *PLAN)
insufficient("a constant reward without hits", "--log-probs", file("constant.jsonl", *[sample(0.0)] * 200), *PLAN)
insufficient("zero hits", "--log-probs", file("none.jsonl", *[sample(i / 500) for i in range(200)]), *PLAN)
insufficient("one row, a hit", "--log-probs", file("one.jsonl", sample(1.0)), *PLAN)
insufficient("one row, a miss", "--log-probs", file("one.jsonl", sample(0.0)), *PLAN)

tiny_models()
same = {"prompt": "a b", "chosen": " c", "rejected": " c"}
null = {"prompt": None, "chosen": " c", "rejected": " d"}
model = ("--reference", folder / "student")
refused("pairs: an empty file", "pair", *model, "--pairs", file("pairs.jsonl"))
refused("pairs: all rows dropped", "pair", *model, "--pairs", file("pairs.jsonl", same, null, "not JSON"))
ok = file("pairs.jsonl", {"prompt": "a b", "chosen": " c", "rejected": " d"})
refused("a teacher of another vocabulary", "same tokenizer", *model, "--teacher", folder / "other", "--pairs", ok)
conclude(failures)
