"""`alignfirst.audit()` on log-probabilities, on a study's model and on two small models with pairs.

Findings equal those of the command, on this machine and with `--engine ray`; at another beta nothing is computed, also
in another process. Two minutes on one core.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import alignfirst
from alignfirst import Plans
from alignfirst.store import Store
from common import cli, conclude

TOKENS, PAIRS, SAMPLES = 32, 40, 8
STUDY = """
world: grammar
seeds: 1
beta: 0.1
algorithms: [grpo]
p_star: {words: 8, own: 4, successors: 2, behaviours: 3, length: 4, target_weight: 0.3}
sft: {hidden: 8, layers: 1, heads: 2, intermediate: 8, steps: 30, batch: 32}
distil: {hidden: 4, heads: 1, intermediate: 4, steps: 4, batch: 16, samples: 64}
align: {updates: 8, samples: 16, group_size: 4}
"""
failures: list[str] = []


def two_models() -> None:
    """A student and a teacher of one small vocabulary, pairs between them, and a reward."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from alignfirst.lm.models import load as lm

    words = [f"w{n}" for n in range(TOKENS - 2)]
    vocabulary = {word: n for n, word in enumerate(["<unk>", "<end>", *words])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<end>")
    for name, seed in (("student", 1), ("teacher", 2)):
        tiny = lm.TinyLlama(TOKENS, hidden=16, layers=1, heads=2, kv_heads=1, intermediate=32, positions=64)
        lm.save(lm.build(tiny, seed=seed), Path(name), tokenizer)
    rows = [{"prompt": f"w{n % 20} w{n}", "chosen": " w3 w4", "rejected": f" w{n % 7}"} for n in range(1, PAIRS + 1)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows if row["rejected"] != " w3"))
    Path("rewards.py").write_text(
        "def even(prompts, responses):\n    return [float(len(r.split()) % 2 == 0) for r in responses]\n"
    )


def command(*arguments: object) -> dict[str, Any]:
    done = cli("audit", *arguments, "--json")
    if done.returncode:
        failures.append(f"alignfirst audit {' '.join(map(str, arguments))} exited {done.returncode}: {done.stderr}")
        return {}
    return dict(json.loads(done.stdout))


def stored() -> dict[str, str]:
    return Store(Path(os.environ["ALIGNFIRST_CACHE"]) / "audit").digests()


def same(what: str, found: Any, told: dict[str, Any]) -> None:
    equal = json.loads(json.dumps(found.plain())) == told
    verdicts = ", ".join(sorted(set(found.calls))) or found.verdict.call
    print(f"{what}: {len(found.judged)} plans ({verdicts}), {'equal' if equal else 'DIFFERENT'}")
    if not equal:
        failures.append(f"{what}: the call and the command say different things")


def check(what: str, options: list[object], *given: Any, ray: bool, **more: Any) -> None:
    """The call, then the command; both at another beta, from what is stored; the command on Ray from an empty cache."""
    begin = time.perf_counter()
    found = alignfirst.audit(*given, **more, plans=Plans(betas=[0.1], rollouts=1000))
    seconds, first = time.perf_counter() - begin, stored()
    arguments = [*options, "--rollouts", 1000]
    told = command(*arguments, "--beta", 0.1)
    same(f"{what}, command", found, told)
    begin = time.perf_counter()
    again = alignfirst.audit(*given, **more, plans=Plans(betas=[0.3], rollouts=1000))
    print(f"{what}, another beta: {len(first)} artefacts, {seconds:.2f} s; then {time.perf_counter() - begin:.2f} s")
    same(f"{what}, another beta", again, command(*arguments, "--beta", 0.3))
    if stored() != first:
        failures.append(f"{what}: something was computed at another beta")
    if ray and first:
        on_ray(what, found, [*arguments, "--beta", 0.1], first)


def on_ray(what: str, found: Any, arguments: list[object], first: dict[str, str]) -> None:
    if find_spec("ray") is None:
        print(f"{what}, --engine ray: skipped, ray is not installed")
        return
    cache = os.environ["ALIGNFIRST_CACHE"]
    os.environ["ALIGNFIRST_CACHE"] = cache + "-ray"
    same(f"{what}, --engine ray", found, command(*arguments, "--engine", "ray"))
    if stored() != first:
        failures.append(f"{what}: other artefacts on Ray")
    os.environ["ALIGNFIRST_CACHE"] = cache


os.environ |= {"OMP_NUM_THREADS": "1"}
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    os.environ["ALIGNFIRST_CACHE"] = str(Path(folder) / "cache")
    two_models()
    Path("study.yaml").write_text(STUDY)
    models = ["--reference", "student", "--teacher", "teacher", "--pairs", "pairs.jsonl", "--target", "R >= 1"]
    models += ["--reward", "rewards:even", "--samples", SAMPLES, "--new-tokens", 6]
    asked = {"teacher": "teacher", "pairs": "pairs.jsonl", "target": "R >= 1", "reward": "rewards:even"}
    sizes = {"samples": SAMPLES, "new_tokens": 6}
    check("two models with pairs", models, "student", ray=True, **asked, **sizes)
    for study in ("mog", "study.yaml"):
        address = f"{study}:distil-align/distil"
        os.environ["ALIGNFIRST_CACHE"] = str(Path(folder) / f"cache-{Path(study).stem}")
        check(f"a model of {study}", ["--reference", address], address, ray=True)
    alignfirst.audit("student", **asked, **sizes, out="rows")
    rows = "rows/log_probs.jsonl"
    check("log-probabilities", ["--log-probs", rows, "--target", "R >= 1"], rows, ray=False, target="R >= 1")
    os.chdir("/")
conclude(failures)
