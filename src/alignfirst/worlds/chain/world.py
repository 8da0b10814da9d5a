"""The chain's world: what a study's config means for each node. `work.py` computes them, and torch comes only then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from typing import Any

from alignfirst.auditing.audit_nodes import AuditDraws
from alignfirst.costs.hardware import GPUS
from alignfirst.costs.price import Price
from alignfirst.nodes import Artefact, Json, Load, Node, NodeKind, Outcome
from alignfirst.world import Need, World
from alignfirst.worlds.chain import cost
from alignfirst.worlds.node_settings import align_settings, drawing_filter, keys

MODEL_KEYS = ("hidden", "layers", "heads", "kv_heads", "intermediate")
FIT_KEYS = ("batch", "learning_rate", "checks", "patience")
EXPECTED = ("parameters", "hidden", "layers", "vocabulary", "prompt_tokens")  # of p_star
LEAST = 8  # of anything that a scale shrinks
AUDIT_SAMPLES = 16_384  # texts of every model, at most as many as measurements draw


class ChainWorld(World):
    """A chain of language models that begins at a real one."""

    name = "chain"
    text = True
    batch_sizes: Mapping[NodeKind, int] = {"audit": 1_000}
    exhibits_arrays = False  # metadata is enough
    versions: Mapping[NodeKind, int] = {
        "source": 2,
        "draw": 2,
        "target": 2,
        "sft": 2,
        "distil": 2,
        "align": 2,
        "measure": 2,
        "audit": 1,
    }
    together = frozenset({"target", "sft", "distil", "align"})
    audit_first = True  # a training here takes long enough to be told before
    gpus = tuple(GPUS)
    operations_a_second = 4e10  # in float32: an AVX-512 machine's, measured with smollm2-cpu
    overhead = 1.0

    def _sft_settings(self, config: Any, *, seed: int) -> dict[str, Json]:
        return {"seed": seed} | _fit(config, config.sft, config.p_star.samples)

    def _distil_settings(self, config: Any, *, seed: int, rehearsed: bool, occurrence: int) -> dict[str, Json]:
        return {"seed": seed, "occurrence": occurrence} | _fit(config, config.distil, config.distil.samples)

    def _align_settings(self, config: Any, **context: Any) -> dict[str, Json]:
        return align_settings(self, config, **context) | {"chunk": config.chunk}

    def _measure_settings(self, config: Any, *, beta: float | None, algorithm: str | None) -> dict[str, Json]:
        samples = scaled(config, config.measure.samples)
        return {"samples": samples, "scored": min(samples, scaled(config, config.measure.scored))}

    def drawing_settings(self, config: Any, *, seed: int, algorithm: str | None = None) -> dict[str, Json]:
        """No seed: measurements draw the same texts of a model whatever the seed."""
        return {"samples": audited(config)}

    def count(self, config: Any, full: float, least: int = LEAST) -> int:
        """A count of the full study at the config's scale."""
        return scaled(config, full, least)

    # -- what the stages learn from ---------------------------------------------------------------------------------

    def supplies(
        self, kind: NodeKind, config: Any, inputs: Mapping[str, str], need: Need, **context: Json
    ) -> Mapping[str, str]:
        """The source, the target model, and shards of texts: see `World.supplies`."""
        s = _Supplier(config, need)
        source = {"source": s.source}
        if kind == "sft":
            return source | s.texts("data", "data", config.p_star.samples) | s.held_out()
        if kind == "distil":
            return source | s.of_teacher(inputs["teacher"], **context)
        if kind == "align":
            return source | {"target": s.target}
        n = config.measure.samples
        if kind == "audit":
            found = source | {"target": s.target} | s.first("text", "target-text", s.target)
            for role in ("sft", "reference", "initial", "pairs"):
                if role in inputs:
                    found |= s.first(f"own-{role}", "own", inputs[role])
            return found
        return (
            source
            | {"target": s.target}
            | s.texts("star", "measured", n)
            | s.texts("text", "target-text", n, s.target)
            | s.texts("own", "own", n, inputs["model"])
        )

    # -- work -------------------------------------------------------------------------------------------------------

    def run(self, nodes: Sequence[Node], load: Load) -> list[Outcome]:
        """Compute nodes of one kind and group. A training that diverges fails alone, with its reason."""
        from alignfirst.worlds.chain import work  # imports torch

        return work.RUN[nodes[0].kind](nodes, load)

    def draw(self, settings: Mapping[str, Json], inputs: Mapping[str, str], role: str, load: Load) -> AuditDraws:
        """Texts of a model and, unless it is its own teacher, of the sft model."""
        from alignfirst.worlds.chain.draws import audit_draws  # imports torch

        return audit_draws(settings, inputs, role, load)

    def exhibits(self, config: Any, models: Mapping[str, Artefact]) -> dict[str, Json]:
        """A few texts of every model and its training curves; see docs/smollm2.md for the shape."""
        from alignfirst.worlds.chain import exhibits

        return exhibits.exhibits(config, models)

    def open(self, artefact: Artefact, load: Load) -> Any:
        """The transformer, in evaluation mode; its tokens are those that `p_star.keep` left, in their order."""
        from alignfirst.lm.models.build import SmolLlama
        from alignfirst.lm.models.load import from_arrays  # imports torch

        return from_arrays(SmolLlama(**artefact.meta["config"]), artefact.arrays)

    def price(self, node: Node, nodes: Mapping[str, Node]) -> Price:
        return cost.price(node, nodes)

    def scaled_down(self, config: Any) -> list[str]:
        return cost.scaled_down(config)


class _Supplier:
    """Asks for what is not a stage."""

    def __init__(self, config: Any, need: Need) -> None:
        self.config, self.need = config, need
        p = config.p_star
        settings = keys(p, ("source", "revision", "prompt", "length", "ends", "dtype", "keep"))
        settings["expected"] = keys(p, EXPECTED)
        if p.keep is not None:
            settings["counted"] = p.counted  # a smaller study has the same p_star
        self.source = need("source", settings, {})

    @property
    def target(self) -> str:
        t = self.config.target
        settings = _fit(self.config, t, t.samples) | {
            "mass": t.mass,
            "calibrated": scaled(self.config, t.calibrated),
        }
        tau = t.temperature
        inputs = (
            {"source": self.source}
            | self.texts("data", "target-data", t.samples, temperature=tau)
            | self.texts("held", "target-held-out", t.held_out, temperature=tau)
            | self.texts("star", "held-out", t.calibrated)
        )
        return self.need("target", settings, inputs)

    def held_out(self) -> dict[str, str]:
        return self.texts("held", "held-out", self.config.p_star.held_out)

    def of_teacher(self, teacher: str, *, seed: int, rehearsed: bool, occurrence: int) -> dict[str, str]:
        """The teacher's texts; where target examples are mixed in, they take the places of as many."""
        d = self.config.distil
        n = scaled(self.config, d.samples)
        again = round(d.rehearsal * n) if rehearsed else 0
        drawn = {"temperature": d.temperature, "seed": seed, "occurrence": occurrence} | drawing_filter(d)
        found = self._shards("data", "teacher", n - again, teacher, **drawn)
        found |= self.texts("held", "teacher-held-out", d.held_out, teacher, **drawn)
        if again:
            found |= self._shards("again", "rehearsal", again, self.target, seed=seed, occurrence=occurrence)
        return found

    def texts(self, role: str, purpose: str, n: int, model: str | None = None, **drawn: Any) -> dict[str, str]:
        """Shards of n texts before scaling; of p_star where no model is named."""
        return self._shards(role, purpose, scaled(self.config, n), model, **drawn)

    def first(self, role: str, purpose: str, model: str) -> dict[str, str]:
        """Those of the shards that measurements draw which an audit takes its texts from."""
        found = self.texts(role, purpose, self.config.measure.samples, model)
        return dict(list(found.items())[: ceil(audited(self.config) / self.config.shard)])

    def _shards(
        self,
        role: str,
        purpose: str,
        n: int,
        model: str | None = None,
        temperature: float = 1.0,
        seed: int = 0,
        occurrence: int = 0,
        **filtered: Json,
    ) -> dict[str, str]:
        inputs = {"source": self.source} | ({} if model is None else {"model": model})
        found = {}
        for i, size in enumerate(shards(n, self.config.shard)):
            settings = {
                "purpose": purpose,
                "shard": i,
                "samples": size,
                "temperature": temperature,
                "seed": seed,
                "occurrence": occurrence,
                **filtered,
            }
            found[f"{role}-{i:05}"] = self.need("draw", settings, inputs)
        return found


def shards(n: int, size: int) -> Iterator[int]:
    """n in pieces of `size`, the last one perhaps smaller."""
    return (min(size, n - a) for a in range(0, n, size))


def scaled(config: Any, count: float, least: int = LEAST) -> int:
    """A count of the full study at the config's scale."""
    return int(max(min(least, ceil(count)), round(count * config.scale)))


def audited(config: Any) -> int:
    """Texts of every model that an audit looks at."""
    return min(scaled(config, config.measure.samples), AUDIT_SAMPLES)


def _fit(config: Any, section: Any, samples: int) -> dict[str, Json]:
    n = scaled(config, samples)
    return keys(section, FIT_KEYS) | {
        "model": keys(section, MODEL_KEYS),
        "samples": n,
        "updates": max(1, ceil(section.epochs * n / section.batch)),
        "chunk": config.chunk,
    }


WORLD = ChainWorld()
