"""One of several processes that play one study together, started as `accelerate launch` does: PRESET, keys, directory.

Texts are drawn and models measured in turns, each node by one process; every training is shared by all.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from alignfirst.lm import bridge
from alignfirst.store import Store
from alignfirst.study import presets
from alignfirst.study.plan import plan_study
from alignfirst.study.worker import load_world
from alignfirst.worlds.protocol import Artefact, Failure

TOGETHER = ("target", "sft", "distil", "align")


def main(preset: str, sets: str, out: str) -> None:
    team = bridge.team()
    config = presets.load(preset, json.loads(sets))
    world = load_world(config.world)
    plan, store = plan_study(config, world), Store(Path(out) / "store")
    turn = 0
    for key, node in plan.nodes.items():
        shared = node.kind in TOGETHER
        if shared:
            team.tell(None)  # all that the others had to do before is stored now
            store.refresh()
        elif turn % team.size != team.rank:
            turn += 1
            continue
        turn += not shared
        missing = [i for i in node.inputs.values() if not store.has(i)]
        while missing:  # what another process still works at
            time.sleep(0.2)
            store.refresh()
            missing = [i for i in missing if not store.has(i)]
        (outcome,) = world.run([node], store.get)
        if isinstance(outcome, Failure):
            sys.exit(f"{node.kind} failed: {outcome.reason}")
        assert isinstance(outcome, Artefact)
        if not shared or team.rank == 0:
            store.put_many([(key, outcome)])
    print(f"process {team.rank} of {team.size}: done", flush=True)
    team.tell(None)


if __name__ == "__main__":
    main(*sys.argv[1:])
