"""The verdict card of an audit in words: every number with its interval, or with the reason why it has none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from alignfirst.auditing.constants import LEVEL, SEEN
from alignfirst.auditing.verdict import percent
from alignfirst.report.sentences.words import beta_text, count, decimal, grouped, listed, number, tight
from alignfirst.stats.intervals import level_words

Plain = Mapping[str, Any]
CALLS = ("go", "insufficient data", "no-go")
NO_REWARD = "This audit has no reward, and without one there is nothing to tilt: no prediction is made."


def class_of(call: str) -> str:
    """The style of a verdict; no name of one is a word that is shown."""
    return {"go": "go", "no-go": "nogo"}.get(call, "insufficient")


def value(n: Plain | None, share: bool = False) -> str:
    x = (n or {}).get("value")
    return "unknown" if x is None else _text(x, share)


def _text(x: float, share: bool) -> str:
    if share:
        return percent(x)
    return grouped(round(x)) if abs(x) >= 1_000 or float(x).is_integer() else number(float(f"{x:.3g}"))


def span(n: Plain | None, share: bool = False) -> str:
    """The interval, or the reason why there is none."""
    n = n or {}
    low, high, why = n.get("low"), n.get("high"), n.get("why") or "no reason was given"
    if n.get("value") is None:
        return why if low is None else f"at least {_text(low, share)}; {why}"
    if low is not None and high is not None:
        return f"{level_words(LEVEL)} interval {_text(low, share)} to {_text(high, share)}"
    if low is not None:
        return f"at least {_text(low, share)}; {why}"
    if high is not None:
        return f"at most {_text(high, share)}; {why}"
    return f"no interval: {why}"


def both(n: Plain | None, share: bool = False) -> str:
    """A number and its interval in one line."""
    known = (n or {}).get("value") is not None
    return f"{value(n, share)}{', ' if known else ': '}{span(n, share)}"


def plan_name(plan: Plain) -> str:
    return f"{plan['algorithm']} at beta {beta_text(plan['beta'])}"


def focus(plans: Sequence[Plain]) -> int | None:
    """The plan that the card quotes: the best that is go, else the first with a prediction, else the first."""
    if not plans:
        return None
    going = [i for i, p in enumerate(plans) if p["verdict"] == "go"]
    if going:
        return max(going, key=lambda i: plans[i]["reward"]["value"] or 0.0)
    return next((i for i, p in enumerate(plans) if not p.get("refused")), 0)


def card(plain: Plain) -> dict[str, Any]:
    """Everything that the card shows."""
    plans = list(plain.get("plans") or [])
    calls = Counter(p["verdict"] for p in plans)
    at = focus(plans)
    call = plans[0]["verdict"] if len(calls) == 1 else "go" if calls["go"] else "insufficient data"
    headline = str(plain.get("headline") or "")
    found = {
        "call": call if len(calls) < 2 else f"{calls['go'] or 'none'} of {len(plans)} go",
        "tone": class_of(call),
        "headline": _headline(headline, call, plans),
        "counts": [(c, class_of(c), calls[c]) for c in CALLS if calls[c]] if len(plans) > 1 else [],
        "tiles": _tiles(plain, plans[at] if at is not None else None),
        "plans": [_plan(p) for p in plans],
        "todo": _todo(plans, plain),
        "reference": _reference(plain),
        "needs": [] if at is None else _needs(plans[at]),
        "needs_of": None if at is None else plan_name(plans[at]),
        "orders": _orders(plain, plans),
        "pairs": _pairs(plain.get("pairs")),
    }
    result: dict[str, Any] = tight(found)
    return result


def _headline(text: str, call: str, plans: Sequence[Plain]) -> str:
    """The audit's sentence without what the chip and the bar beside it say."""
    _, _, best = text.partition("; best: ")
    if best:
        return f"Best: {best.removeprefix('GO: ')}"
    text = text.removeprefix(f"{call.upper()}: ")
    return text if plans else text[:1].upper() + text[1:]  # a plan's sentence begins with its name


def _tiles(plain: Plain, plan: Plain | None) -> list[dict[str, str]]:
    reference = plain.get("reference")
    if plan is None or reference is None:
        pairs = plain.get("pairs") or {}
        shown = [
            ("discrimination", "of rows have the chosen answer likelier than the rejected one", True, ""),
            (
                "cost_per_token_chosen",
                "nats a token: what distilling cost on chosen answers (log q − log p)",
                False,
                "second",
            ),
            ("rarest_step_chosen", "mean log-probability of the least likely token of a chosen answer", False, ""),
        ]
        return [
            {"value": value(pairs[key], share), "caption": f"{words}; {span(pairs[key], share)}", "kind": kind}
            for key, words, share, kind in shown
            if key in pairs and pairs[key]["value"] is not None
        ]
    name = plan_name(plan)
    predicted = [
        ("target", plan["target_mass"], f"of outputs predicted in the target after {name}", True),
        ("first", plan["reward"], f"reward predicted after {name}", False),
    ]
    seen = [
        ("second", reference["target_mass"], "of the reference's own outputs in the target", True),
        ("", reference["hit_quality"], "of what preferred examples earn is what the reference's hits earn", True),
    ]
    return [
        {"value": value(n, share), "caption": f"{words}; {span(n, share)}", "kind": kind}
        for kind, n, words, share in (seen if plan.get("refused") else predicted + seen)
    ]


def _plan(p: Plain) -> dict[str, Any]:
    ess = p.get("effective_sample_size")
    refused = bool(p.get("refused"))
    return {
        "algorithm": p["algorithm"],
        "beta": beta_text(p["beta"]),
        "rollouts": "not given" if p.get("rollouts") is None else grouped(p["rollouts"]),
        "call": p["verdict"],
        "class": class_of(p["verdict"]),
        "because": p["because"],
        "mass": "–" if refused else value(p["target_mass"], True),
        "mass_span": "" if refused else _short(p["target_mass"], True),
        "reward": "–" if refused else value(p["reward"]),
        "reward_span": "" if refused else _short(p["reward"], False),
        "ess": "–" if ess is None else _text(ess, False),
    }


def _short(n: Plain, share: bool) -> str:
    """An interval as a column of a table wants it."""
    if n["value"] is None or n["low"] is None or n["high"] is None:
        return span(n, share)
    if share:
        return f"{percent(n['low'])} to {percent(n['high'])}"
    return f"{decimal(n['low'])} to {decimal(n['high'])}"


def _todo(plans: Sequence[Plain], plain: Plain) -> list[dict[str, str]]:
    """Every piece of advice once, with the plans that it is meant for."""
    advice: dict[str, list[str]] = {}
    for p in plans:
        for text in p.get("todo") or ():
            advice.setdefault(text, []).append(plan_name(p))
    if not plans:
        cure = "Give a reward for sampled responses (--reward module:function, or reward in the rows)."
        return [{"text": cure, "whom": ""}]
    return [
        {"text": text, "whom": "" if len(names) == len(plans) else f"for {_some(names)}"}
        for text, names in advice.items()
    ]


def _some(names: Sequence[str], most: int = 4) -> str:
    rest = [count(len(names) - most, "other plan")] if len(names) > most else []
    return listed([*names[:most], *rest])


def _reference(plain: Plain) -> list[tuple[str, str]]:
    e = plain.get("reference")
    if e is None:
        return []
    prompts = f" for {count(e['prompts'], 'prompt')}" if (e.get("prompts") or 1) > 1 else ""
    drawn = f"{count(e['draws'], 'draw')} of the reference{prompts}"
    hits = "" if e.get("hits") is None else f", {grouped(e['hits'])} in the target"
    pooled = f"; pooled with {grouped(e['teacher_draws'])} of the teacher" if e.get("teacher_draws") else ""
    facts = [
        ("Target", str(plain.get("target") or "none was named")),
        ("Seen", drawn + hits + pooled),
        ("Target mass of the reference", both(e["target_mass"], True)),
        ("Reward of the reference", both(e["reward"])),
        ("Reward outside the target", both(e["reward_outside_target"])),
        ("Reward of preferred examples", both(e["preferred_reward"])),
        ("Quality of hits", both(e["hit_quality"], True)),
    ]
    if e.get("teacher_draws"):
        words = "1 where draws and log-probabilities agree"
        facts.append(("Weights sum to", f"{both(e['weights_total'])} ({words})"))
    return facts


def _needs(plan: Plain) -> list[tuple[str, str]]:
    if plan.get("refused"):
        return []
    return [
        ("Hits expected in the rollouts", both(plan["expected_hits"])),
        ("Rollouts that find enough hits", both(plan["rollouts_needed"])),
        (f"Draws that show the target once, with {percent(SEEN)}", both(plan["draws_to_see_target"])),
    ]


def _orders(plain: Plain, plans: Sequence[Plain]) -> list[dict[str, str]]:
    predicted = [p for p in plans if not p.get("refused")]
    return [
        {
            "plan": plan_name(p),
            "call": o["call"],
            "because": o["because"],
            "first": both(o["align_distil"]) if o["align_distil"]["value"] is not None else "–",
            "second": both(o["distil_align"]) if o["distil_align"]["value"] is not None else "–",
        }
        for p, o in zip(predicted, plain.get("orders") or (), strict=False)
    ]


PAIR_WORDS = (
    ("discrimination", "Chosen likelier than rejected", True),
    ("discrimination_per_token", "The same per token", True),
    ("discrimination_teacher", "The same under the teacher", True),
    ("margin", "log q(chosen) − log q(rejected), nats", False),
    ("cost_chosen", "Chosen, log q − log p, nats an answer", False),
    ("cost_rejected", "Rejected, log q − log p, nats an answer", False),
    ("cost_per_token_chosen", "Chosen, log q − log p, nats a token", False),
    ("cost_per_token_rejected", "Rejected, log q − log p, nats a token", False),
    ("typicality", "Surprisal of chosen above the reference's own, nats a token", False),
    ("rarest_step_chosen", "Least likely token of chosen, log-probability", False),
)


def _pairs(pairs: Plain | None) -> list[tuple[str, str]]:
    if not pairs:
        return []
    return [(words, both(pairs[key], share)) for key, words, share in PAIR_WORDS if key in pairs]
