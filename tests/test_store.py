"""The store: what goes in comes out, damage never does."""

from __future__ import annotations

import errno
import gc
import json
import multiprocessing
import os
import shutil
import time
import tracemalloc
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from alignfirst import files
from alignfirst.errors import StoreError
from alignfirst.nodes import Artefact
from alignfirst.store import CorruptError, Store, decode, encode

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
DTYPES = st.sampled_from([np.dtype(t) for t in ("f8", "f4", "f2", "i8", "i4", "u1", "?", ">f8")])
ARRAYS = DTYPES.flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=4)))
ARTEFACTS = st.builds(
    Artefact, st.dictionaries(st.text(min_size=1, max_size=8), ARRAYS, max_size=3), st.dictionaries(st.text(), JSON)
)


def artefact(i: int) -> Artefact:
    return Artefact({"x": np.arange(4.0) + i}, {"i": i})


def filled(root: Path, count: int = 4, start: int = 0) -> Path:
    """A store of one shard; returns the shard."""
    Store(root).put_many([(f"k{i}", artefact(i)) for i in range(start, start + count)])
    return next(root.glob("*.shard"))


def same(a: Artefact, b: Artefact) -> bool:
    return (
        a.meta == b.meta
        and a.arrays.keys() == b.arrays.keys()
        and all(np.array_equal(a.arrays[n], b.arrays[n], equal_nan=a.arrays[n].dtype.kind == "f") for n in a.arrays)
        and all(a.arrays[n].shape == b.arrays[n].shape for n in a.arrays)
    )


@given(ARTEFACTS)
def test_encoding_round_trips_and_is_deterministic(item: Artefact) -> None:
    payload = encode(item)
    assert same(decode(b"".join(payload)), item)
    shuffled = Artefact(dict(reversed(item.arrays.items())), dict(reversed(item.meta.items())))
    assert encode(shuffled) == payload


def test_views_in_another_memory_order_keep_their_values() -> None:
    x = np.arange(6.0).reshape(2, 3)
    assert np.array_equal(decode(b"".join(encode(Artefact({"x": x.T})))).arrays["x"], x.T)
    assert np.array_equal(decode(b"".join(encode(Artefact({"x": x[:, ::2]})))).arrays["x"], x[:, ::2])


def test_the_bytes_are_those_of_the_library() -> None:
    """Of every type, of no and of one dimension, empty, and high byte first; with a name that JSON must escape."""
    kinds = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
    kinds += ["bool", "float16", "float32", "float64", "complex64", ">f4"]
    arrays = {f'{i} "\n\u00e9 {kind}': np.arange(6).astype(kind).reshape(2, 3) for i, kind in enumerate(kinds)}
    arrays |= {"none": np.array(2.5, np.float32), "empty": np.zeros((0, 3)), "b": np.ones(2), "a": np.ones(1)}
    meta = {"n": 1, "text": "\u00e9\n"}
    text = json.dumps(meta, sort_keys=True, separators=(",", ":"))
    assert b"".join(encode(Artefact(arrays, meta))) == save(arrays, {"meta": text})


def test_an_array_without_a_file_format_is_refused() -> None:
    with pytest.raises(ValueError, match="array x is of type complex128, which has no file format"):
        encode(Artefact({"x": np.zeros(2, complex)}))


def test_storing_holds_no_second_copy_of_the_arrays(tmp_path: Path) -> None:
    large = Artefact({name: np.full(1 << 20, float(i)) for i, name in enumerate("abcd")})  # 32 MiB
    gc.collect()
    tracemalloc.start()
    try:
        Store(tmp_path).put_many([("k", large)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    assert same(Store(tmp_path).get("k"), large)


def test_metadata_with_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode(Artefact({}, {"reward": float("nan")}))


def test_put_then_get_in_this_and_another_process_view(tmp_path: Path) -> None:
    reader, writer = Store(tmp_path / "s"), Store(tmp_path / "s")
    assert not reader.has("k0")
    digests = writer.put_many([("k0", artefact(0)), ("k1", artefact(1))])
    assert writer.has("k0")
    assert same(reader.get("k1"), artefact(1)), "a missing key makes the index be read again"
    assert reader.digests() == digests
    assert reader.keys() == {"k0", "k1"}


def test_missing_key_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        Store(tmp_path).get("nowhere")


def test_equal_content_gives_equal_files(tmp_path: Path) -> None:
    a, b = filled(tmp_path / "a"), filled(tmp_path / "b")
    assert a.name == b.name
    assert a.read_bytes() == b.read_bytes()


def test_what_is_stored_is_not_written_again(tmp_path: Path) -> None:
    filled(tmp_path)
    assert Store(tmp_path).put_many([("k0", artefact(0))]) == {"k0": Store(tmp_path).digests()["k0"]}
    assert len(list(tmp_path.glob("*.shard"))) == 1


def test_one_key_in_two_shards_is_one_entry(tmp_path: Path) -> None:
    late = Store(tmp_path)
    late.keys()  # its index is older than the other writer's shard
    filled(tmp_path, 2)
    late.put_many([("k1", artefact(1)), ("k2", artefact(2))])
    store = Store(tmp_path)
    assert len(list(tmp_path.glob("*.shard"))) == 2
    assert store.keys() == {"k0", "k1", "k2"}
    assert store.heal() == []


def test_the_same_key_with_two_contents_reads_the_same_whoever_looks(tmp_path: Path) -> None:
    """Digests and names of shards are unrelated: in some of ten examples the second shard has the smallest digest."""
    in_second = 0
    for i in range(10):
        root = tmp_path / str(i)
        one, two = Store(root), Store(root)
        assert not one.keys() | two.keys()
        digests = {one.put_many([("k", artefact(i))])["k"], two.put_many([("k", artefact(i + 10))])["k"]}
        one.refresh()
        assert one.digests()["k"] == Store(root).digests()["k"] == min(digests)
        in_second += min(digests).encode() in max(root.glob("*.shard")).read_bytes()
    assert 0 < in_second < 10


# -- damage ---------------------------------------------------------------------------------------------------------


def check_damage_is_caught(root: Path, expected: dict[str, Artefact]) -> None:
    """Whatever happened to the files: every key gives its own content or an error, and a healed store is all good."""
    store = Store(root)
    caught = False
    for key, item in expected.items():
        try:
            assert same(store.get(key), item)
        except StoreError:
            caught = True
    healed = Store(root)
    caught = bool(healed.heal()) or caught
    assert caught
    assert healed.damaged() == []
    assert all(same(healed.get(key), expected[key]) for key in healed.keys())  # noqa: SIM118 (not a dict)
    healed.put_many(list(expected.items()))
    assert all(same(healed.get(key), item) for key, item in expected.items())
    assert Store(root).heal() == []


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_any_flip_cut_or_growth_is_caught(tmp_path: Path, data: st.DataObject) -> None:
    root = tmp_path / "s"
    shutil.rmtree(root, ignore_errors=True)
    shard = filled(root)
    content = bytearray(shard.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1), label="at")
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "insert"]), label="how")
    if how == "flip":
        content[at] ^= data.draw(st.integers(1, 255), label="bits")
    elif how == "cut":
        del content[at:]
    elif how == "grow":
        content += b"\0"
    else:
        content.insert(at, content[at] ^ 1)
    shard.write_bytes(content)
    check_damage_is_caught(root, {f"k{i}": artefact(i) for i in range(4)})


def payload_position(shard: Path, index: int) -> int:
    header, _, _ = shard.read_bytes().partition(b"\n")
    _, offset, length, _ = json.loads(header)["entries"][index]
    return len(header) + 1 + offset + length - 1


def flip(shard: Path, at: int) -> None:
    content = bytearray(shard.read_bytes())
    content[at] ^= 1
    shard.write_bytes(content)


def test_one_flipped_byte_costs_one_artefact(tmp_path: Path) -> None:
    shard = filled(tmp_path)
    flip(shard, payload_position(shard, 1))
    store = Store(tmp_path)
    assert same(store.get("k0"), artefact(0)), "a good neighbour is still served"
    with pytest.raises(CorruptError, match=r"1 of its 4 .* quarantine/.* Run the same command again") as e:
        store.get("k1")
    assert str(shard) in str(e.value)
    assert not shard.exists()
    assert len(list((tmp_path / "quarantine").iterdir())) == 1
    assert store.keys() == {"k0", "k2", "k3"}
    assert all(same(Store(tmp_path).get(f"k{i}"), artefact(i)) for i in (0, 2, 3))
    with pytest.raises(StoreError, match="not in"):
        store.get("k1")


def test_a_cut_shard_keeps_what_lies_before_the_cut(tmp_path: Path) -> None:
    shard = filled(tmp_path)
    shard.write_bytes(shard.read_bytes()[: payload_position(shard, 2)])
    store = Store(tmp_path)
    assert store.keys() == {"k0", "k1"}
    assert store.damaged() == [shard.name]
    with pytest.raises(CorruptError):
        store.get("k3")
    assert Store(tmp_path).keys() == {"k0", "k1"}
    assert Store(tmp_path).damaged() == []


def test_looking_at_damage_changes_nothing(tmp_path: Path) -> None:
    shard = filled(tmp_path)
    flip(shard, 3)
    store = Store(tmp_path)
    assert not store.has("k0")
    assert store.keys() == set()
    assert store.digests() == {}
    assert store.damaged() == [shard.name]
    assert [p.name for p in tmp_path.iterdir()] == [shard.name]


def test_a_reader_with_an_old_index_follows_a_heal(tmp_path: Path) -> None:
    shard = filled(tmp_path)
    old = Store(tmp_path)
    assert old.has("k0")
    flip(shard, payload_position(shard, 1))
    assert len(Store(tmp_path).heal()) == 1
    assert same(old.get("k0"), artefact(0)), "its shard is gone, its content is not"


# -- writers that die, disks that refuse ----------------------------------------------------------------------------


def test_leftovers_of_killed_writers_are_ignored_and_old_ones_removed(tmp_path: Path) -> None:
    filled(tmp_path)
    young, old = tmp_path / "x.shard.1-a.tmp", tmp_path / "y.shard.1-b.tmp"
    young.write_bytes(b"half")
    old.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    store = Store(tmp_path)
    assert len(store.keys()) == 4
    store.put_many([("new", artefact(9))])
    assert young.exists(), "it may belong to a writer at work"
    assert not old.exists()
    files.sweep(tmp_path)
    assert not young.exists()


@pytest.mark.parametrize(("code", "cure"), [(errno.ENOSPC, "Free some space"), (errno.EROFS, "choose another --out")])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_refuses_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, cure: str, call: str
) -> None:
    filled(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(files.os, call, refuse)
        with pytest.raises(StoreError, match=cure) as e:
            store.put_many([("new", artefact(9))])
    assert str(tmp_path) in str(e.value)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert not store.has("new")
    store.put_many([("new", artefact(9))])
    assert same(Store(tmp_path).get("new"), artefact(9))


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file.*choose another --out"):
        Store(tmp_path / "file" / "store").put_many([("k", artefact(0))])


def test_an_unreadable_shard_is_not_taken_for_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = filled(tmp_path)
    store = Store(tmp_path)
    assert store.has("k0")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        with pytest.raises(StoreError, match="Too many open files"):
            store.get("k0")
    assert shard.exists()


def _put_some(root: str, start: int) -> None:
    store = Store(root)
    for i in range(start, start + 20):
        store.put_many([(f"k{j}", artefact(j)) for j in range(i, i + 3)])


def test_several_processes_put_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_put_some, args=(str(tmp_path), start)) for start in (0, 10, 20)]
    for w in writers:
        w.start()
    for w in writers:
        w.join()
    assert [w.exitcode for w in writers] == [0, 0, 0]
    store = Store(tmp_path)
    assert store.keys() == {f"k{j}" for j in range(42)}
    assert store.heal() == []
    assert not list(tmp_path.glob("*.tmp"))


def test_the_index_of_thousands_is_quick(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for start in range(0, 6000, 100):
        store.put_many([(f"{i:032x}", Artefact({}, {"i": i})) for i in range(start, start + 100)])
    seconds = []
    for _ in range(3):
        begin = time.process_time()
        assert len(Store(tmp_path).keys()) == 6000
        seconds.append(time.process_time() - begin)
    assert min(seconds) < 0.1
