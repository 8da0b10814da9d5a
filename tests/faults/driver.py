"""Runs the toy study in a process of its own: `driver.py OUT WORKERS [CONFIG_JSON]`. Exit codes as the command's.

WORKERS is a number, or `ray` for the cluster at RAY_ADDRESS.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from toy_world import ToyConfig

from alignfirst.errors import AlignfirstError
from alignfirst.study.execution.options import Cluster, ExecutionOptions
from alignfirst.study.runner import run


def main() -> int:
    out, workers, *more = sys.argv[1:]
    config = ToyConfig(**json.loads(more[0]) if more else {})
    ray = workers == "ray"
    try:
        options = ExecutionOptions(cluster=Cluster()) if ray else ExecutionOptions(int(workers))
        result = run(config, out, options, lambda *event: print(*event, flush=True))
    except AlignfirstError as e:
        print(f"{type(e).__name__}: {e}", file=sys.stderr)
        return int(e.exit_code)
    except KeyboardInterrupt:
        return 130
    print(f"{result.status} {dict(result.counts)}")
    return int(result.exit_code)


# No guard of `__main__`: workers must not need one.
sys.exit(main())
