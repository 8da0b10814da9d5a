"""The mixture kernel against PyTorch and scikit-learn, on the trainings of preset `mog`, two cores each.

    python benchmarks/mog_vs_eager.py [--quick]

Ours is measured whole: every SFT, alignment and distillation of the default grid in two worker processes, process
start, imports and (cold) compilation included. The peers would take hours, so their cost an update is measured for
every algorithm and both model sizes, in turn with ours, and multiplied by the number of updates: an extrapolation, and
said to be one. Needs `torch` and `scikit-learn` (extra `bench`). Takes about six minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

BARS = {"loop warm": 150, "loop cold": 40, "batched": 8, "em": 20, "peak RSS MB": 600}
CORES = 2
MODES = [(x, y) for x in (-1.0, 0.0, 1.0) for y in (-1.0, 0.0, 1.0) if (x, y) != (0, 0)]
WEIGHTS = [0.20, 0.06, 0.20, 0.06, 0.20, 0.20, 0.06, 0.02]
N, GROUP, LR, WIDTH, STORED = 256, 8, 0.02, 0.25, 4096


# -- ours -----------------------------------------------------------------------------------------------------------


def train_whole_grid(out: str) -> None:
    """Run in a child process: all trainings of preset `mog`, no measurement."""
    from alignfirst.store import Store
    from alignfirst.study.config.preset_files import load
    from alignfirst.study.execution.engine import execute
    from alignfirst.study.execution.estimates import NodeSeconds
    from alignfirst.study.execution.options import ExecutionOptions
    from alignfirst.study.execution.schedule import Schedule
    from alignfirst.study.execution.worker import load_world
    from alignfirst.study.plan.planner import plan_study

    config = load("mog")
    world = load_world(config.world)
    plan = plan_study(config, world)
    train = {k: n for k, n in plan.nodes.items() if n.kind in ("sft", "distil", "align")}
    schedule = Schedule(train, train, world, NodeSeconds(world, plan.nodes))
    execute(schedule, world, config.world, Store(Path(out)), ExecutionOptions(CORES), lambda *_: None)
    assert not schedule.failures, schedule.failures
    kinds = [n.kind for n in train.values()]
    print(json.dumps({kind: kinds.count(kind) for kind in sorted(set(kinds))}))


def measure_ours(cache: str, watched: bool) -> tuple[float, float, dict[str, int]]:
    """(wall seconds, peak MB of the process tree, nodes by kind) of one run in a fresh directory.

    Watching memory takes time from the run, so a run is either watched or timed; the cold one, of which there is one,
    is both.
    """
    with tempfile.TemporaryDirectory() as out:
        begin = time.perf_counter()
        environment = os.environ | {"NUMBA_CACHE_DIR": cache}
        child = subprocess.Popen([sys.executable, __file__, "--ours", out], stdout=subprocess.PIPE, env=environment)
        peak = [0.0]
        watch = threading.Thread(target=watch_memory, args=(child, peak))
        if watched:
            watch.start()
        printed, _ = child.communicate()
        seconds = time.perf_counter() - begin
        if watched:
            watch.join()
        assert child.returncode == 0
        return seconds, peak[0], json.loads(printed)


def watch_memory(child: subprocess.Popen[bytes], peak: list[float]) -> None:
    while child.poll() is None:
        peak[0] = max(peak[0], tree_rss(child.pid))
        time.sleep(0.05)


def tree_rss(pid: int) -> float:
    """Resident MB of a process and its descendants, pages that several share counted once (Linux)."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        tasks = Path(f"/proc/{pid}/task").iterdir()
        children = [int(c) for t in tasks for c in (t / "children").read_text().split()]
    except (OSError, IndexError):  # it just ended
        return 0.0
    return int(rollup.split("Pss:")[1].split()[0]) / 1024 + sum(tree_rss(c) for c in children)


# -- the eager loop: torch.distributions, one run at a time ----------------------------------------------------------


def mixture(torch, logits, mean, log_sd):
    d = torch.distributions
    return d.MixtureSameFamily(d.Categorical(logits=logits), d.Independent(d.Normal(mean, log_sd.exp()), 1))


def eager_loop(torch, algorithm: str, components: int, updates: int, seed: int) -> float:
    """Seconds an update of one run, as a researcher would write it."""
    torch.manual_seed(seed)
    params = [torch.zeros(components), torch.rand(components, 2) * 2 - 1, torch.full((components, 2), -1.8)]
    params = [p.requires_grad_() for p in params]
    ref = mixture(torch, *[p.detach().clone() for p in params])
    optimiser = torch.optim.Adam(params, lr=LR)
    target = torch.ones(2)
    state = {}

    def reward(x):
        return torch.exp(-((x - target) ** 2).sum(-1) / (2 * WIDTH**2))

    if algorithm in ("dpo-offline", "ipo", "sft-preferred"):
        pairs = ref.sample((2, STORED))
        win = torch.rand(STORED) < torch.sigmoid(reward(pairs[0]) - reward(pairs[1]))
        stored = torch.where(win[:, None], pairs[0], pairs[1]), torch.where(win[:, None], pairs[1], pairs[0])
        stored_ref = ref.log_prob(stored[0]) - ref.log_prob(stored[1])

    def loss(step):
        pi = mixture(torch, *params)
        if algorithm in ("dpo-offline", "ipo", "sft-preferred"):
            i = torch.randint(STORED, (N // 2,))
            logp_w = pi.log_prob(stored[0][i])
            if algorithm == "sft-preferred":
                return -logp_w.mean()
            return pair_loss(logp_w - pi.log_prob(stored[1][i]) - stored_ref[i])
        if algorithm == "ppo" and step % 4:
            x, advantage, old = state["batch"]
            ratio = (pi.log_prob(x) - old).exp()
            return -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
        x = pi.sample((N,))
        logp, r = pi.log_prob(x), reward(x)
        if algorithm == "best-of-n":
            best = r.view(-1, GROUP).argmax(1) + torch.arange(0, N, GROUP)
            return -logp[best].mean()
        with torch.no_grad():
            ref_logp = ref.log_prob(x)
        if algorithm == "dpo-online":
            first = torch.rand(N // 2) < torch.sigmoid(r[: N // 2] - r[N // 2 :])
            margin = (logp - ref_logp)[: N // 2] - (logp - ref_logp)[N // 2 :]
            return pair_loss(torch.where(first, margin, -margin))
        with torch.no_grad():
            shaped = r - 0.1 * (logp - ref_logp)
            advantage = shaped - shaped.mean()
            if algorithm in ("rloo", "grpo"):
                g = shaped.view(-1, GROUP)
                advantage = g - (g.sum(1, keepdim=True) - g) / (GROUP - 1)
                if algorithm == "grpo":
                    advantage = (g - g.mean(1, keepdim=True)) / (g.std(1, keepdim=True) + 1e-4)
                advantage = advantage.view(-1)
            if algorithm == "ppo":
                advantage = advantage / (shaped.std() + 1e-8)
                state["batch"] = x, advantage, logp.detach()
        return -(advantage * logp).mean()

    def pair_loss(margin):
        if algorithm == "ipo":
            return ((margin - 5) ** 2).mean()
        return -torch.nn.functional.logsigmoid(0.1 * margin).mean()

    def update(step):
        optimiser.zero_grad()
        loss(step).backward()
        optimiser.step()
        with torch.no_grad():
            params[2].clamp_(min=-3.912)

    for step in range(8):
        update(step)
    begin = time.perf_counter()
    for step in range(updates):
        update(step)
    return (time.perf_counter() - begin) / updates


# -- the batched eager version: all runs of one algorithm as one tensor, two threads ---------------------------------


def eager_batched(torch, algorithm: str, components: int, updates: int, runs: int) -> float:
    """Seconds an update of one run, when `runs` of them are one tensor; tensor code by hand, autograd, fused Adam."""
    torch.manual_seed(0)
    logits = torch.zeros(runs, components, requires_grad=True)
    mean = (torch.rand(runs, components, 2) * 2 - 1).requires_grad_()
    log_sd = torch.full((runs, components, 2), -1.8, requires_grad=True)
    params = [logits, mean, log_sd]
    frozen = [p.detach().clone() for p in params]
    optimiser = torch.optim.Adam(params, lr=LR, fused=True)
    row = torch.arange(runs)[:, None]
    state = {}

    def log_density(p, x):  # [R, N]
        d = (x[:, :, None] - p[1][:, None]) * (-p[2]).exp()[:, None]
        q = torch.log_softmax(p[0], -1)[:, None] - 0.5 * (d * d).sum(-1) - p[2].sum(-1)[:, None] - 1.8378770664093453
        return torch.logsumexp(q, -1)

    def draw(p, n):
        k = torch.multinomial(torch.softmax(p[0], -1), n, replacement=True)
        return p[1][row, k] + p[2][row, k].exp() * torch.randn(runs, n, 2)

    def reward(x):
        return torch.exp(-((x - 1) ** 2).sum(-1) / (2 * WIDTH**2))

    offline = algorithm in ("dpo-offline", "ipo", "sft-preferred")
    if offline:
        stored = draw(frozen, 2 * STORED)
        stored_ref = log_density(frozen, stored)
        r = reward(stored)
        stored_first = torch.rand(runs, STORED) < torch.sigmoid(r[:, :STORED] - r[:, STORED:])

    def loss(step):
        half = N // 2
        if offline:
            i = torch.randint(STORED, (runs, half))
            both = torch.cat([i, i + STORED], 1)
            logp, logp_ref = log_density(params, stored[row, both]), stored_ref.gather(1, both)
            first = stored_first.gather(1, i)
        elif algorithm == "ppo" and step % 4:
            x, advantage, old = state["batch"]
            ratio = (log_density(params, x) - old).exp()
            return -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean(1).sum()
        else:
            with torch.no_grad():
                x = draw(params, N)
                logp_ref, r = log_density(frozen, x), reward(x)
            logp = log_density(params, x)
            first = torch.rand(runs, half) < torch.sigmoid(r[:, :half] - r[:, half:])
        if offline or algorithm == "dpo-online":
            if algorithm == "sft-preferred":
                return -torch.where(first, logp[:, :half], logp[:, half:]).mean(1).sum()
            ratio = logp - logp_ref
            margin = torch.where(first, 1, -1) * (ratio[:, :half] - ratio[:, half:])
            if algorithm == "ipo":
                return ((margin - 5) ** 2).mean(1).sum()
            return -torch.nn.functional.logsigmoid(0.1 * margin).mean(1).sum()
        with torch.no_grad():
            g = r.view(runs, -1, GROUP)
            if algorithm == "best-of-n":
                advantage = torch.nn.functional.one_hot(g.argmax(-1), GROUP).view(runs, N)
            else:
                shaped = r - 0.1 * (logp - logp_ref)
                g = shaped.view(runs, -1, GROUP)
                advantage = shaped - shaped.mean(1, keepdim=True)
                if algorithm == "rloo":
                    advantage = ((g * GROUP - g.sum(-1, keepdim=True)) / (GROUP - 1)).view(runs, N)
                if algorithm == "grpo":
                    advantage = ((g - g.mean(-1, keepdim=True)) / (g.std(-1, keepdim=True) + 1e-4)).view(runs, N)
                if algorithm == "ppo":
                    advantage = advantage / (shaped.std(1, keepdim=True) + 1e-8)
                    state["batch"] = x, advantage, logp.detach()
        return -(advantage * logp).mean(1).sum()

    def update(step):
        optimiser.zero_grad()
        loss(step).backward()
        optimiser.step()
        with torch.no_grad():
            log_sd.clamp_(min=-3.912)

    for step in range(4):
        update(step)
    begin = time.perf_counter()
    for step in range(updates):
        update(step)
    return (time.perf_counter() - begin) / updates / runs


# -- EM --------------------------------------------------------------------------------------------------------------


def em_seconds(fits: int, seed: int) -> tuple[float, float, float, float]:
    """Seconds of the study's 1,060 fits, ours and scikit-learn's, and mean log-likelihoods: same data, k-means++,
    restarts, tolerance, floor and one thread each. scikit-learn works in the precision of its data: float32 too."""
    import numpy as np
    from sklearn.mixture import GaussianMixture

    from alignfirst.worlds.mog import em

    rng = np.random.default_rng(seed)
    ours, theirs, likelihood = 0.0, 0.0, [0.0, 0.0]
    for components, n, count in ((16, 10_000, 20), (4, 4_000, 1_040)):
        truth = np.array(MODES)[rng.choice(8, (fits, n), p=WEIGHTS)]
        x = (truth + rng.normal(size=truth.shape) * 0.025**0.5).astype(np.float32)  # [fits, n, 2]
        u = rng.random((fits, 4, components), dtype=np.float32)
        flat, row = np.ascontiguousarray(x.transpose(0, 2, 1)), np.arange(fits)
        em.fit(flat[:1], u, row[:1], 2, 1e-4, 1e-3)  # compile
        begin = time.perf_counter()
        found = em.fit(flat, u, row, 100, 1e-4, 1e-3)
        ours += (time.perf_counter() - begin) / fits * count
        likelihood[0] += float(found.log_likelihood.mean()) * count / 1060
        begin = time.perf_counter()
        for i in range(fits):
            settings = {"covariance_type": "diag", "tol": 1e-4, "reg_covar": 1e-3, "n_init": 4, "max_iter": 100}
            model = GaussianMixture(components, init_params="k-means++", random_state=i, **settings).fit(x[i])
            likelihood[1] += float(model.lower_bound_) * count / 1060 / fits
        theirs += (time.perf_counter() - begin) / fits * count
    return ours, theirs, *likelihood


# -- the whole -------------------------------------------------------------------------------------------------------


def trainings() -> dict[tuple[str, int], int]:
    """How many runs of the default grid each algorithm has on models of each size."""
    from alignfirst.theory.objectives import ALGORITHMS

    return {(a.name, k): 140 if a.uses_beta else 20 for a in ALGORITHMS.values() for k in (16, 4)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer updates of the peers: a look, not a measurement")
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ours:
        train_whole_grid(args.ours)
        return 0
    warnings.simplefilter("ignore")
    import sklearn
    import torch

    cache = tempfile.mkdtemp()
    loop_updates, batched_updates, rounds = (40, 4, 1) if args.quick else (160, 12, 3)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ")
    print(f"torch {torch.__version__}, scikit-learn {sklearn.__version__}; load {os.getloadavg()[0]:.1f} at the start")
    cold, cold_peak, kinds = measure_ours(cache, watched=True)
    _, warm_peak, _ = measure_ours(cache, watched=True)
    print(f"ours: {kinds}, all measured, {CORES} worker processes")
    warm, loop, batched, em_ours, em_theirs = [], [], [], [], []
    grid = trainings()
    for r in range(rounds):
        torch.set_num_threads(1)  # more threads make so small a problem slower
        loop.append(sum(n * 600 * eager_loop(torch, a, k, loop_updates, r) for (a, k), n in grid.items()))
        warm.append(measure_ours(cache, watched=False)[0])
        torch.set_num_threads(CORES)
        batched.append(sum(n * 600 * eager_batched(torch, a, k, batched_updates, n) for (a, k), n in grid.items()))
        torch.set_num_threads(1)
        ours, theirs, *likelihood = em_seconds(2 if args.quick else 8, r)
        em_ours.append(ours)
        em_theirs.append(theirs)
    shutil.rmtree(cache)
    sk = statistics.median(em_theirs)
    best = statistics.median(warm)
    loop_total, batched_total = statistics.median(loop) + sk, statistics.median(batched) + sk / CORES
    print(f"ours, whole grid: cold {cold:.1f} s, warm {best:.1f} s (of {[round(w, 1) for w in warm]}); ")
    print(f"   peak memory of the process tree: cold {cold_peak:.0f} MB, warm {warm_peak:.0f} MB")
    print(f"eager loop, extrapolated: {loop_total:.0f} s (updates {statistics.median(loop):.0f} s, EM {sk:.0f} s)")
    print(f"batched eager, extrapolated: {batched_total:.0f} s (EM by scikit-learn on two cores)")
    print(f"EM fits, one thread, extrapolated: ours {statistics.median(em_ours):.2f} s, scikit-learn {sk:.1f} s; ")
    print(f"   mean log-likelihood ours {likelihood[0]:.4f}, scikit-learn {likelihood[1]:.4f}")
    figures = {
        "loop warm": loop_total / best,
        "loop cold": loop_total / cold,
        "batched": batched_total / best,
        "em": sk / statistics.median(em_ours),
        "peak RSS MB": max(cold_peak, warm_peak),
    }
    return verdict(figures)


def verdict(figures: dict[str, float]) -> int:
    """Print every figure beside its bar; 0 where all are met."""
    missed = 0
    for name, bar in BARS.items():
        memory = name == "peak RSS MB"
        met = figures[name] <= bar if memory else figures[name] >= bar
        missed += not met
        print(
            f"{name:12s} {figures[name]:8.1f}   bar {'<=' if memory else '>='} {bar:4d}   {'met' if met else 'MISSED'}"
        )
    return min(missed, 1)


if __name__ == "__main__":
    raise SystemExit(main())
