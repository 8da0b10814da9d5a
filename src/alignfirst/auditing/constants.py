"""Every constant that decides a verdict, a prediction or an interval of the audit, and the experiment that set it.

`benchmarks/audit_power.py` trains 384 mixture references of graded recall x 4 betas x 6 algorithms. Per algorithm,
`hits`, `quality`, `pull` and `floor` minimise (mean absolute error of reward) + (1 - AUC of success) over a coarse grid
on one half of the teachers; `least_quality` is then the smallest of 0.6, 0.7, 0.8 with which at least 97 of 100 `go`
verdicts were right there. The other half had no say, and is what docs/audit.md reports. The benchmark fits again and
compares with this file. What it did not fit says beside it why it is what it is. Sentences are formatted from here.
"""

from __future__ import annotations

from dataclasses import dataclass

EXPERIMENT = "benchmarks/audit_power.py: 24 of 48 mixture teachers, 192 references, betas 0.05, 0.1, 0.2, 0.3"


@dataclass(frozen=True)
class Gate:
    """g = 1 - exp(-L / h), L = rollouts x m0 x s^quality, h = hits x (beta / (0.14 x reward gap))^pull.

    A KL term that is strong beside the reward (`pull`) and hits that are worse than what is wanted (`quality`) ask for
    more of them. `floor`: offline pairs tilt no further than this beta, in units of the reward gap. `least_quality`:
    below it never `go`.
    """

    hits: float
    quality: float
    pull: float
    floor: float
    least_quality: float


PULL_AT = 0.14  # beta / gap at which h is `hits`: 0.1 in a world whose hits are worth 0.71

GATES: dict[str, Gate] = {
    "reinforce": Gate(hits=3, quality=0, pull=3, floor=0.0, least_quality=0.6),
    "rloo": Gate(hits=3, quality=0, pull=3, floor=0.0, least_quality=0.6),  # as reinforce
    "ppo": Gate(hits=30, quality=0, pull=3, floor=0.0, least_quality=0.6),
    "grpo": Gate(hits=60, quality=8, pull=3, floor=0.0, least_quality=0.6),
    "dpo-online": Gate(hits=100, quality=6, pull=3, floor=0.0, least_quality=0.6),
    "dpo-offline": Gate(hits=100, quality=8, pull=1, floor=0.25, least_quality=0.6),
}

# Where responses are text these stand in. Fitted on the first four of the eight teachers of benchmarks/audit_grammar.py
# after the mixtures' constants had called grpo hopeless too often; the other four had no say. They are reported there.
TEXT_GATES: dict[str, Gate] = {"grpo": Gate(hits=60, quality=2, pull=1, floor=0.0, least_quality=0.6)}

# No numeric prediction, and why. Their own optimum is not the tilt that is computed here.
REFUSED: dict[str, str] = {
    "ipo": "IPO's optimum is not the reward's tilt: it bounds the margin, whatever the reward says",
    "best-of-n": "best-of-n has no reference to be held to, so there is no optimum to predict",
    "sft-preferred": "imitating winners has no reference to be held to, so there is no optimum to predict",
}
UNPREDICTED = "no experiment says how this algorithm ends, so nothing is predicted for it"
HARD_LABELS = "hard labels give DPO no finite optimum, so the tilt does not apply to it"

ODDS = 2.0  # the model's own error: predicted odds of the target are times and over this
MASS_SLACK = 0.05  # ... and this much mass more or less: a student of few components cannot hold the optimum exactly
REWARD_SLACK = 0.1  # the same for reward, in units of the reward gap
SUCCESS = 0.5  # target mass that counts as having reached the target
LEVEL = 0.95  # of every interval
MIN_PROMPTS = 5  # an interval over fewer prompts would claim a certainty that nothing earned
MIN_HITS = 10  # fewer hits without a pooled proposal: the effective sample size looks healthy and the tilt is wrong
MIN_EXPECTED_HITS = 10  # fewer expected in the planned rollouts: the optimiser hardly ever sees the target
MIN_POOLED_HITS = 5.0  # fewer effective hits behind a pooled mass: its variance is unknown
MIN_ESS = 10.0  # fewer effective draws behind a tilt: its numbers are those of a handful of draws
DENSE = 1.0  # sd(R | not T) / beta above which a sequence climbs a ladder, so that hits are not what it waits for
SEEN = 0.99  # "seen at least once" means with this probability
HARDLY_EVER = 0.9  # a gate below this share of open: "hardly ever draws the target" is what breaks
OFF_BALANCE, OFF_BALANCE_WIDTHS = 0.1, 2.5  # weights this far from 1, and by so many widths of their interval, are off
TARGET_SHARE = 0.1  # of target examples that may fall short of a threshold that was read off them
MOST_DRAWS_ADVISED = 1 << 14  # more draws than this many times what there is are no advice
ENDLESS = 1e12  # draws; more is no number that anybody could act on
WINDOW_POINTS, WINDOW_ENDS = 49, (0.01, 3.0)  # betas of a window; its ends in units of the reward gap
ORDER_MIN_HITS = 10  # fewer hits among the teacher's own draws: no call of the order
ORDER_LEVEL = 0.1  # rewards closer than this share of the reward gap are level
ORDER_MASS = 5.0  # target examples in the distillation set at which a student has learnt 63 % of what they teach
ON_POLICY = ("reinforce", "rloo", "ppo", "grpo", "dpo-online")
COVERAGE_N = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
