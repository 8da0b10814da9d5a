"""Two processes on one run directory: one works, the other leaves with the name of the first."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest
from fault_runs import MIXTURE, children, gone, start
from filelock import FileLock
from ledger import Count

from alignfirst.errors import RunLockedError
from alignfirst.study.output.run_dir import RunDir

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks processes up in /proc")


class Ended:
    """How a process ended, when, and the CPU time it took (a busy machine stretches seconds, not these)."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._thread = threading.Thread(target=self._wait)
        self._begin = time.monotonic()
        self._thread.start()

    def _wait(self) -> None:
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.seconds = time.monotonic() - self._begin
        self.errors = self.process.stderr.read() if self.process.stderr else ""
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        self.cpu = usage.ru_utime + usage.ru_stime

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def join(self) -> None:
        self._thread.join(60)
        assert self.over


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_two_started_together(tmp_path: Path, count: Callable[[str], Count], times: int) -> None:
    """Of two processes started together on one run directory one works and the other leaves at once (two seconds of
    CPU), naming pid and host of the first; the lock of a holder that was killed is no obstacle to the next."""
    counted, out, study = count("two at once"), tmp_path / "run", tmp_path / "study.yaml"
    study.write_text(MIXTURE + "vary: {distil.selectivity: [1, 2, 3, 4]}\n")
    for _ in range(times):
        with counted.trial():
            both = [Ended(start(study, out)) for _ in range(2)]
            while not any(e.over for e in both):
                time.sleep(0.01)
            loser, winner = sorted(both, key=lambda e: not e.over)
            loser.join()
            assert not winner.over, "the first still works: the second did not wait for it"
            errors = loser.errors
            assert loser.process.returncode == 1, errors
            assert f"in use by process {winner.process.pid} on {socket.gethostname()} since " in errors
            assert loser.cpu < 2.0
            counted.most(cpu_seconds=loser.cpu, seconds_on_a_machine_that_may_be_busy=loser.seconds)
            holder = json.loads((out / "run.lock.json").read_text())
            assert holder["pid"] == winner.process.pid
            workers = children(winner.process.pid)
            winner.process.kill()
            winner.join()
            gone(workers)
            assert (out / "run.lock.json").exists(), "it left its lock behind"


def test_a_name_that_comes_late_or_is_of_the_dead(tmp_path: Path) -> None:
    """A refused process names who holds the directory now, even in the instants in which a killed holder's name still
    stands there."""
    with subprocess.Popen([sys.executable, "-c", ""]) as past:
        past.wait()
    out = tmp_path / "run"
    out.mkdir()
    dead, alive_ = ({"pid": pid, "host": socket.gethostname(), "started": "now"} for pid in (past.pid, os.getpid()))
    (out / "run.lock.json").write_text(json.dumps(dead))

    def name() -> None:
        (out / "run.lock.json").write_text(json.dumps(alive_))

    with FileLock(out / "run.lock"):
        late = threading.Timer(0.2, name)
        late.start()
        with pytest.raises(RunLockedError, match=f"in use by process {os.getpid()} on "), RunDir(out).lock():
            pass
        late.join()
        assert RunDir(out).holder() == alive_
        (out / "run.lock.json").write_text(json.dumps(dead))
        with pytest.raises(RunLockedError, match="in use by another process"), RunDir(out).lock():
            pass
