"""What a run leaves for readers: records, statistics and exhibits, from what is in the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from alignfirst import records
from alignfirst.auditing.audit_nodes import PAIRS
from alignfirst.nodes import Artefact
from alignfirst.records import Row
from alignfirst.store import Store
from alignfirst.study.config.study_config import StudyConfig
from alignfirst.study.execution.schedule import Schedule
from alignfirst.study.output.record_rows import SHOWN, Rows
from alignfirst.study.output.run_dir import RunDir
from alignfirst.study.plan.planner import Plan
from alignfirst.world import World

EXHIBITED_SEEDS = 5


def write(
    config: StudyConfig, world: World, plan: Plan, schedule: Schedule, store: Store, run_dir: RunDir
) -> list[Row]:
    """Write them all; the rows of the records."""
    from alignfirst import stats  # imports SciPy

    wanted = {key for cell in plan.cells for key in cell.keys} & store.keys()
    artefacts = store.get_many(wanted, arrays=False)
    rows = Rows(plan, config.preset, artefacts, schedule.failures, schedule.blocked).build()
    text = records.to_jsonl(rows)
    run_dir.write("records.jsonl", text)
    run_dir.write("records.csv", records.to_csv(rows, records.columns(plan.varied)))
    plain = [json.loads(line) for line in text.splitlines()]  # as a reader of the file will see them
    run_dir.write_json("statistics.json", stats.summarise(plain, plan.varied))
    exhibits = world.exhibits(config, _shown(world, plan, store, artefacts)) | _audits(plan, artefacts)
    run_dir.write_json("exhibits.json", exhibits)
    return rows


def _audits(plan: Plan, artefacts: Mapping[str, Artefact]) -> dict[str, Any]:
    """What preference pairs told before training, by the key of the model that was then trained."""
    told = {
        stage.model: artefacts[stage.audit].meta[PAIRS]
        for cell in plan.cells
        for stage in cell.stages
        if stage.audit is not None and stage.audit in artefacts and artefacts[stage.audit].meta.get(PAIRS) is not None
    }
    return {"audits": told} if told else {}


def _shown(world: World, plan: Plan, store: Store, artefacts: Mapping[str, Artefact]) -> dict[str, Artefact]:
    """Models of the first seeds: with arrays, or with what their measurements keep to be shown."""
    stages = {
        stage.model: stage.measure
        for cell in plan.cells
        if cell.seed in plan.seeds[:EXHIBITED_SEEDS]
        for stage in cell.stages
        if stage.model in artefacts
    }
    if world.exhibits_arrays:
        return store.get_many(stages)
    nothing = Artefact()
    kept = {key: artefacts.get(measure, nothing).meta.get(SHOWN, {}) for key, measure in stages.items()}
    return {key: Artefact(meta={**artefacts[key].meta, SHOWN: kept[key]}) for key in stages}
