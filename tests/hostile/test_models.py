"""Model directories made to hurt: refused in seconds, in little memory; no code of theirs runs, nothing is fetched."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs alignfirst[lm]")
pytest.importorskip("transformers", reason="needs alignfirst[lm]")

from ledger import Count

from alignfirst.lm.models import load as lm
from alignfirst.lm.models.file_checks import CONFIG, INDEX, WEIGHTS

TINY = lm.TinyLlama(vocab=12, hidden=16, layers=2, heads=4, kv_heads=2, intermediate=24, positions=32)
SECONDS, MEGABYTES = 5.0, 1024.0
CODE = "from pathlib import Path\nPath(r'{canary}').write_text('ran')\n"
Make = Callable[[Path, Path], None]  # (model directory, canary): spoil the directory


class Canary:
    """What a pickle does when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def edited(name: str, **changes: Any) -> Make:
    def make(folder: Path, canary: Path) -> None:
        path = folder / name
        settings = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(settings | changes))

    return make


def written(name: str, data: bytes | str) -> Make:
    def make(folder: Path, canary: Path) -> None:
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())

    return make


def pickled(name: str, keep: bool = False) -> Make:
    def make(folder: Path, canary: Path) -> None:
        (folder / name).write_bytes(pickle.dumps(Canary(canary)))
        if not keep:
            (folder / WEIGHTS).unlink()

    return make


def indexed(shard: str) -> Make:
    def make(folder: Path, canary: Path) -> None:
        (folder / INDEX).write_text(json.dumps({"weight_map": {"model.norm.weight": shard}}))
        (folder / WEIGHTS).unlink()
        (folder.parent / "outside.safetensors").write_bytes(b"x")
        if shard.endswith(".bin"):
            (folder / shard).write_bytes(pickle.dumps(Canary(canary)))

    return make


def coded(name: str, key: str) -> Make:
    def make(folder: Path, canary: Path) -> None:
        for module in ("modeling_x.py", "configuration_x.py", "tokenization_x.py"):
            (folder / module).write_text(CODE.format(canary=canary))
        edited(name, auto_map={key: "modeling_x.X"})(folder, canary)

    return make


def header(length: int, text: bytes = b"{}") -> bytes:
    return length.to_bytes(8, "little") + text


DEEP = "[" * 100_000
BILLION = 10**9
REFUSED: dict[str, Make] = {
    "weights that are a pickle": pickled("pytorch_model.bin"),
    "weights that are a .pt": pickled("model.pt"),
    "shards that are pickles": indexed("pytorch_model-00001-of-00002.bin"),
    "shards elsewhere": indexed("../outside.safetensors"),
    "shards at an absolute path": indexed("/etc/passwd"),
    "missing shards": indexed("model-00001-of-00002.safetensors"),
    "an index of 100,000 brackets": written(INDEX, DEEP),
    "code of its own for the config": coded(CONFIG, "AutoConfig"),
    "code of its own for the model": coded(CONFIG, "AutoModelForCausalLM"),
    "code of its own for the tokenizer": coded("tokenizer_config.json", "AutoTokenizer"),
    "a billion layers": edited(CONFIG, num_hidden_layers=BILLION),
    "a billion layers, each with its type": edited(CONFIG, num_hidden_layers=BILLION, layer_types=None),
    "a hidden size of a billion": edited(CONFIG, hidden_size=BILLION),
    "a vocabulary of a trillion": edited(CONFIG, vocab_size=10**12),
    "an intermediate size of a billion": edited(CONFIG, intermediate_size=BILLION),
    "a trillion positions": edited(CONFIG, max_position_embeddings=10**12, hidden_size=10**7),
    "no heads": edited(CONFIG, num_attention_heads=0),
    "minus one layer": edited(CONFIG, num_hidden_layers=-1),
    "layers that are text": edited(CONFIG, num_hidden_layers="2"),
    "layers that are a list": edited(CONFIG, num_hidden_layers=[2]),
    "layers beyond 64 bits": edited(CONFIG, num_hidden_layers=10**40),
    "an activation that is none": edited(CONFIG, hidden_act="__import__('os').system('x')"),
    "a model type that is none": edited(CONFIG, model_type="../../x"),
    "a model type that is a list": edited(CONFIG, model_type=["llama"]),
    "a quantised model": edited(CONFIG, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True}),
    "a type of numbers that is none": edited(CONFIG, dtype="system"),
    "a config of 100,000 brackets": written(CONFIG, '{"a": ' + DEEP),
    "a config that is a list": written(CONFIG, "[]"),
    "a config of 100 MB": written(CONFIG, '{"a": "' + "x" * 100_000_000 + '"}'),
    "a config that is not UTF-8": written(CONFIG, b"\xff\xfe{}"),
    "an adapter": written("adapter_config.json", "{}"),
    "weights that are cut short": lambda folder, _: os.truncate(folder / WEIGHTS, 2000),
    "weights that claim a header of an exabyte": written(WEIGHTS, header(1 << 60)),
    "weights that claim a header of 90 MB": written(WEIGHTS, header(90_000_000)),
    "weights with a deep header": written(WEIGHTS, header(100_000, DEEP.encode())),
    "weights that are empty": written(WEIGHTS, b""),
    "weights of another shape": edited(CONFIG, hidden_size=32),
    "weights of fewer layers": edited(CONFIG, num_hidden_layers=3),
    "weights of more layers": edited(CONFIG, num_hidden_layers=1),
    "a tokenizer that is none": written("tokenizer.json", "{}"),
    "a tokenizer of 100,000 brackets": written("tokenizer.json", '{"a": ' + DEEP),
}
# Loaded or refused, but without code, network, time or memory
HARMLESS: dict[str, Make] = {
    "a pickle beside the weights": pickled("training_args.bin", keep=True),
    "a quantised model of an unknown kind": edited(CONFIG, quantization_config={"quant_method": "x"}),
    "a tokenizer of a class that is none": edited("tokenizer_config.json", tokenizer_class="../x"),
    "attention from the hub": edited(CONFIG, _attn_implementation="kernels-community/flash-attn"),
    "attention from the hub, as an option": edited(CONFIG, attn_implementation="kernels-community/flash-attn"),
    "a base model elsewhere": edited(CONFIG, _name_or_path="someone/else"),
    "settings of generation that are none": written("generation_config.json", '{"max_length": "x", "cache": 3}'),
    "a chat template that imports": edited(
        "tokenizer_config.json", chat_template="{{ ''.__class__.__mro__[1].__subclasses__() }}"
    ),
}

CHILD = """
import json, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # a model that gets through must not take the machine
connected = []
sys.addaudithook(lambda name, args: connected.append(str(args)) if name == "socket.connect" else None)
from pathlib import Path
from alignfirst.errors import InputError
from alignfirst.lm.models.load import load

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

folders = [Path(a) for a in sys.argv[1:]]
load(folders[0])  # imports
for folder in folders:
    begin = time.process_time()
    try:
        load(folder)
        said = "loaded"
    except InputError as e:
        said = "refused: " + str(e)
    except Exception as e:
        said = "fault: " + type(e).__name__ + ": " + str(e)[:300]
    print(json.dumps([str(folder), said, time.process_time() - begin, peak(), connected]), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads memory from /proc")
@pytest.mark.timeout(600)
def test_hostile_models(tmp_path: Path, count: Callable[[str], Count]) -> None:
    """A model directory cannot hurt: pickles, code of its own, missing or stray shards, absurd sizes and broken files
    are refused within five seconds of CPU and 1 GB in words of one line; nothing of theirs runs, nothing is fetched."""
    good = tmp_path / "good"
    lm.save(lm.build(TINY, seed=3), good, None)
    _tokenizer().save_pretrained(good)
    canary, names = tmp_path / "canary", {str(good): "good"}
    for i, (name, make) in enumerate((REFUSED | HARMLESS).items()):
        folder = tmp_path / str(i) / "model"
        shutil.copytree(good, folder)
        make(folder, canary)
        names[str(folder)] = name
    env = os.environ | {"HF_HUB_OFFLINE": "", "HF_HOME": str(tmp_path / "hub")}
    done = subprocess.run([sys.executable, "-c", CHILD, *names], capture_output=True, text=True, timeout=580, env=env)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(names), f"it stopped at {list(names.values())[len(found)]}: {done.stderr[-2000:]}"
    counted, wrong = count("models"), []
    for folder, said, seconds, megabytes, connected in found:
        name = names[folder]
        wanted = "loaded" if name == "good" else "refused" if name in REFUSED else ""
        ok = said.startswith(wanted) and not said.startswith("fault") and seconds < SECONDS and megabytes < MEGABYTES
        ok = ok and not connected and len(said) < 800 and said.isprintable()
        if name != "good":
            counted.tried += 1
            counted.survived += ok
            counted.most(cpu_seconds=seconds, megabytes=megabytes)
        wrong += [] if ok else [f"{name}: {said[:300]} ({seconds:.1f} s, {megabytes:.0f} MB, {connected})"]
    assert not canary.exists(), "code of a model ran"
    assert not wrong, "\n".join(wrong)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {w: n for n, w in enumerate(["<unk>", "<end>", *"abcdefghij"])}
    backend = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<end>")
