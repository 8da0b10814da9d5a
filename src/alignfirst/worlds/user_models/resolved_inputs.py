"""What a study's names stand for: identified models, the tokenizer they share, the rules of its data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from alignfirst.data import sources
from alignfirst.data.index import Rows, index, index_key
from alignfirst.data.pairs import none_usable
from alignfirst.data.shapes import Kind
from alignfirst.data.tokenise import Encoder, Rules
from alignfirst.data.turns import Ends
from alignfirst.errors import InputError
from alignfirst.files import default_cache
from alignfirst.nodes import Artefact, Json
from alignfirst.plugins import reward_settings
from alignfirst.store import Store

CACHED = "indexes"  # in the cache of this package


@dataclass(frozen=True)
class ResolvedInputs:
    """What the names in a study stand for, each looked up when it is first asked for. Nothing here trains or draws."""

    config: Any  # a UserModelsConfig

    @cached_property
    def teacher(self) -> dict[str, Json]:
        return identified(self.config.teacher.model)

    @cached_property
    def student(self) -> dict[str, Json]:
        """What the student starts from, in every recipe the same."""
        from alignfirst.lm.models import named_models

        s = self.config.student
        if s.layers is not None:
            total = self.teacher_architecture["num_hidden_layers"]
            if not 2 <= s.layers <= total:
                cure = "The first and last are kept, the others evenly spaced."
                raise InputError(f"student.layers must be from 2 to the teacher's {total}", s.layers, cure)
            return {"layers": s.layers}
        if s.model is not None:
            return {"model": identified(s.model)}
        return {"config": named_models.architecture_in(s.config)}

    @cached_property
    def reward(self) -> dict[str, Json]:
        """A function by its place (a plug-in's with its package), or a classifier by its content."""
        r = self.config.reward
        if r.function is not None:
            named = reward_settings(r.function)
            return {"function": named.pop("kind"), "timeout": r.timeout, **named}
        return {"classifier": identified(r.classifier), "label": r.label, "timeout": r.timeout}

    @cached_property
    def tasks(self) -> list[Json]:
        """Tasks of lm-eval: by name, or the file of one by its content."""
        paths = [(task, Path(task).expanduser()) for task in self.config.measure.tasks]
        return [{"file": t, "digest": sources.file_identity(p)} if p.is_file() else t for t, p in paths]

    @cached_property
    def teacher_architecture(self) -> dict[str, Any]:
        from alignfirst.lm.models import named_models

        return named_models.architecture_of(self.config.teacher.model)

    @cached_property
    def student_architecture(self) -> dict[str, Any]:
        return student_architecture(self.student, self.teacher_architecture)

    @cached_property
    def tokenizer(self) -> Artefact:
        from alignfirst.lm.models import named_models

        names = [name for name in (self.config.teacher.model, self.config.student.model) if name is not None]
        return Artefact(named_models.tokenizer_arrays(*(named_models.found(name) for name in names)))

    @cached_property
    def tokenizer_key(self) -> str:
        total = hashlib.sha256(b"tokenizer")
        for name, content in sorted(self.tokenizer.arrays.items()):
            total.update(f"{name} {hashlib.sha256(content.tobytes()).hexdigest()}\n".encode())
        return total.hexdigest()[:32]

    @cached_property
    def loaded_tokenizer(self) -> Any:
        from alignfirst.lm.models import named_models

        return named_models.tokenizer_of(self.tokenizer.arrays)

    @cached_property
    def ends(self) -> Ends:
        """Where answers end, in every stage."""
        from alignfirst.lm.models import named_models

        return named_models.ends_in(self.tokenizer.arrays, self.loaded_tokenizer)

    @cached_property
    def rules(self) -> Rules:
        d = self.config.data
        limits = [self.teacher_architecture, self.student_architecture]
        vocabulary = min(a["vocab_size"] for a in limits)
        positions = [a["max_position_embeddings"] for a in limits if a.get("max_position_embeddings")]
        longest = min([d.max_length, *positions])
        kind: Kind = "pairs" if d.pairs is not None else "prompts"
        return Rules(kind, d.rows, longest, d.chat, d.held_out, d.split_seed, vocabulary, d.shape, d.columns.given)

    @cached_property
    def source(self) -> sources.Source:
        return sources.source_of(data_of(self.config), self.config.data.split)

    @cached_property
    def index_key(self) -> str:
        return index_key(self.source, self.tokenizer_key, self.rules)

    @cached_property
    def index(self) -> Artefact:
        """Of the data; read once, and kept in the cache of this package.

        Raises InputError, with all reasons, where no row is usable or none stands on one side of the split.
        """
        store = _indexes()
        if not store.has(self.index_key):
            store.put_many([(self.index_key, index(self.source, Encoder(self.loaded_tokenizer, self.rules)))])
        found = index_of(self.index_key)
        _check_usable(found.meta, self.rules.kind)
        return found

    @cached_property
    def data(self) -> dict[str, Json]:
        """What a node needs to read rows again."""
        d = self.config.data
        return {"source": data_of(self.config), "split": d.split, "rules": asdict(self.rules), "index": self.index_key}


def _check_usable(meta: Mapping[str, Any], kind: Kind) -> None:
    if not meta["kept"]:
        said = "; ".join([*warnings_of(meta), *meta["read_as"]]) or "no row at all"
        raise InputError("at least one row must be usable", said, none_usable(kind))
    for side, name in (("train", "to train on"), ("held_out", "held out")):
        if not meta[side]:
            cure = "Change data.held_out or data.split_seed, or bring more prompts."
            given = "; ".join([f"none of {meta['kept']}", *warnings_of(meta)])
            raise InputError(f"there must be rows {name}", given, cure)


def warnings_of(meta: Mapping[str, Any]) -> list[str]:
    """What became of rows, from the metadata of their index: the dropped, by reason, and what is odd about others."""
    found = []
    for word in ("dropped", "notes"):
        for what, counted in meta[word].items():
            lines = counted["lines"]
            more = ", ..." if counted["count"] > len(lines) else ""
            named = f"line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines))}{more}"
            found.append(f"{'dropped' if word == 'dropped' else 'kept'} {counted['count']}: {what} ({named})")
    return found


def data_of(config: Any) -> str:
    found = config.data.pairs or config.data.prompts
    if found is None:
        cure = "Set data.pairs=FILE (JSON lines with prompt, chosen, rejected), or data.prompts=FILE and a reward."
        raise InputError("a study of your own models must name its data", "none", cure)
    return str(found)


def _indexes() -> Store:
    return Store(default_cache() / CACHED)


@lru_cache(maxsize=8)
def index_of(key: str) -> Artefact:
    """The index of a study's data, from the cache of this package, where `ResolvedInputs.index` put it."""
    return _indexes().get(key)


def student_architecture(student: Mapping[str, Any], teacher: Mapping[str, Any]) -> dict[str, Any]:
    """Of what the settings of a distillation call the student: layers of the teacher, a model, or a config."""
    from alignfirst.lm.models import named_models

    if "layers" in student:
        return {**teacher, "num_hidden_layers": student["layers"], "layer_types": None}
    return named_models.architecture_of(student["model"]["source"]) if "model" in student else dict(student["config"])


def identified(name: str) -> dict[str, Json]:
    from alignfirst.lm.models import named_models

    return {"source": name, "digest": named_models.found(name).commit}


def rows_of(data: Mapping[str, Any], index: Artefact, tokenizer: Any) -> Rows:
    """The rows that a node's settings speak of."""
    rules = Rules(**data["rules"])
    return Rows(sources.source_of(data["source"], data["split"]), Encoder(tokenizer, rules), index)


_KNOWN: dict[str, ResolvedInputs] = {}


def resolve_inputs(config: Any) -> ResolvedInputs:
    """The resolved inputs of a study. Those of the last few are remembered, for planning asks for them once a node.

    `config`: a `UserModelsConfig`. Nothing is looked up here, so nothing is raised: a model, file or column that is not
    there is an InputError of the attribute that needs it.
    """
    name = json.dumps([config.resolved(), _stamps(config)], sort_keys=True)
    if name not in _KNOWN:
        while len(_KNOWN) > 8:
            _KNOWN.pop(next(iter(_KNOWN)))
        _KNOWN[name] = ResolvedInputs(config)
    return _KNOWN[name]


def _stamps(config: Any) -> list[list[int]]:
    """Size and time of the files that a study names: what is remembered of them holds as long as these do."""
    names = (
        config.data.pairs,
        config.data.prompts,
        config.teacher.model,
        config.student.model,
        config.student.config,
        config.reward.classifier,
    )
    paths = [Path(name).expanduser() for name in (*names, *config.measure.tasks) if name is not None]
    about = [p.stat() for path in paths if path.exists() for p in (sorted(path.iterdir()) if path.is_dir() else [path])]
    return [[s.st_size, s.st_mtime_ns] for s in about]
