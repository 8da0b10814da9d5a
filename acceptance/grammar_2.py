"""4 tokens, length 4, so that all 256 texts can be counted: every native algorithm against its exact optimum.

Prints KL(policy || optimum) and the gap in mean reward, each beside its bound: 5 standard errors of what the training
drew, or 1e-5 and 1e-3 where pairs are all ordered pairs with their exact label probability. Three minutes on one core.
"""

from __future__ import annotations

import sys

import numpy as np

from common import ROOT, conclude

sys.path.insert(0, str(ROOT / "tests" / "lm"))
import torch

torch.set_num_threads(1)
import test_align_exact as exact  # noqa: E402

failures: list[str] = []


def compare(name: str, logq: np.ndarray, optimum: np.ndarray, bounds: tuple[float, float]) -> None:
    kl, gap = exact.distance(logq, optimum)
    print(
        f"{name:34s} KL {kl:8.1e} (at most {bounds[0]:.1e})   reward gap {gap:8.1e} (at most {bounds[1]:.1e})",
        flush=True,
    )
    if not (kl < bounds[0] and gap < bounds[1]):
        failures.append(f"{name}: KL {kl:.2e}, gap {gap:.2e}")


start = exact.distance(exact.LOGP_REF, exact.TILT)
print(f"{'before training':34s} KL {start[0]:8.1e} {'':21s} reward gap {start[1]:8.1e}")
for name in exact.ON_POLICY:
    for level in ("sequence", "token"):
        fresh = exact.SAMPLES * exact.UPDATES / 2 / (4 if name == "ppo" else 1)
        compare(f"{name}, {level}", exact.train(name, level=level), exact.TILT, exact.sampling_error(fresh))
p = exact.preference_probability(exact.REWARDS[:, None], exact.REWARDS[None], exact.SCALE)
told = 2 * exact.B**2 * np.exp(exact.TILT) @ (p * (1 - p)) @ np.exp(exact.TILT)
bounds = exact.sampling_error(exact.SAMPLES / 2 * 150, told)
compare("dpo-online", exact.train("dpo-online", updates=300), exact.TILT, bounds)
pairs = exact.all_pairs(0.0)
offline = {"rate": 0.1, "updates": 150}
compare("dpo-offline, all pairs", exact.train("dpo-offline", pairs, **offline), exact.TILT, exact.EXACT)
own = exact.normalised(exact.LOGP_REF + p @ exact.P_REF / exact.B)
compare("ipo, all pairs, its own optimum", exact.train("ipo", pairs, **offline), own, exact.EXACT)
winners = np.log(2 * exact.P_REF * (p @ exact.P_REF))
compare("sft-preferred, all pairs, winners", exact.train("sft-preferred", pairs, **offline), winners, exact.EXACT)
best = np.exp(exact.train("best-of-n", updates=300))[exact.REWARDS.argmax()]
print(f"{'best-of-n':34s} mass of the best text {best:.3f} (at least 0.95)")
conclude(failures + ([] if best > 0.95 else [f"best-of-n: {best:.3f}"]))
