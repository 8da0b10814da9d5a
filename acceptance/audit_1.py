"""The audit of SmolLM2-135M-Instruct on 64 preference pairs, and of a cut of ten of its layers, distilled briefly.

The full model is the teacher of the cut: what the cut has lost is shown row by row, checked against another way of
scoring, and read off the page in a browser. Twelve minutes on one core.

    python acceptance/audit_1.py PAIRS.jsonl      # or ALIGNFIRST_PAIRS=PAIRS.jsonl

PAIRS is any file in one of TRL's preference formats with a few hundred rows; the line was written for AlpacaEval's 805.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from common import RUNS, cli, conclude, fresh

ROWS, LAYERS = 64, 10
ANSWERS, NEW_TOKENS, UPDATES, BATCH, RATE = 128, 64, 18, 16, 5e-4  # the brief distillation


def pairs_file() -> Path:
    given = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ALIGNFIRST_PAIRS")
    if given is None or not Path(given).is_file():
        print(f"skipped: {'no file was named' if given is None else f'there is no file {given}'}. {__doc__}")
        sys.exit(2)
    return Path(given)


def audited(out: Path, *arguments: object) -> dict[str, Any]:
    done = cli("audit", *arguments, "--rows", ROWS, "--out", out, "--json")
    if done.returncode:
        sys.exit(f"the audit exited {done.returncode}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout))


def distilled(gguf: Path, pairs: Path, folder: Path) -> tuple[Any, Any]:
    """The teacher, and its cut trained on its own answers to prompts that are not audited; saved in `folder`."""
    from alignfirst.data.pairs import read_pairs
    from alignfirst.data.tokenise import Tokeniser
    from alignfirst.lm.distil.distillation import DistilSettings, distil
    from alignfirst.lm.models.load import cut_layers, load, save
    from alignfirst.lm.text.batch import Prompts
    from alignfirst.lm.training.optim import OptimSettings

    teacher = load(str(gguf))
    tokens = Tokeniser(teacher.tokenizer)
    others = [row.prompt for row in tokens.rows(read_pairs(pairs).rows[ROWS:], answers=0)]
    [(length, _)] = Counter(map(len, others)).most_common(1)  # prompts of one length are answered together
    asked = Prompts([_tensor(ids) for ids in others if len(ids) == length][:ANSWERS], NEW_TOKENS)
    student = cut_layers(teacher.model, LAYERS)
    optim = OptimSettings(RATE, warmup=0.1, decay=0.5)
    settings = DistilSettings("forward-kl", optim, 1.0, ANSWERS, UPDATES, BATCH, top_k=64)
    result = distil(teacher.model, student, asked, settings, seed=0, log=_say)
    losses = [x for x in result.curves["loss"] if x is not None]
    print(f"distilled: {UPDATES} updates, KL a token from {losses[0]:.2f} to {losses[-1]:.2f} nats")
    save(student, folder, teacher.tokenizer)
    return teacher, student


def _tensor(ids: list[int]) -> Any:
    import torch

    return torch.tensor(ids)


def _say(update: int, values: Any) -> None:
    print(f"update {update}: {values['loss']:.3f} nats a token", file=sys.stderr)


def by_hand(model: Any, tokenizer: Any, pair: Any) -> float:
    """log p(chosen | prompt) of a text pair: one plain forward pass, summed in float64."""
    import torch

    prompt = tokenizer(pair.prompt)["input_ids"]
    ids = tokenizer(pair.prompt + pair.chosen + tokenizer.eos_token)["input_ids"]
    at = next((i for i, (a, b) in enumerate(zip(prompt, ids, strict=False)) if a != b), len(prompt))
    with torch.no_grad():
        logp = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return float(sum(logp[i - 1, ids[i]] for i in range(at, len(ids))))


def in_browser(page: Path, rows: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the page as a reader meets it."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        return ["the page could not be looked at: there is no Chromium"]
    wrong: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--headless"])
        for width in (1440, 390):
            tab = browser.new_page(viewport={"width": width, "height": 900})
            tab.set_default_timeout(300_000)  # milliseconds: others may be at work on the same machine
            tab.on("pageerror", lambda e: wrong.append(str(e)))
            tab.on("request", lambda r: None if r.url.startswith("file:") else wrong.append(f"asked for {r.url[:90]}"))
            tab.goto(page.as_uri())
            for name in ("scatter", "cost", "coverage", "calibration"):
                figure = tab.locator(f"[data-figure={name}]")
                figure.scroll_into_view_if_needed()
                figure.locator(".plot .main-svg").first.wait_for(state="attached")
            if tab.evaluate("document.documentElement.scrollWidth") != width:
                wrong.append(f"the page is wider than {width}")
            tab.locator("#rows-sort").select_option("line")
            while (more := tab.get_by_role("button", name="Show ")).count() and more.first.is_visible():
                more.first.click()
            shown = tab.locator(".worst > li").all_inner_texts()
            for row, text in zip(sorted(rows, key=lambda r: r["line"]), shown, strict=True):
                told = re.search(r"log q − log p\s+(\S+)", text.replace("\u202f", ""))
                lost = float(told[1].replace("−", "-")) if told is not None else None
                exact = row["cost_chosen"]
                if (
                    not text.startswith(f"Line {row['line']}\n")
                    or lost is None
                    or abs(lost - exact) > 0.5 + 1e-5 * abs(exact)
                ):
                    wrong.append(f"line {row['line']} shows that it lost {lost}, not {exact}")
            if not tab.locator(".answer mark").count():
                wrong.append("no costly token is marked")
            tab.screenshot(path=page.with_name(f"audit-{width}.png"))
            tab.close()
        browser.close()
    return wrong


def main() -> None:
    pairs = pairs_file()
    from alignfirst.data.pairs import read_pairs
    from alignfirst.lm.models.load import smollm2_gguf

    gguf, folder, failures = smollm2_gguf(), fresh(RUNS / "audit_lm"), []
    full = audited(folder / "full", "--reference", gguf, "--pairs", pairs)
    told = full["pairs"]["discrimination"]
    print(f"full model: {full['pairs']['rows']} rows, chosen likelier in {told['value']:.0%}")
    teacher, student = distilled(gguf, pairs, folder / "cut")
    found = audited(folder / "lost", "--reference", folder / "cut", "--teacher", gguf, "--pairs", pairs)

    rows, whole = found["pairs"]["every"], {row["line"]: row for row in full["pairs"]["every"]}
    print(" line   log q(full)    log q(cut)         lost  a token")
    for row in rows:
        numbers = (whole[row["line"]]["logp_chosen"], row["logp_chosen"], row["cost_chosen"])
        print(
            f"{row['line']:5d}{numbers[0]:14.1f}{numbers[1]:14.1f}{numbers[2]:13.1f}{row['cost_per_token_chosen']:9.2f}"
        )
        if abs(numbers[1] - numbers[0] - numbers[2]) > 1e-6 * abs(numbers[1]):
            failures.append(f"line {row['line']}: what was lost is not the difference of the two audits")
    for side in ("chosen", "rejected"):
        n = found["pairs"][f"cost_per_token_{side}"]
        print(f"{side}: log q - log p = {n['value']:.2f} [{n['low']:.2f}, {n['high']:.2f}] nats a token")
    if len(rows) < ROWS * 0.9 or any(row["cost_chosen"] is None for row in rows):
        failures.append(f"{len(rows)} rows, some without the loss")
    if not found["pairs"]["cost_per_token_chosen"]["high"] < 0:
        failures.append("twenty layers were cut out, and nothing was lost")

    kept = sorted(read_pairs(pairs, ROWS).rows, key=lambda pair: len(str(pair.chosen)))[:4]
    for pair in kept:
        row = next(row for row in rows if row["line"] == pair.line)
        mine = by_hand(student, teacher.tokenizer, pair) - by_hand(teacher.model, teacher.tokenizer, pair)
        print(f"line {pair.line}: lost {row['cost_chosen']:.4f}, by hand {mine:.4f}")
        if abs(row["cost_chosen"] - mine) > 2e-3:  # two float32 scores, each within 1e-3 nats
            failures.append(f"line {pair.line}: lost {row['cost_chosen']}, by hand {mine}")
    failures += in_browser(folder / "lost" / "audit.html", rows)
    print(f"look at it: {folder / 'lost' / 'audit.html'}")
    conclude(failures)


if __name__ == "__main__":
    main()
