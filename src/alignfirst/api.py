"""The Python interface: run a study, open a run, audit a reference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignfirst.errors import InputError, StoreError
from alignfirst.records import Row

if TYPE_CHECKING:
    from pandas import DataFrame

    from alignfirst.auditing.findings import Audit
    from alignfirst.auditing.gated_prediction import Plan
    from alignfirst.report.run_files import RunFiles
    from alignfirst.study.audit.request import AuditRequest, Plans
    from alignfirst.study.config.preset_files import Source
    from alignfirst.study.config.study_config import StudyConfig
    from alignfirst.study.execution.engine import Progress
    from alignfirst.study.execution.options import ExecutionOptions

RUNS = Path("runs")
VERDICTS = ("holds", "reversed", "undecided", "insufficient")


class Run:
    """A run on disk. Its files are read once, when they are first asked for, and checked against their digests.

    Every attribute raises StoreError where a file is missing, damaged or of a run that was cut short.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.status}, {len(self.records)} records)"

    @cached_property
    def _content(self) -> RunFiles:
        from alignfirst.report.run_files import load

        return load(self.path)

    @property
    def status(self) -> str:
        """complete, partial (some cells failed; the records say why) or interrupted."""
        return str(self.manifest["status"])

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Version, command, counts, hardware, digests."""
        return self._content.manifest

    @property
    def records(self) -> list[Row]:
        """One dict per cell and stage; `alignfirst.records.COLUMNS` says what each column means."""
        return self._content.rows

    @property
    def statistics(self) -> Mapping[str, Any]:
        """Cells, paired differences, claims and windows, as in `statistics.json`."""
        return self._content.statistics

    @property
    def claims(self) -> list[dict[str, Any]]:
        """One dict per claim and setting, with estimate, interval, Holm-corrected p and verdict."""
        return list(self.statistics["claims"])

    @cached_property
    def config(self) -> StudyConfig:
        """The study as it was run."""
        from alignfirst.study.config import yaml_io
        from alignfirst.study.config.study_config import from_mapping

        return from_mapping(yaml_io.loads(self._content.config, str(self.path / "config.yaml")))

    def dataframe(self) -> DataFrame:
        """The records as a pandas DataFrame, one line per cell and stage. Raises InputError without pandas."""
        try:
            import pandas
        except ImportError:
            cure = "Install it: pip install pandas. `records` are plain dicts."
            raise InputError("a DataFrame needs pandas", "no pandas", cure) from None
        return pandas.DataFrame(self.records)

    def model(self, recipe: str, *, stage: int | None = None, seed: int | None = None, **where: Any) -> Any:
        """A trained model: a `Mixture`, or a transformers model, ready to be used.

        `stage` counts from 0 (sft), by default the recipe's last; `where` names `algorithm`, `beta` and varied keys
        where the run has several (a key with a dot: `**{"distil.samples": 100}`). Without `seed` it is the first
        one's. Raises InputError where no model or several are meant, StoreError where it is not in the run's store.
        """
        from alignfirst import records
        from alignfirst.store import Store
        from alignfirst.study.execution.worker import load_world

        last = {"final": True} if stage is None else {"stage_index": stage}
        row = records.pick(self.records, recipe=recipe, seed=seed, **last, **where)
        if row["status"] != "ok":
            cure = f"{row['error'] or 'A stage before it failed'}."
            raise InputError("a model must have been trained", f"one that is {row['status']}", cure)
        store, world = Store(self.path / "store"), load_world(self.manifest["world"])
        return world.open(store.get(row["model"]), store.get)

    def export(
        self,
        recipe: str,
        folder: str | Path,
        *,
        stage: int | None = None,
        seed: int | None = None,
        adapter: bool = False,
        **where: Any,
    ) -> Path:
        """Write a trained model as a Hugging Face folder: weights, tokenizer, generation config, model card.

        The model is named as in `model`; LoRA adapters are merged into it, or stand alone with `adapter`. Raises
        InputError where no model or several are meant, the folder is not empty, or the world's models are no such.
        """
        from alignfirst import records
        from alignfirst.store import Store
        from alignfirst.study.execution.worker import load_world
        from alignfirst.version import __version__

        last = {"final": True} if stage is None else {"stage_index": stage}
        row = records.pick(self.records, recipe=recipe, seed=seed, **last, **where)
        if row["status"] != "ok":
            raise InputError("a model must have been trained", f"one that is {row['status']}", f"{row['error']}.")
        same = ("recipe", "algorithm", "beta", "seed", *(self.manifest.get("varied") or ()))
        rows = [r for r in self.records if all(r[n] == row[n] for n in same) and r["stage_index"] <= row["stage_index"]]
        about = {"version": __version__, "command": str(self.manifest.get("command", ""))}
        world = load_world(self.manifest["world"])
        world.export(self.config.resolved(), rows, Store(self.path / "store"), Path(folder), about, adapter)
        return Path(folder)

    def verdicts(self) -> list[dict[str, Any]]:
        """Per claim: its id, its statement, and in how many settings it holds, is reversed, undecided, insufficient."""
        counts: dict[tuple[str, str], Counter[str]] = {}
        for claim in self.claims:
            counts.setdefault((claim["claim"], claim["statement"]), Counter())[claim["verdict"]] += 1
        return [
            {"claim": name, "statement": statement, **{verdict: count[verdict] for verdict in VERDICTS}}
            for (name, statement), count in counts.items()
        ]

    def report(self) -> Path:
        """Build report.html, summary.md and figures/ in the run directory; return the page's path."""
        from alignfirst import report

        return report.build(self.path)


def run(
    config: Source,
    *,
    out: str | Path | None = None,
    workers: int | None = None,
    set: Mapping[str, Any] | Sequence[str] = (),
    progress: Progress | None = None,
    strict: bool = False,
    require_go: bool = False,
    options: ExecutionOptions | None = None,
) -> Run:
    """Run a study, or finish it where it was cut short: what is stored is not computed again.

    `config`: a preset's name, a YAML file's path, a mapping (which may say `extends`) or a StudyConfig. `set` sets
    dotted keys on top. `out` is the run directory, by default runs/NAME. `workers`: processes, by default one an
    available core; 0: in this process. `strict` refuses a study whose own files give reason for a warning, `require_go`
    trains no alignment before its audit said go. `options` (alignfirst.study.execution.options.ExecutionOptions) say
    how it is computed in full: `cluster=Cluster()` on Ray.

    Raises InputError, RunLockedError, StoreError, or GateError where an alignment is not a go. Cells that fail end up
    in the records with a reason, and the run's status is `partial` then.
    """
    from alignfirst.study import runner
    from alignfirst.study.config import preset_files
    from alignfirst.study.execution.options import ExecutionOptions

    study = preset_files.load(config, set)
    given = options or ExecutionOptions()
    how = replace(
        given,
        workers=given.workers if workers is None else workers,
        strict=given.strict or strict,
        require_go=given.require_go or require_go,
    )
    return Run(runner.run(study, RUNS / study.name if out is None else Path(out), how, progress).out)


def audit(
    reference: str | Path,
    *,
    teacher: str | Path | None = None,
    pairs: str | Path | None = None,
    prompts: str | Path | None = None,
    reward: str | Callable[[list[str], list[str]], Any] | None = None,
    target: str | None = None,
    target_file: str | Path | None = None,
    plans: Plans | Sequence[Plan] | None = None,
    out: str | Path | None = None,
    samples: int | None = None,
    new_tokens: int = 256,
    rows: int | None = None,
    shape: str = "auto",
    columns: Mapping[str, str] | Sequence[str] = (),
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
    options: ExecutionOptions | None = None,
) -> Audit:
    """Say, before any alignment is trained, where planned alignments of a reference will end: see docs/audit.md.

    `reference`: a file of log-probabilities (docs/audit.md has its columns), a model of a study (RUN:recipe/stage), or
    a language model (a folder, a .gguf file, a hub id). `teacher`: a model of higher recall with the same tokenizer or
    of the same world, with whose draws rare hits are found. Language models take `pairs` (preferences) or
    `prompts`, read to the first `rows` in the `shape` and with the `columns` (part -> column) that docs/own-models.md
    names; `reward`, `module:function` or a function of
    texts (prompts, responses) -> numbers, which is asked in this process every time; `target`, a rule on the reward
    such as 'R >= 0.5'; `target_file`, examples of what is wanted; `samples` responses a prompt (of a study's model: in
    all), of at most `new_tokens` tokens.

    `plans`: the alignments to judge, one by one or as `Plans` of algorithms and betas. What models draw and score is
    kept in the user's cache: an audit with other plans computes nothing. `options` says who computes it, as in `run`:
    this process unless workers, each with its own copy of the models, or a cluster are named. `progress` is as in
    `run`; `say` gets what was kept of the pairs. With `out`, audit.json, audit.txt, audit.html and, of language
    models, log_probs.jsonl are written in that folder.

    Raises InputError for what cannot work, StageFailure where a model or a reward fails, StoreError.
    """
    from alignfirst.auditing.inputs import Target
    from alignfirst.data.layouts import layout_of
    from alignfirst.report import build_audit
    from alignfirst.report.audit import audit_files
    from alignfirst.study.audit.request import AuditRequest, Plans

    request = AuditRequest(
        str(reference), None if teacher is None else str(teacher), pairs, prompts, reward,
        None if target is None else Target.parse(target), target_file, Plans() if plans is None else plans,
        samples, new_tokens, rows, layout_of(shape, columns), out,
    )  # fmt: skip
    result = _audited(request, progress, say, options)
    if out is not None:
        audit_files.write(result, Path(out))
        build_audit(Path(out))
    return result


def _audited(
    request: AuditRequest,
    progress: Progress | None,
    say: Callable[[str], None] | None,
    options: ExecutionOptions | None,
) -> Audit:
    """By what the reference is."""
    from alignfirst.study.audit import log_probs, study_models
    from alignfirst.study.audit.node_cache import NodeCache
    from alignfirst.study.execution.options import ExecutionOptions

    if study_models.Address.parse(request.reference) is None and log_probs.is_table(request.reference):
        if options is not None and options.cluster is not None:
            cure = "Leave --engine ray out: it is quick here."
            raise InputError("a cluster asks models", "a file of log-probabilities", cure)
        return log_probs.audit_log_probs(request)
    cache = NodeCache(options or ExecutionOptions(workers=0), progress)
    if study_models.Address.parse(request.reference) is not None:
        return study_models.audit_study_model(request, cache)
    from alignfirst.study.audit.language_models import audit_language_models

    return audit_language_models(request, cache, say or (lambda text: None))


def load(path: str | Path) -> Run:
    """A run that is on disk. Raises InputError where there is none, StoreError where it is damaged."""
    run = Run(path)
    if not (run.path / "manifest.json").is_file():
        raise InputError("a run directory must hold a manifest.json", str(path), "`alignfirst ls` lists runs.")
    if run.manifest.get("status") == "interrupted" and not (run.path / "records.jsonl").exists():
        raise StoreError(f"{path} was interrupted before it had records. Run the same command again to finish it.")
    return run
