"""Preference pairs: drawn, labelled, and turned into coefficients of grad log pi of the responses in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from alignfirst.data.rows import TokenRow
from alignfirst.errors import InputError
from alignfirst.lm.sampling.saved_forward import SavedForward
from alignfirst.lm.text.batch import Batch, Bools, Floats, Ints
from alignfirst.theory.objectives import Algorithm, Answers, margin, preference_probability


@dataclass(frozen=True)
class Labels:
    """How a pair is labelled: Bradley-Terry with a scale, or the larger reward; flipped with a probability."""

    kind: Literal["bradley-terry", "hard"] = "bradley-terry"
    scale: float = 1.0
    flip: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in ("bradley-terry", "hard"):
            raise InputError("labels must be bradley-terry or hard", self.kind, "`bradley-terry` is the default.")
        if not self.scale > 0:
            raise InputError("the label scale must be > 0", self.scale, "P(winner) = sigmoid(scale * reward gap).")
        if not 0 <= self.flip < 0.5:
            raise InputError("flip must be in [0, 0.5)", self.flip, "At 0.5 labels say nothing.")

    def probability(self, reward_first: Floats, reward_second: Floats) -> Floats:
        """P(the first is preferred), [N], from the rewards of first and second members, [N] each."""
        if self.kind == "hard":
            return np.asarray(self.flip + (1 - 2 * self.flip) * (reward_first > reward_second), float)
        return preference_probability(reward_first, reward_second, self.scale, self.flip)


@dataclass(frozen=True)
class Pairs:
    """N labelled pairs of responses that stand in a pool: a response may be in many pairs and is computed once."""

    pool: Batch  # B responses
    first: Ints  # [N], rows of the pool
    second: Ints  # [N]
    first_wins: Bools  # [N]
    weight: Floats | None = None  # [N], mean 1; None: all 1
    logp_ref: Floats | None = None  # [B], of the whole response under the reference

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def of_rows(cls, rows: Sequence[TokenRow]) -> Pairs:
        """Pairs of a user's own data, as the data room read them: usable and whole. Nothing is dropped or cut here."""
        pool = Batch.of_rows([(r.prompt, r.chosen) for r in rows] + [(r.prompt, r.rejected) for r in rows])
        n = len(rows)
        return cls(pool, np.arange(n), np.arange(n, 2 * n), np.ones(n, np.bool_))


@dataclass(frozen=True)
class PairWork:
    """Some pairs of an update, ready for the loop: a batch, and coefficients once its log-probabilities are known."""

    algorithm: Algorithm
    b: float  # scale * beta
    total: int  # pairs of the whole update, over all chunks and processes
    batch: Batch  # each response once
    winner: Ints  # [N], rows of the batch
    loser: Ints
    weight: Floats  # [N]
    logp_ref: Floats  # [B], of the batch
    forward: SavedForward | None = None  # from when they were drawn, where they are the whole of that draw

    @classmethod
    def of(
        cls,
        algorithm: Algorithm,
        b: float,
        total: int,
        pairs: Pairs,
        picks: Ints,
        forward: SavedForward | None = None,
    ) -> PairWork:
        """The picked pairs. What they share is put into the batch once."""
        first, second, first_wins = pairs.first[picks], pairs.second[picks], pairs.first_wins[picks]
        winner, loser = np.where(first_wins, first, second), np.where(first_wins, second, first)
        used, place = np.unique(np.concatenate([winner, loser]), return_inverse=True)
        weight = np.ones(len(picks)) if pairs.weight is None else pairs.weight[picks]
        ref = np.zeros(len(used)) if pairs.logp_ref is None else pairs.logp_ref[used]
        batch = pairs.pool.rows(used).trimmed()
        return cls(algorithm, b, total, batch, place[: len(picks)], place[len(picks) :], weight, ref, forward)

    def coefficients(self, logp: Floats) -> tuple[Floats, dict[str, Floats]]:
        """log pi of tokens [B, L] -> coefficients of grad log pi, [B, 1], and what to log, one value a pair [N].

        Every pair goes through the algorithm as a batch of its own, so that nothing depends on chunks.
        """
        whole, length = logp.sum(1), self.batch.lengths.clamp(min=1).double().cpu().numpy()
        w, lo = self.winner[:, None], self.loser[:, None]
        answers = Answers(whole[w], length[w]), Answers(whole[lo], length[lo])
        seen = self.algorithm.seen(*answers, self.logp_ref[w], self.logp_ref[lo])
        c_w, c_l = self.algorithm.coefficients(*seen, self.b)
        c = np.zeros(len(whole))
        np.add.at(c, self.winner, c_w[:, 0] * self.weight / self.total)
        np.add.at(c, self.loser, c_l[:, 0] * self.weight / self.total)
        m = margin(whole[w], whole[lo], self.logp_ref[w], self.logp_ref[lo])[:, 0]
        notes = {"margin": m, "accuracy": (m > 0) + 0.5 * (m == 0)}
        if self.algorithm.objective is not None:
            notes["loss"] = -self.weight * self.algorithm.objective(*seen, self.b)
        return c[:, None], notes
