"""One script, run by one process and by two that a launcher would have started together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROLES = ("alone-0", "pair-0", "pair-1")


def trained(folder: Path, text: str) -> list[Any]:
    """What one process and each of two wrote to FOLDER/ROLE-RANK.json; the script gets folder and role."""
    script = folder / "train.py"
    script.write_text(text)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])

    def start(role: str, **environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, str(script), str(folder), role], env=os.environ | environment)

    pair = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [start("alone")] + [start("pair", RANK=str(r), LOCAL_RANK=str(r), **pair) for r in range(2)]
    assert [p.wait(timeout=240) for p in started] == [0, 0, 0]
    return [json.loads((folder / f"{role}.json").read_text()) for role in ROLES]
