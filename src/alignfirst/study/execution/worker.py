"""One task's work, and the process that does tasks: JSON lines in on stdin, JSON lines out on stdout.

Not `multiprocessing`: its workers import the caller's `__main__` again, which costs start-up time and fails for
scripts without a guard, and pass pickles. Here the end of stdin means that the parent is gone.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import IO, Any, cast

from alignfirst import signals, worlds
from alignfirst.errors import AlignfirstError, StageFailure, StoreError, Terminated, shorten
from alignfirst.files import Buffer
from alignfirst.module_search import safe_path
from alignfirst.nodes import Artefact, Failure, Load, Node, Outcome
from alignfirst.store import SCRATCH, CorruptError, MissingError, Store, encode
from alignfirst.study.execution.options import CHECKPOINT_SECONDS
from alignfirst.user_code import UserExit, claim_streams, contained
from alignfirst.world import World

REASON_LIMIT = 300
TRACES = 2  # tracebacks a task reports: siblings fail for the same reason


@dataclass(frozen=True)
class Task:
    """Nodes of one kind and group that are computed together. `attempt` counts workers that died of it."""

    id: int
    nodes: tuple[Node, ...]
    attempt: int = 0

    @property
    def kind(self) -> str:
        return self.nodes[0].kind

    @property
    def label(self) -> str:
        """What is told apart in timings beside the kind."""
        return self.nodes[0].label


@dataclass(frozen=True)
class Report:
    """What became of a task. `digests` names what is in the store now. `fatal`: the run cannot go on.

    `refused` names the failures where an input cannot be used.
    """

    task: int
    digests: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    traces: list[str] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_rss_mb: float = 0.0
    fatal: str | None = None
    refused: list[str] = field(default_factory=list)


def message(task: Task) -> dict[str, Any]:
    """A task as JSON, for another process; `serve` takes it."""
    nodes = [[node.kind, dict(node.settings), dict(node.inputs), node.version] for node in task.nodes]
    return {"task": task.id, "nodes": nodes}


def boot() -> list[str]:
    """The command of a worker. It imports nothing before it looks for modules where `safe_path` says."""
    code = f"import sys; sys.path[:] = {safe_path()!a}; from {__name__} import main; main()"
    return [sys.executable, "-P", "-c", code]


def load_world(reference: str, paths: Sequence[str] = ()) -> World:
    """A registered world by name, or any by `module:ATTRIBUTE`, which `paths`, too, may hold."""
    module, colon, attribute = reference.partition(":")
    if not colon:
        return worlds.get(reference)
    sys.path += [path for path in paths if path not in sys.path]
    return cast(World, getattr(import_module(module), attribute))


def run_task(
    world: World,
    store: Store,
    task: int,
    nodes: Sequence[Node],
    seconds: float = CHECKPOINT_SECONDS,
    keep: bool = True,
) -> Report:
    """Compute nodes, store what succeeded in one shard, say what failed. Only a store that cannot write is fatal.

    A node that takes longer than `seconds` may keep what it has done in the store's folder of partial work. With `keep`
    off nothing is stored: another process does that.
    """
    begin, cpu, process = time.perf_counter(), time.process_time(), os.getpid()
    traces: list[str] = []
    scratch = SCRATCH.set(store.scratch(seconds))
    try:
        outcomes = _compute(world, nodes, _loader(store, nodes), traces)
        payloads, failures = _encode(nodes, outcomes)
        if os.getpid() != process:  # user code forked and came back twice
            os._exit(1)
        digests = store.put_encoded(payloads) if keep else {}
    except StoreError as e:
        return Report(task, fatal=str(e))
    finally:
        SCRATCH.reset(scratch)
    store.forget_partial(digests)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    refused = [n.key for n, o in zip(nodes, outcomes, strict=True) if isinstance(o, Failure) and o.refused]
    spent = round(seconds, 6), round(cpu, 6), round(peak_rss_mb(), 1)
    return Report(task, digests, failures, traces, *spent, refused=refused)


def serve(world: World, store: Store, message: dict[str, Any], seconds: float, keep: bool = True) -> Report:
    return run_task(world, store, message["task"], [Node(*node) for node in message["nodes"]], seconds, keep)


def _loader(store: Store, nodes: Sequence[Node]) -> Load:
    """Loads inputs: all of a task at once, for siblings share them and their shards."""
    try:
        cache = store.get_many(key for node in nodes for key in node.inputs.values())
    except (CorruptError, MissingError):
        cache = {}  # one by one, so that only those that need the damaged one fail

    def load(key: str) -> Artefact:
        if key not in cache:
            cache[key] = store.get(key)
        return cache[key]

    return load


def _compute(world: World, nodes: Sequence[Node], load: Load, traces: list[str]) -> list[Outcome]:
    """Outcomes in the order of nodes. After an exception the halves run apart, so that one bad node fails alone."""
    try:
        with contained():
            outcomes = world.run(nodes, load)
        if len(outcomes) != len(nodes):
            raise RuntimeError(f"world {world.name} returned {len(outcomes)} outcomes for {len(nodes)} nodes")
        return outcomes
    except (CorruptError, MissingError) as e:
        reason, trace = str(e), ""
    except StoreError:
        raise
    except Exception as e:
        reason, trace = reason_of(e), traceback.format_exc()
    if len(nodes) > 1:
        half = len(nodes) // 2
        return [o for part in (nodes[:half], nodes[half:]) for o in _compute(world, part, load, traces)]
    if trace and len(traces) < TRACES:
        traces.append(trace)
    return [Failure(reason)]


def _encode(nodes: Sequence[Node], outcomes: Sequence[Outcome]) -> tuple[dict[str, list[Buffer]], dict[str, str]]:
    """What is to be stored, and why the rest is not, by key."""
    payloads: dict[str, list[Buffer]] = {}
    failures: dict[str, str] = {}
    for node, outcome in zip(nodes, outcomes, strict=True):
        if isinstance(outcome, Failure):
            failures[node.key] = shorten(outcome.reason, REASON_LIMIT)
            continue
        try:
            payloads[node.key] = encode(outcome)
        except Exception as e:  # a NaN in metadata, a dtype without a file format
            failures[node.key] = f"its output cannot be stored: {reason_of(e)}"
    return payloads, failures


def reason_of(e: BaseException) -> str:
    """One line for a person: the words of a StageFailure, the type and words of anything unexpected."""
    return shorten(str(e) if isinstance(e, StageFailure | UserExit) else f"{type(e).__name__}: {e}", REASON_LIMIT)


def peak_rss_mb() -> float:
    """Highest resident memory of this process, MB.

    `ru_maxrss` would do, but on Linux a child starts with the value of the parent that it was forked from.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError, ValueError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


# -- the process ----------------------------------------------------------------------------------------------------


def main() -> None:
    """Serve tasks until stdin ends. The first line names world and store; the first answer says that both are there."""
    signals.ignore(signal.SIGINT)  # the parent decides, and says so by SIGTERM
    signals.die_with_parent()  # elsewhere than on Linux `_listen` does it
    questions, answers = claim_streams()
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(questions, inbox), daemon=True).start()
    start = json.loads(inbox.get())
    try:
        world, store = load_world(start["world"], start["paths"]), Store(start["store"])
    except (AlignfirstError, ImportError, AttributeError) as e:
        _send(answers, {"fatal": f"world {start['world']} cannot be loaded: {e}"})
        return
    _send(answers, {"ready": os.getpid()})
    while True:
        try:
            report = serve(world, store, json.loads(inbox.get()), start["checkpoint_seconds"])
        except Terminated:  # it has written down how far it is
            os._exit(128 + signal.SIGTERM)
        _send(answers, asdict(report))


def _listen(stdin: IO[bytes], inbox: queue.SimpleQueue[bytes]) -> None:
    for line in stdin:
        inbox.put(line)
    os._exit(0)  # the parent is gone or done; files appear whole or not at all, so there is nothing to tidy


def _send(answers: IO[bytes], message: dict[str, Any]) -> None:
    try:
        answers.write(json.dumps(message).encode() + b"\n")
        answers.flush()
    except BrokenPipeError:
        os._exit(0)
