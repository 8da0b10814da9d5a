"""`accelerate launch`: its command for a user's cluster, or started from here and ended with this process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from alignfirst.errors import ExitCode, Terminated
from alignfirst.module_search import environment
from alignfirst.signals import die_with_parent

CODE = "ALIGNFIRST_CODE"  # a file for the exit code of the first process: launchers know only 0 and 1
BOOT = f"from {__name__} import main; main()"
GRACE = 8.0  # seconds in which processes may leave by themselves
# --multi_gpu means torchrun, on CPUs too; --cpu would start one process unless there is an MPI
FLAGS = ("--multi_gpu", "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")


def command(arguments: Sequence[str], processes: int) -> list[str]:
    """What starts `alignfirst ARGUMENTS` in so many processes of this machine."""
    return ["accelerate", "launch", "--num_processes", str(processes), *FLAGS, "-m", "alignfirst", *arguments]


def launch(arguments: Sequence[str], processes: int) -> int:
    """Run it here; its exit code. Interrupted, it ends the processes and raises the interrupt again."""
    from alignfirst.extras import need

    need("accelerate")
    boot = [sys.executable, "-P", "-c", BOOT, "--main_process_port", str(free_port())]
    with tempfile.TemporaryDirectory(prefix="alignfirst-") as folder:
        code = Path(folder) / "code"
        process = subprocess.Popen(
            [*boot, *command(arguments, processes)[2:]],
            env=environment() | {CODE: str(code)},
            process_group=0,  # Ctrl-C reaches this process only
        )
        try:
            process.wait()
        except (KeyboardInterrupt, Terminated):
            end(process)
            raise
        try:
            return int(code.read_text())
        except (OSError, ValueError):  # it did not get that far; its words are above
            return int(ExitCode.FAILED)


def main() -> None:
    """The launcher, which must not outlive whoever started it."""
    die_with_parent()
    import_module("accelerate.commands.launch").main()


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask by SIGTERM, which the launcher passes on; what is still there after a while goes with the launcher."""
    process.terminate()
    deadline = time.monotonic() + GRACE
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def leave(code: int) -> int:
    """The exit code for the launcher, which takes any but 0 for a fault: ours is told beside it."""
    if CODE not in os.environ:
        return code
    Path(os.environ[CODE]).write_text(str(code))
    return 0


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
