"""Loading: what is refused, unopened, and what comes back exactly as it was."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


from alignfirst.errors import InputError
from alignfirst.extras import need
from alignfirst.lm.models import load as lm

sys.path.insert(0, str(Path(__file__).parent))

from tiny_models import COMMIT, TINY, refused, tokenizer


@pytest.fixture(scope="module")
def model() -> Any:
    return lm.build(TINY, seed=3)


@pytest.fixture
def saved(model: Any, tmp_path: Path) -> Path:
    lm.save(model, tmp_path / "m", tokenizer(template="{{ messages }}"))
    return tmp_path / "m"


# -- directories ------------------------------------------------------------------------------------------------------


def test_a_saved_model_loads_as_it_was(model: Any, saved: Path) -> None:
    loaded = lm.load(saved)
    assert all(torch.equal(a, b) for a, b in zip(loaded.model.parameters(), model.parameters(), strict=True))
    assert lm.compare_tokenizers(loaded.tokenizer, tokenizer(template="{{ messages }}")) == []
    assert loaded.resolved.path == saved and loaded.resolved.commit.startswith("sha256:")
    assert not loaded.model.training


def test_dtype_is_as_asked(saved: Path) -> None:
    assert lm.load(saved, torch.bfloat16).model.dtype == torch.bfloat16


def test_a_model_without_tokenizer_loads(model: Any, tmp_path: Path) -> None:
    lm.save(model, tmp_path / "m")
    assert lm.load(str(tmp_path / "m")).tokenizer is None


def test_identity_is_the_content(saved: Path, model: Any, tmp_path: Path) -> None:
    first = lm.resolve(lm.Source(str(saved))).commit
    shutil.copytree(saved, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("words")
    assert lm.resolve(lm.Source(str(tmp_path / "copy"))).commit == first
    lm.save(lm.build(TINY, seed=4), tmp_path / "copy")
    assert lm.resolve(lm.Source(str(tmp_path / "copy"))).commit != first


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt", ".pkl"])
@pytest.mark.parametrize("with_config", [True, False])
def test_a_pickle_is_refused_unopened(saved: Path, suffix: str, with_config: bool) -> None:
    """A named pipe without a writer: whoever opens it hangs until the test's time is up."""
    (saved / "model.safetensors").unlink()
    if not with_config:
        (saved / "config.json").unlink()
    os.mkfifo(saved / f"pytorch_model{suffix}")
    with refused("pickle", "pytorch_model", "not opened"):
        lm.load(saved)


def test_a_pickle_beside_safetensors_is_left_alone(saved: Path) -> None:
    os.mkfifo(saved / "pytorch_model.bin")
    lm.load(saved)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused(saved: Path, file: str) -> None:
    settings = json.loads((saved / file).read_text())
    settings["auto_map"] = {"AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.T", None]}
    (saved / file).write_text(json.dumps(settings))
    (saved / "evil.py").write_text(f"open({str(saved / 'ran')!r}, 'w')\n")
    with refused("code of its own", file):
        lm.load(saved)
    assert not (saved / "ran").exists()


def shard(folder: Path, model: Any) -> list[str]:
    """Cut the weights into two shards with an index."""
    from safetensors.numpy import save_file

    arrays = lm.to_arrays(model)
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    halves = [dict(list(arrays.items())[:5]), dict(list(arrays.items())[5:])]
    for name, half in zip(names, halves, strict=True):
        save_file(half, folder / name, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {k: n for n, half in zip(names, halves, strict=True) for k in half}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return names


def test_shards_load(saved: Path, model: Any) -> None:
    shard(saved, model)
    assert torch.equal(lm.load(saved).model.lm_head.weight, model.lm_head.weight)


def test_a_missing_shard_is_refused_by_name(saved: Path, model: Any) -> None:
    names = shard(saved, model)
    (saved / names[1]).unlink()
    with refused("1 of 2 missing", names[1]):
        lm.load(saved)


def test_a_shard_that_lacks_a_tensor_is_refused(saved: Path, model: Any) -> None:
    names = shard(saved, model)
    shutil.copy(saved / names[0], saved / names[1])
    with refused("lacks", "model.layers"):
        lm.load(saved)


@pytest.mark.parametrize("where", ["../elsewhere.safetensors", "/etc/model.safetensors", "sub/m.safetensors"])
def test_an_index_may_not_point_elsewhere(saved: Path, model: Any, where: str) -> None:
    shard(saved, model)
    (saved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": where}}))
    with refused("beside their index"):
        lm.load(saved)


def test_an_index_of_pickles_is_refused(saved: Path, model: Any) -> None:
    shard(saved, model)
    (saved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "part-1.bin"}}))
    with refused("pickle"):
        lm.load(saved)


def test_truncated_weights_are_refused(saved: Path) -> None:
    file = saved / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with refused("whole safetensors"):
        lm.load(saved)


@pytest.mark.parametrize("layers", [1, 3])
def test_weights_that_do_not_fit_the_config_are_refused(saved: Path, layers: int) -> None:
    """transformers would fill up with random weights, or drop some, and only log it."""
    settings = json.loads((saved / "config.json").read_text())
    settings["num_hidden_layers"] = layers
    (saved / "config.json").write_text(json.dumps(settings))
    with refused("fit config.json", "model.layers"):
        lm.load(saved)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "no-such-model"}', "{}"])
def test_a_broken_config_is_refused(saved: Path, text: str) -> None:
    (saved / "config.json").write_text(text)
    with pytest.raises(InputError):
        lm.load(saved)


def test_a_broken_tokenizer_is_refused(saved: Path) -> None:
    (saved / "tokenizer.json").write_text('{"model": {}}')
    with refused("tokenizer"):
        lm.load(saved)


def test_an_adapter_is_refused(saved: Path) -> None:
    (saved / "adapter_config.json").write_text("{}")
    with refused("adapter", "Merge"):
        lm.load(saved)


def test_odd_places_are_refused(saved: Path, tmp_path: Path) -> None:
    for place in (str(tmp_path / "none"), "./none/at/all", str(saved / "config.json"), "a b", "x.gguf"):
        with pytest.raises(InputError):
            lm.load(place)
    with refused("revision"):
        lm.load(lm.Source(str(saved), revision="main"))
    (tmp_path / "empty").mkdir()
    with refused("config.json"):
        lm.load(tmp_path / "empty")


def test_missing_packages_are_named_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    with refused("no nothing_like_this", r"pip install 'alignfirst\[lm\]'"):
        need("json", "nothing_like_this")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import alignfirst\n"
        "from alignfirst.errors import InputError\n"
        "try:\n    import alignfirst.lm.text.logprobs\n"
        "except InputError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "no torch" in done.stdout and "pip install 'alignfirst[lm]'" in done.stdout


# -- the hub ----------------------------------------------------------------------------------------------------------


class Hub(http.server.BaseHTTPRequestHandler):
    """Enough of a hub: one repository, one branch, every request noted."""

    files: dict[str, bytes]
    asked: list[str]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        self.asked.append(self.path)
        if self.path.startswith(("/api/models/org/name/revision/main", f"/api/models/org/name/revision/{COMMIT}")):
            siblings = [{"rfilename": name} for name in self.files]
            return self.send(json.dumps({"id": "org/name", "sha": COMMIT, "siblings": siblings}).encode(), body)
        if self.path.startswith("/api/models/org/name/revision/"):
            return self.fail("RevisionNotFound")
        if self.path.startswith(f"/api/models/org/name/tree/{COMMIT}"):
            entries = [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in self.files.items()]
            return self.send(json.dumps(entries).encode(), body)
        name = self.path.rsplit("/", 1)[-1].split("?")[0]
        if self.path.startswith(f"/org/name/resolve/{COMMIT}/") and name in self.files:
            return self.send(self.files[name], body)
        return self.fail("RepoNotFound")

    def send(self, content: bytes, body: bool) -> None:
        self.send_response(200)
        headers = {"Content-Length": str(len(content)), "X-Repo-Commit": COMMIT, "ETag": f'"{hash(content)}"'}
        for key, value in {**headers, "Content-Type": "application/json"}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def fail(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def hub(saved: Path) -> Iterator[tuple[str, type[Hub]]]:
    files = {p.name: p.read_bytes() for p in saved.iterdir()} | {"pytorch_model.bin": b"never", "README.md": b"words"}
    kind = type("OneHub", (Hub,), {"files": files, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", kind
    server.shutdown()
    server.server_close()
    thread.join()


def resolve_in_child(home: Path, endpoint: str, source: str, **env: str) -> dict[str, str]:
    """The hub library reads its settings when it is imported, hence a process of its own."""
    code = (
        "import json\nfrom alignfirst.errors import InputError\nfrom alignfirst.lm.models.hub import Source, resolve\n"
        f"try:\n    r = resolve({source})\n    print(json.dumps(dict(path=str(r.path), commit=r.commit)))\n"
        "except InputError as e:\n    print(json.dumps(dict(error=str(e))))\n"
    )
    settings = {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **settings, **env}, capture_output=True, text=True, check=True
    )
    answer: dict[str, str] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def test_a_branch_is_resolved_to_its_commit_and_found_again_offline(hub: Any, tmp_path: Path, model: Any) -> None:
    endpoint, kind = hub
    got = resolve_in_child(tmp_path / "home", endpoint, "Source('org/name', 'main')")
    assert got["commit"] == COMMIT, got
    assert torch.equal(lm.load(got["path"]).model.lm_head.weight, model.lm_head.weight)
    fetched = {p.rsplit("/", 1)[-1] for p in kind.asked if "/resolve/" in p}
    assert "pytorch_model.bin" not in fetched and "model.safetensors" in fetched
    asked = len(kind.asked)
    again = resolve_in_child(tmp_path / "home", endpoint, "Source('org/name')", HF_HUB_OFFLINE="1")
    assert again == got and len(kind.asked) == asked
    lost = resolve_in_child(tmp_path / "other", endpoint, "Source('org/name')", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in lost["error"] and len(kind.asked) == asked


def test_what_the_hub_refuses_is_said_plainly(hub: Any, tmp_path: Path) -> None:
    endpoint, _ = hub
    assert "revision must exist" in resolve_in_child(tmp_path, endpoint, "Source('org/name', 'gone')")["error"]
    assert "model must exist" in resolve_in_child(tmp_path, endpoint, "Source('org/none')")["error"]


def test_code_and_pickles_on_the_hub_are_refused_before_weights_are_fetched(hub: Any, tmp_path: Path) -> None:
    endpoint, kind = hub
    kind.files["config.json"] = b'{"auto_map": {}}'
    assert "code of its own" in resolve_in_child(tmp_path / "a", endpoint, "Source('org/name')")["error"]
    assert not any("safetensors" in p for p in kind.asked)


# -- tokenizers ----------------------------------------------------------------------------------------------


def test_tokenizers_are_compared_by_content() -> None:
    a = tokenizer(template="x")
    assert lm.compare_tokenizers(a, tokenizer(template="x")) == []
    assert lm.compare_tokenizers(None, None) == []
    assert "only the first" in lm.compare_tokenizers(a, None)[0]
    swapped = lm.compare_tokenizers(a, tokenizer("b a c d e f g h i j", "x"))  # the same size
    assert any("2 tokens differ" in d and "'a'" in d for d in swapped)
    assert any("size" in d for d in lm.compare_tokenizers(a, tokenizer("a b", "x")))
    assert lm.compare_tokenizers(a, tokenizer(template="y")) == ["chat template: 1 characters and 1 characters"]
    other = tokenizer(template="x")
    other.eos_token = "a"
    assert any("eos_token_id" in d for d in lm.compare_tokenizers(a, other))
    lowered = tokenizer(template="x")
    from tokenizers import normalizers

    lowered.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert lm.compare_tokenizers(a, lowered) == ["normalizer differs"]
