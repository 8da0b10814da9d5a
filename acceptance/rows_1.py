"""Issue 14, rows: the whole table of public shapes through `run --dry-run` and `audit`, counts and decoded texts
compared with the plain file's. Exit 2, with the reason, where the folder of cases is not there."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import ROOT, cli, conclude

CASES = ROOT.parent / "shared" / "cases"
SAME = {
    "plain.jsonl": "plain", "array.json": "plain", "pairs.csv": "plain", "alpaca.jsonl": "plain", "msgs.jsonl": "msgs",
    "ultrafeedback.jsonl": "msgs", "fullconv.jsonl": "msgs", "sharegpt.jsonl": "msgs", "hh.jsonl": "msgs",
    "system.jsonl": "system", "orca.jsonl": "system",
}  # fmt: skip
TEMPLATED = ("tool_answer.jsonl", "tool_empty.jsonl", "tool_onlycall.jsonl", "reasoning.jsonl")
PLAIN = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
FULL = (
    "{% if tools %}<tools> {{ tools|tojson }} <end>\n{% endif %}{% for m in messages %}<{{ m['role'] }}> "
    "{% if m.reasoning_content %}<think> {{ m.reasoning_content }} </think> {% endif %}{{ m['content'] or '' }}"
    "{% for c in m.tool_calls or [] %}<call> {{ c.function|tojson }}{% endfor %} <end>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)


def model(folder: Path, template: str) -> Any:
    """A tiny random Llama whose tokens are bytes, so that decoded texts are exact."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({c: n for n, c in enumerate([*alphabet, "<end>"])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")
    tokenizer.chat_template = template
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=1024, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def dry_run(folder: Path, data: Path) -> tuple[int, dict[str, Any], str]:
    """Exit code, what is known of the data, stderr."""
    study = folder.parent / f"{data.stem}.yaml"
    begun = cli("init", study, "--teacher", folder, "--pairs", data, "--student-layers", 2, "--force")
    done = cli(
        "run", study, "--dry-run", "--json", "--out", folder.parent / "run", "--set", "data.held_out=0.3",
        "--set", "distil.new_tokens=8", "--set", "measure.new_tokens=8", "--set", "budget.match=updates",
    )  # fmt: skip
    text = done.stdout[done.stdout.find("{") :]
    found = json.loads(text) if done.returncode == 0 else {}
    return done.returncode or begun.returncode, found, done.stderr


def decoded(folder: Path, data: Path, tokenizer: Any) -> list[tuple[str, str, str]]:
    """What `run` trains on: prompt, chosen and rejected of every row, in the order of the file."""
    from alignfirst.study.config.study_config import from_mapping
    from alignfirst.worlds.user_models.resolved_inputs import resolve_inputs, rows_of

    study = {"world": "hf", "teacher": {"model": str(folder)}, "student": {"layers": 2}}
    known = resolve_inputs(from_mapping({**study, "data": {"pairs": str(data), "held_out": 0.3}}))
    rows = rows_of(known.data, known.index, known.loaded_tokenizer).read(range(known.index.meta["kept"]))
    rows.sort(key=lambda row: row.line)
    return [(tokenizer.decode(r.prompt), tokenizer.decode(r.chosen), tokenizer.decode(r.rejected)) for r in rows]


def audit(folder: Path, data: Path, out: Path) -> tuple[int, str]:
    done = cli("audit", "--reference", folder, "--pairs", data, "--out", out)
    return done.returncode, done.stdout + done.stderr


def expected(data: Path, tokenizer: Any) -> list[tuple[str, str]]:
    """Whole conversations as the template renders them with tools, chosen and rejected, to the end of the turn."""
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    return [
        tuple(
            tokenizer.apply_chat_template(row["prompt"] + row[name], tools=row.get("tools"), tokenize=False).rstrip(
                "\n"
            )
            for name in ("chosen", "rejected")
        )
        for row in rows
    ]


def check_same(base: Path, tokenizer: Any, folder: Path, failures: list[str]) -> None:
    wanted: dict[str, list[tuple[str, str, str]]] = {}
    for name, kind in SAME.items():
        data = CASES / "shapes" / name
        code, found, said = dry_run(folder, data)
        kept = found.get("preflight", found).get("data", {}).get("kept")
        audited, words = audit(folder, data, base / f"audit-{data.stem}")
        texts = decoded(folder, data, tokenizer) if code == 0 else []
        same = texts == wanted.setdefault(kind, texts)
        print(f"{name:22} dry run {code}, kept {kept}; audit {audited}; as {kind}: {same}", flush=True)
        if code or audited or kept != 20 or "20 of 20 rows kept" not in words or not same:
            failures.append(f"{name}: {said[-300:]} {words[-300:]}")
    plain = [row for row in wanted["plain"]]
    for kind, head in (("msgs", "<user> "), ("system", "<system> Be brief. <end>\n<user> ")):
        turned = [
            (f"{head}{p} <end>\n<assistant> ", *(f"{answer.removesuffix('<end>')} <end>" for answer in answers))
            for p, *answers in plain
        ]
        if turned != wanted[kind]:
            failures.append(f"{kind}: {wanted[kind][0]} instead of {turned[0]}")


def check_templated(base: Path, folders: dict[str, tuple[Path, Any]], failures: list[str]) -> None:
    for name in TEMPLATED:
        data = CASES / "shapes" / name
        folder, tokenizer = folders["full"]
        code, _, said = dry_run(folder, data)
        audited, words = audit(folder, data, base / f"audit-{data.stem}")
        whole = [(p + a, p + b) for p, a, b in decoded(folder, data, tokenizer)] if code == 0 else []
        same = whole == expected(data, tokenizer)
        refused, _, why = dry_run(folders["plain"][0], data)
        also, reason = audit(folders["plain"][0], data, base / "audit-refused")
        print(
            f"{name:22} dry run {code}, audit {audited}, as the template: {same}; ignored: {refused}, {also}",
            flush=True,
        )
        if code or audited or not same or "20 of 20 rows kept" not in words:
            failures.append(f"{name}: {said[-300:]} {words[-300:]}")
        if (refused, also) != (2, 2) or not all("the chat template ignores" in text for text in (why, reason)):
            failures.append(f"{name}: what the template ignores is not the reason: {why[-300:]} {reason[-300:]}")


def main() -> None:
    if not (CASES / "shapes").is_dir():
        print(f"skipped: there is no folder {CASES}")
        sys.exit(2)
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        base = Path(place)
        os.environ["ALIGNFIRST_CACHE"] = str(base / "cache")
        folders = {}
        for name, template in (("plain", PLAIN), ("full", FULL)):
            folders[name] = (base / name, model(base / name, template))
        check_same(base, folders["plain"][1], folders["plain"][0], failures)
        check_templated(base, folders, failures)
    conclude(failures)


if __name__ == "__main__":
    main()
