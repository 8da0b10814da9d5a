"""Rollouts: drawn from the policy, rewarded, and turned into coefficients of grad log pi of their tokens.

Arrays of an update are [N, L]: N responses, L token positions. The coefficient functions take [..., N] with anything
in front, which in the mixture are runs. Here it is token positions: one, for the whole sequence, or all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from alignfirst.lm.sampling.sample import sample, steps_itself
from alignfirst.lm.sampling.saved_forward import SavedForward
from alignfirst.lm.text.batch import Batch, Bools, Floats, Ints, Prompts, join
from alignfirst.theory.objectives import Algorithm, shaped_reward

Level = Literal["sequence", "token"]
KlIn = Literal["reward", "loss"]
TOGETHER = 32  # rows of several lengths in one call: a cache of 300 tokens of SmolLM2-135M then takes 440 MB


def draw(
    model: Any, prompts: Prompts, which: Ints, rng: torch.Generator, temperature: float = 1.0
) -> tuple[Batch, Floats]:
    """One response to each of `which` prompts, and log-probabilities of its tokens, [B, new_tokens].

    Rows are drawn from the shortest prompt to the longest; those drawn together are padded in front, where the loop
    knows padding, and their positions are those that they have alone.
    """
    batch, logp, _ = draw_kept(model, prompts, which, rng, temperature, keep=False)
    return batch, logp


def draw_kept(
    model: Any, prompts: Prompts, which: Ints, rng: torch.Generator, temperature: float = 1.0, keep: bool = True
) -> tuple[Batch, Floats, SavedForward | None]:
    """The same, with the way back through the responses where one is kept: prompts of one length, a small model."""
    lengths = np.array([len(prompts.rows[i]) for i in which])
    batches, logps, order, trace = [], [], [], None
    keep = keep and len(np.unique(lengths)) == 1
    for rows in together(lengths, steps_itself(model, int(lengths.max()) + prompts.new_tokens)):
        asked = [torch.as_tensor(prompts.rows[i]).to(model.device) for i in which[rows]]
        padded, mask = in_front(asked)
        drawn = sample(
            model, padded, prompts.new_tokens, rng, temperature=temperature, eos=prompts.eos, keep=keep, mask=mask
        )
        trace = drawn.trace
        batches.append(answered(asked, drawn.tokens, drawn.mask))
        logps.append(drawn.logp.double().cpu().numpy())
        order.append(rows)
    back = np.argsort(np.concatenate(order))
    return join(batches).rows(back), np.concatenate(logps)[back], trace


def together(lengths: Ints, alike: bool) -> list[Ints]:
    """Rows that are drawn in one call, by ascending length: all of one length, or several but TOGETHER at most."""
    order = np.argsort(lengths, kind="stable")
    if alike or lengths.min() == lengths.max():
        return np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1)
    return [order[a : a + TOGETHER] for a in range(0, len(order), TOGETHER)]


def in_front(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Rows of any lengths as [B, P], padded in front, and the mask of what is not padding (None: all)."""
    longest = max(len(x) for x in rows)
    if all(len(x) == longest for x in rows):
        return torch.stack(rows), None
    padded = [torch.nn.functional.pad(x, (longest - len(x), 0)) for x in rows]
    mask = [torch.arange(longest, device=x.device) >= longest - len(x) for x in rows]
    return torch.stack(padded), torch.stack(mask)


def answered(prompts: list[torch.Tensor], tokens: torch.Tensor, mask: torch.Tensor) -> Batch:
    """Prompts of any lengths and their answers [B, L], without the padding in front."""
    if len({len(x) for x in prompts}) == 1:
        return Batch.of(torch.stack(prompts).to(tokens.device), tokens, mask)
    rows = [torch.cat([p.to(tokens.device), t]) for p, t in zip(prompts, tokens, strict=True)]
    start = torch.tensor([len(p) for p in prompts], device=tokens.device)
    return Batch(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), start, mask)


@dataclass(frozen=True)
class Rollouts:
    """All responses of an update, from all processes: numbers only."""

    reward: Floats  # [N]
    logp: Floats  # [N, L], when they were drawn; 0 beyond their end
    logp_ref: Floats | None  # [N, L]
    mask: Bools  # [N, L]

    def to_go(self, per_token: Floats) -> Floats:
        """[N, L] -> [L, N]: sum from each position to the end."""
        return np.ascontiguousarray(per_token[:, ::-1].cumsum(1)[:, ::-1].T)

    def returns(self, beta: float, level: Level) -> Floats:
        """Shaped reward of whole sequences, [1, N], or from each position on, [L, N]: what came before is no
        consequence of the token, and leaving it out takes noise away."""
        ref = self.logp if self.logp_ref is None else self.logp_ref
        logp, ref = self.to_go(self.logp), self.to_go(ref)
        if level == "sequence":
            logp, ref = logp[:1], ref[:1]
        return shaped_reward(self.reward, logp, ref, beta)

    def curves(self) -> dict[str, float | None]:
        """What a person wants to see: means over responses; entropy and KL of whole sequences, in nats."""
        kl = None if self.logp_ref is None else float((self.logp - self.logp_ref).sum(1).mean())
        return {"reward": float(self.reward.mean()), "kl": kl, "entropy": float(-self.logp.sum(1).mean())}


@dataclass(frozen=True)
class RolloutWork:
    """Some rollouts of an update, ready for the loop: a batch, and coefficients once log pi is known."""

    algorithm: Algorithm
    group: int
    level: Level
    beta_in_loss: float
    rollouts: Rollouts  # of the whole update
    shaped: Floats  # [1, N] or [L, N]: rewards as the algorithm sees them
    batch: Batch  # this chunk
    rows: slice  # of the chunk in the update
    trace: SavedForward | None = None  # from when they were drawn

    def coefficients(self, logp: Floats) -> tuple[Floats, dict[str, Floats]]:
        """log pi of the chunk's tokens [B, L] -> coefficients of grad log pi, [B, L] (or [B, 1]: all the same)."""
        log_ratio = logp - self.rollouts.logp[self.rows]
        c = self._policy(log_ratio)
        loss = -self._per_row(c) * len(self.rollouts.reward)
        if self.beta_in_loss:
            penalty, c_kl = self._kl(logp, log_ratio)
            c, loss = c + c_kl, loss + self._per_row(penalty)
        return c, {"loss": loss}

    def _policy(self, log_ratio: Floats) -> Floats:
        """log(pi / pi when drawn) of the chunk's tokens [B, L] -> the algorithm's coefficients, [B, L or 1]."""
        everywhere = np.zeros_like(self.rollouts.logp)
        everywhere[self.rows] = log_ratio
        ratios = self._at_level(everywhere)  # [L or 1, N]
        if self.algorithm.name == "ppo" and self.level == "token":
            c = self._over_all_tokens(ratios)
        else:
            c = np.asarray(self.algorithm.coefficients(self.shaped, ratios, self.group))
        return c[:, self.rows].T

    def _over_all_tokens(self, log_ratio: Floats) -> Floats:
        """PPO standardises advantages over every token drawn: position by position, late ones would be all noise."""
        own = self.rollouts.mask.T  # [L, N]
        c = np.zeros_like(self.shaped)
        c[own] = self.algorithm.coefficients(self.shaped[own], log_ratio[own], self.group)
        return c * own.sum() / own.shape[1]  # 1/tokens -> 1/N

    def _kl(self, logp: Floats, log_ratio: Floats) -> tuple[Floats, Floats]:
        """KL in the loss (Shao et al. 2024, eq. 4): ratio beta (e^-d + d - 1), d = log pi - log pi_ref, and -slope / N.

        The ratio is part of what is differentiated (DeepSeek-V3.2, as TRL does): without it the slope would be that of
        the other KL, of pi_ref from pi. Token by token, what follows a token is left out of its KL.
        """
        assert self.rollouts.logp_ref is not None
        d = self._at_level(logp - self.rollouts.logp_ref[self.rows]).T
        weight = self.beta_in_loss * np.exp(self._at_level(log_ratio).T)
        return weight * (np.exp(-d) + d - 1), -weight * d / len(self.rollouts.reward)

    def _at_level(self, per_token: Floats) -> Floats:
        """[B, L] -> [L, B], or the sum over tokens, [1, B]."""
        return per_token.T if self.level == "token" else per_token.sum(1)[None]

    def _per_row(self, values: Floats) -> Floats:
        """[B, L or 1] -> [B]: the sum over a row's own tokens, or the row's one value."""
        return values[:, 0] if values.shape[1] == 1 else (values * self.rollouts.mask[self.rows]).sum(1)
