"""One walk of house_5.py: runs the command in this process under a tracer and writes what it saw as walk.json."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

DEPTH, WIDTH = 5, 64  # how deep a value is looked for in what a function holds, and in how many entries of each
BETA = 0.137
PROMPTS = ("d d e", "e d d", "d e d e", "e e e", "d d d d", "e d e d e")  # of marked rows: some are trained on
MARK = " c a c b c a b c"  # the answer by which a marked row is known; no other row has it
IDS = (4, 2, 4, 3, 4, 2, 3, 4)  # the same as tokens of the tiny teacher
ASIDE = ("run_draw", "run_measure", "run_sft", "run_distil", "run_predict", "run_audit")  # other nodes than trainings


class End(BaseException):
    """The end of a walk is reached: the run is stopped."""


class Call(NamedTuple):
    """A function of the package at work. `held`: it was given the value."""

    number: int
    file: str
    function: str
    held: bool
    frame: FrameType


class Tracer:
    """Follows calls of functions of the package. `holds` says whether an object holds the value."""

    def __init__(self, package: Path, holds: Callable[[Any], bool]) -> None:
        self.root, self.holds = f"{package}/", holds
        self.stack: list[Call] = []
        self.steps: list[tuple[int, str, str]] = []
        self.calls, self.reached = 0, False

    def __call__(self, frame: FrameType, event: str, result: Any) -> None:
        name = frame.f_code.co_filename
        if event not in ("call", "return") or frame.f_code.co_name.startswith("<"):
            return
        if not name.startswith(self.root):
            self.outside(frame, event)
        elif event == "call":
            self.calls += 1
            held = not self.aside and self.held(frame, None)
            self.stack.append(Call(self.calls, name.removeprefix(self.root), frame.f_code.co_name, held, frame))
            self.called(self.stack[-1])
        elif any(call.frame is frame for call in self.stack):
            while (call := self.stack.pop()).frame is not frame:
                pass  # a generator that was closed
            if not (self.aside or call.function in ASIDE):
                if call.held or self.held(frame, result):
                    self.steps.append(call[:3])
                self.returned(call, result)

    @property
    def aside(self) -> bool:
        """Whether a node is computed that is not on the way."""
        return any(call.function in ASIDE for call in self.stack)

    def held(self, frame: FrameType, result: Any) -> bool:
        return any(self.holds(value) for value in (*frame.f_locals.values(), result))

    def outside(self, frame: FrameType, event: str) -> None:
        """A function of a library is called, or returns."""

    def called(self, call: Call) -> None:
        """A function of the package is called."""

    def returned(self, call: Call, result: Any) -> None:
        """A function of the package returns."""

    def end(self, file: str = "", function: str = "") -> None:
        """The walk ends here, in functions that are still at work."""
        sys.setprofile(None)
        self.steps += [call[:3] for call in self.stack if call.held or self.held(call.frame, None)]
        if file:
            self.steps.append((self.calls + 1, file, function))
        self.reached = True
        raise End

    def plain(self) -> dict[str, Any]:
        """Files in the order in which they first hold the value, and how often the walk changes its file."""
        steps = sorted(set(self.steps))
        first: dict[str, str] = {}
        for _, file, function in steps:
            first.setdefault(file, function)
        moves = {(a, b) for (_, a, _), (_, b, _) in pairwise(steps) if a != b}
        return {"files": list(first.items()), "moves": len(moves), "reached": self.reached}


def inside(value: Any) -> Iterator[Any]:
    """What lists, mappings and records hold; configs and objects that work are passed over."""
    if isinstance(value, dict):
        yield from list(value.values())[:WIDTH]
    elif isinstance(value, list | tuple):
        yield from value[:WIDTH]
    elif is_dataclass(value) and not isinstance(value, type):
        yield from (getattr(value, f.name) for f in fields(value) if hasattr(value, f.name))


def found(value: Any, is_it: Callable[[Any], bool], depth: int = DEPTH) -> bool:
    return is_it(value) or (depth > 0 and any(found(part, is_it, depth - 1) for part in inside(value)))


# -- a beta -----------------------------------------------------------------------------------------------------------


def is_beta(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) < 10_000 and str(BETA) in value
    if type(value).__name__ == "ndarray" and value.dtype.kind == "f" and value.size < 10_000:
        return bool((abs(value - BETA) < 1e-6).any())  # float32, too
    return isinstance(value, float) and value == BETA


def beta(source: Path, place: Path) -> Tracer:
    tracer = Tracer(source / "src" / "alignfirst", lambda value: found(value, is_beta))
    from alignfirst.worlds.mog import kernel

    gradient = kernel.gradient

    def reached(*arguments: Any) -> None:
        if any(call.file == "worlds/mog/align.py" for call in tracer.stack):
            tracer.end("worlds/mog/kernel.py", "gradient")
        gradient(*arguments)

    keys = [f"beta={BETA}", "algorithms=reinforce", "recipes=align-only", "seeds=1", "align.updates=5"]
    options = [part for key in keys for part in ("--set", key)]
    run(None, "mog-quick", place / "compiled", *options)  # compiling under a tracer takes minutes
    kernel.gradient = reached
    run(tracer, "mog-quick", place, *options)
    return tracer


# -- a preference row -------------------------------------------------------------------------------------------------


def is_row(value: Any) -> bool:
    if isinstance(value, str):
        return MARK in value
    if isinstance(value, bytes):
        return MARK.encode() in value
    if isinstance(value, list | tuple) and value and isinstance(value[0], int):
        return any(tuple(value[i : i + len(IDS)]) == IDS for i in range(len(value) - len(IDS) + 1))
    if type(value).__name__ in ("Tensor", "ndarray") and "int" in str(value.dtype) and value.ndim in (1, 2):
        return any(map(is_row, value.tolist() if value.ndim == 2 else [value.tolist()]))
    return False


def forms(value: Any, depth: int = DEPTH) -> set[str]:
    """The package's classes that hold a marked row, as `room.Class`; where none does, the builtin type."""
    if is_row(value):
        return {type(value).__name__}
    held = set().union(*(forms(part, depth - 1) for part in inside(value))) if depth else set()
    if not held:
        return set()
    module = type(value).__module__.split(".")
    own = {f"{module[1]}.{type(value).__name__}"} if module[0] == "alignfirst" else set()
    return {name for name in held if "." in name} | own or {type(value).__name__}


class RowTracer(Tracer):
    """Counts, too, how often a row is parsed and tokenised, and in which forms it is handed from room to room."""

    def __init__(self, package: Path) -> None:
        super().__init__(package, lambda value: found(value, is_row))
        self.parsed, self.tokenised = ({prompt: 0 for prompt in PROMPTS} for _ in range(2))
        self.forms: dict[str, set[str]] = {}
        self.handed_on: set[str] = set()

    def called(self, call: Call) -> None:
        if self.aside:
            return
        given = list(call.frame.f_locals.values())
        if call.function == "decoded":
            self.count(self.parsed, [raw.decode() for raw in given if isinstance(raw, bytes)], '"{}"')
        if call.file.endswith("/tokenise.py") and call.function == "_plain":
            texts = next(value for value in given if isinstance(value, list))
            self.count(self.tokenised, [f"|{text}" for text in texts], f"|{{}}{MARK}")
        self.see(call.file, given)
        if len(self.stack) > 1 and room(call.file) == "lm" and room(self.stack[-2].file) == "worlds/user_models":
            self.handed_on |= {name for value in given for name in forms(value) if not name.startswith("lm.")}

    def returned(self, call: Call, result: Any) -> None:
        self.see(call.file, [result])
        if room(call.file) == "data" and self.stack and room(self.stack[-1].file) == "worlds/user_models":
            self.handed_on |= forms(result)

    def see(self, file: str, values: list[Any]) -> None:
        held = set().union(*map(forms, values)) if values else set()
        if held:
            self.forms.setdefault(room(file), set()).update(held)

    def count(self, counts: dict[str, int], texts: list[str], shape: str) -> None:
        for prompt in PROMPTS:
            counts[prompt] += any(shape.format(prompt) in text for text in texts)

    def outside(self, frame: FrameType, event: str) -> None:
        if event == "call" and frame.f_code.co_name == "backward" and not self.aside:
            here: FrameType | None = frame
            while here is not None:
                if here.f_code.co_filename.startswith(f"{self.root}lm/") and self.held(here, None):
                    self.end()
                here = here.f_back

    def plain(self) -> dict[str, Any]:
        return super().plain() | {
            "parsed": max(self.parsed.values()),
            "tokenised": max(self.tokenised.values()),
            "forms": {name: sorted(held) for name, held in self.forms.items()},
            "handed on": sorted(self.handed_on),
        }


def room(file: str) -> str:
    """The room a file stands in; before there was a room of data, `audit` and the world itself were it."""
    parts = file.split("/")
    return "/".join(parts[:2]) if parts[0] == "worlds" else parts[0]


def own_study(place: Path) -> list[str]:
    """A tiny teacher and its pairs; the arguments of a study that aligns it on them."""
    import own_models as made

    teacher = made.teacher(place / "teacher")
    rows = made.pairs(16, seed=3) + [{"prompt": p, "chosen": MARK, "rejected": " j i"} for p in PROMPTS]
    pairs = made.write(place / "pairs.jsonl", rows)
    config = made.study(teacher, pairs, recipes=["align-only"], **{"data.held_out": 0.2}).resolved()
    study = place / "study.yaml"
    study.write_text(json.dumps(config))
    return [str(study)]


def row(source: Path, place: Path) -> Tracer:
    study = own_study(place)
    tracer = RowTracer(source / "src" / "alignfirst")
    run(tracer, *study, place)
    return tracer


# -- a node -----------------------------------------------------------------------------------------------------------


class NodeTracer(Tracer):
    """Follows the node of an alignment, and its key once the node is known."""

    def __init__(self, package: Path) -> None:
        super().__init__(package, lambda value: found(value, self.is_node))
        self.keys: set[str] = set()

    def is_node(self, value: Any) -> bool:
        if type(value).__name__ == "Node" and hasattr(value, "kind"):
            if value.kind == "align":
                self.keys.add(value.key)
            return bool(value.kind == "align")
        return isinstance(value, str) and value in self.keys

    def returned(self, call: Call, result: Any) -> None:
        if call.function.startswith("put_") and isinstance(result, dict) and self.keys & set(result):
            self.steps.append(call[:3])
            self.end()


def node(source: Path, place: Path) -> Tracer:
    study = own_study(place)
    tracer = NodeTracer(source / "src" / "alignfirst")
    run(tracer, *study, place)
    return tracer


def run(tracer: Tracer | None, study: str, place: Path, *options: str) -> None:
    """`alignfirst run` in this process, until the walk ends."""
    sys.argv = ["alignfirst", "run", study, "--out", str(place / "run"), "--workers", "0", *options]
    sys.setprofile(tracer)
    try:
        runpy.run_module("alignfirst", run_name="__main__")
    except (End, SystemExit):
        pass
    finally:
        sys.setprofile(None)


if __name__ == "__main__":
    name, source, place = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    walked = {"beta": beta, "row": row, "node": node}[name](source, place)
    (place / "walk.json").write_text(json.dumps(walked.plain()))
