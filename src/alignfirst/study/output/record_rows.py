"""Rows of the records from what is in the store: one a cell and stage, in the order of the plan."""

from __future__ import annotations

from collections.abc import Mapping

from alignfirst import records
from alignfirst.auditing import audit_nodes
from alignfirst.nodes import Artefact
from alignfirst.records import SCHEMA_VERSION, Row
from alignfirst.study.plan.planner import Cell, CellStage, Plan

# Columns that the stage itself tells; every other number comes from measuring its model.
OF_STAGE = ("target_draws", "updates", "samples", "flops", "tokens")
PREDICTED = ("predicted_reward", "predicted_target_mass")
SHOWN = "shown"  # what a measurement keeps for the exhibits of its model: no column


class Rows:
    """Builds rows from artefacts and from the reasons why others are missing."""

    def __init__(
        self,
        plan: Plan,
        preset: str,
        artefacts: Mapping[str, Artefact],
        failures: Mapping[str, str],
        blocked: Mapping[str, str],
    ) -> None:
        self.plan, self.preset = plan, preset
        self.artefacts, self.failures, self.blocked = artefacts, failures, blocked
        self.columns = records.columns(plan.varied)
        self._measured = {c.name for c in records.COLUMNS} - {*OF_STAGE, *PREDICTED, *audit_nodes.COLUMNS}

    def build(self) -> list[Row]:
        return [row for cell in self.plan.cells for row in self._cell(cell)]

    def _cell(self, cell: Cell) -> list[Row]:
        common = dict.fromkeys(self.columns) | {
            "schema_version": SCHEMA_VERSION,
            "world": self.plan.world,
            "preset": self.preset,
            "recipe": cell.recipe,
            "algorithm": cell.algorithm,
            "beta": cell.beta,
            "seed": cell.seed,
            **cell.varied,
        }
        predicted = self._predicted(cell)
        return [
            common
            | {"stage": stage.kind, "stage_index": i, "final": i == len(cell.stages) - 1, "model": stage.model}
            | self._numbers(stage)
            | self._audited(stage)
            | self._status(cell, stage)
            | predicted[i]
            for i, stage in enumerate(cell.stages)
        ]

    def _numbers(self, stage: CellStage) -> Row:
        numbers: Row = {}
        if stage.model in self.artefacts:
            meta = self.artefacts[stage.model].meta
            numbers |= {name: meta[name] for name in OF_STAGE if name in meta}
        if stage.measure in self.artefacts:
            meta = {name: value for name, value in self.artefacts[stage.measure].meta.items() if name != SHOWN}
            if unknown := meta.keys() - self._measured:
                raise ValueError(f"world {self.plan.world} measured {', '.join(sorted(unknown))}: no such columns")
            numbers |= meta
        return numbers

    def _audited(self, stage: CellStage) -> Row:
        if stage.unaudited is not None:
            return {"audit_verdict": audit_nodes.REFUSED, "audit_reason": stage.unaudited}
        artefact = self.artefacts.get(stage.audit or "")
        return {} if artefact is None else {name: artefact.meta[name] for name in audit_nodes.COLUMNS}

    def _status(self, cell: Cell, stage: CellStage) -> Row:
        """`failed` where this stage or its measurement failed, `blocked` where a stage before it did.

        A prediction or an audit that failed is told in `error`, but takes nothing from what was measured.
        """
        if stage.model in self.blocked:
            return {"status": "blocked", "error": self.blocked[stage.model]}
        if stage.model in self.failures:
            return {"status": "failed", "error": self.failures[stage.model]}
        for reasons in (self.failures, self.blocked):
            if stage.measure in reasons:
                return {"status": "failed", "error": f"measurement: {reasons[stage.measure]}"}
        for what, key in (("prediction", cell.predict), ("audit", stage.audit)):
            if key is not None and key in self.failures:
                return {"status": "ok", "error": f"{what}: {self.failures[key]}"}
        return {"status": "ok", "error": None}

    def _predicted(self, cell: Cell) -> list[Row]:
        if cell.predict is None or cell.predict not in self.artefacts:
            return [{} for _ in cell.stages]
        stages = self.artefacts[cell.predict].meta["stages"]
        return [{name: stage[name] for name in PREDICTED} for stage in stages]
