"""Rollouts: rewarded responses of the policy, turned into coefficients of grad log pi of their tokens.

Arrays of an update are [N, L]: N responses, L token positions. The coefficient functions take [..., N] with anything
in front, which in the mixture are runs. Here it is token positions: one, for the whole sequence, or all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alignfirst.lm.align.settings import AlignSettings, Level
from alignfirst.lm.sampling.saved_forward import SavedForward
from alignfirst.lm.text.batch import Batch, Bools, Floats
from alignfirst.theory.objectives import shaped_reward


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

    settings: AlignSettings
    rollouts: Rollouts  # of the whole update
    shaped: Floats  # [1, N] or [L, N]: rewards as the algorithm sees them
    batch: Batch  # this chunk
    rows: slice  # of the chunk in the update
    forward: SavedForward | None = None  # from when they were drawn

    def coefficients(self, logp: Floats) -> tuple[Floats, dict[str, Floats]]:
        """log pi of the chunk's tokens [B, L] -> coefficients of grad log pi, [B, L] (or [B, 1]: all the same)."""
        log_ratio = logp - self.rollouts.logp[self.rows]
        c = self._policy(log_ratio)
        loss = -self._per_row(c) * len(self.rollouts.reward)
        if self.settings.beta and self.settings.kl_in == "loss":
            penalty, c_kl = self._kl(logp, log_ratio)
            c, loss = c + c_kl, loss + self._per_row(penalty)
        return c, {"loss": loss}

    def _policy(self, log_ratio: Floats) -> Floats:
        """log(pi / pi when drawn) of the chunk's tokens [B, L] -> the algorithm's coefficients, [B, L or 1]."""
        everywhere = np.zeros_like(self.rollouts.logp)
        everywhere[self.rows] = log_ratio
        ratios = self._at_level(everywhere)  # [L or 1, N]
        if self.settings.used.critic and self.settings.level == "token":
            c = self._over_all_tokens(ratios)
        else:
            c = np.asarray(self.settings.used.coefficients(self.shaped, ratios, self.settings.group_size))
        return c[:, self.rows].T

    def _over_all_tokens(self, log_ratio: Floats) -> Floats:
        """PPO standardises advantages over every token drawn: position by position, late ones would be all noise."""
        own = self.rollouts.mask.T  # [L, N]
        c = np.zeros_like(self.shaped)
        c[own] = self.settings.used.coefficients(self.shaped[own], log_ratio[own], self.settings.group_size)
        return c * own.sum() / own.shape[1]  # 1/tokens -> 1/N

    def _kl(self, logp: Floats, log_ratio: Floats) -> tuple[Floats, Floats]:
        """KL in the loss (Shao et al. 2024, eq. 4): ratio beta (e^-d + d - 1), d = log pi - log pi_ref, and -slope / N.

        The ratio is part of what is differentiated (DeepSeek-V3.2, as TRL does): without it the slope would be that of
        the other KL, of pi_ref from pi. Token by token, what follows a token is left out of its KL.
        """
        assert self.rollouts.logp_ref is not None
        d = self._at_level(logp - self.rollouts.logp_ref[self.rows]).T
        weight = self.settings.beta * np.exp(self._at_level(log_ratio).T)
        return weight * (np.exp(-d) + d - 1), -weight * d / len(self.rollouts.reward)

    def _at_level(self, per_token: Floats) -> Floats:
        """[B, L] -> [L, B], or the sum over tokens, [1, B]."""
        return per_token.T if self.settings.level == "token" else per_token.sum(1)[None]

    def _per_row(self, values: Floats) -> Floats:
        """[B, L or 1] -> [B]: the sum over a row's own tokens, or the row's one value."""
        return values[:, 0] if values.shape[1] == 1 else (values * self.rollouts.mask[self.rows]).sum(1)
