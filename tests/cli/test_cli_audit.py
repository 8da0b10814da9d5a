"""`alignfirst audit` as a job would call it: verdict first, gates, bad input, mixtures of a study, a big file."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alignfirst.api import Run
from alignfirst.errors import ExitCode
from alignfirst.study.audit.study_models import Address


def scores(path: Path, mass: float, n: int = 1_000, **more: Any) -> Path:
    """A reference that hits with probability `mass`, pooled with a teacher that hits half the time."""
    random = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for source, share in (("reference", mass), ("teacher", 0.5)):
        for hit in random.random(n) < share:
            q, p = (x if hit else 1 - x for x in (mass, 0.5))
            row = {"kind": "sample", "source": source, "reward": float(hit), "in_target": bool(hit)}
            rows.append(row | {"logp_reference": float(np.log(q)), "logp_teacher": float(np.log(p))} | more)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


PLAN = ("--algorithm", "reinforce", "--rollouts", 100_000)


def test_the_first_line_is_a_verdict_that_a_manager_can_read(invoke: Any, tmp_path: Path) -> None:
    good, bad = scores(tmp_path / "good.jsonl", 0.05), scores(tmp_path / "bad.jsonl", 0.001)
    go = invoke("audit", "--log-probs", good, "--beta", 0.1, *PLAN).output.splitlines()[0]
    assert go.startswith("GO: reinforce at beta 0.1 within 100,000 rollouts: the target is predicted to reach")
    no = invoke("audit", "--log-probs", bad, "--beta", 0.5, *PLAN).output.splitlines()[0]
    assert no.startswith("NO-GO: reinforce at beta 0.5 within 100,000 rollouts: the target is predicted to stay at")


@pytest.mark.parametrize(
    ("mass", "beta", "gate", "require"), [(0.05, 0.1, 0, 0), (0.001, 0.5, 4, 4), (0.05, 0.34, 0, 4)]
)
def test_gates_open_and_close(mass: float, beta: float, gate: int, require: int, invoke: Any, tmp_path: Path) -> None:
    file = scores(tmp_path / "rows.jsonl", mass)
    assert invoke("audit", "--log-probs", file, "--beta", beta, *PLAN).exit_code == 0
    assert invoke("audit", "--log-probs", file, "--beta", beta, *PLAN, "--gate").exit_code == gate
    assert invoke("audit", "--log-probs", file, "--beta", beta, *PLAN, "--require-go").exit_code == require
    assert ExitCode.GATE == 4


def test_one_plan_that_must_not_be_launched_closes_the_gate_of_all(invoke: Any, tmp_path: Path) -> None:
    file = scores(tmp_path / "rows.jsonl", 0.02)
    result = invoke("audit", "--log-probs", file, "--beta", 0.1, "--beta", 2, *PLAN, "--gate")
    assert result.exit_code == 4 and "GO for 1 of 2 plans (1 no-go); best: GO: reinforce at beta 0.1" in result.output


def test_preferences_alone_pass_the_gate_but_not_a_required_go(invoke: Any, tmp_path: Path) -> None:
    rows = [
        {"kind": k, "prompt_id": n, "logp_reference": -x} for n in range(9) for k, x in (("chosen", 5), ("rejected", 6))
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = invoke("audit", "--log-probs", file, "--gate")
    assert result.exit_code == 0 and result.output.startswith("INSUFFICIENT DATA: a verdict needs a reward")
    assert "chosen likelier than rejected: 100 %" in result.output
    assert invoke("audit", "--log-probs", file, "--require-go").exit_code == 4


def test_json_has_everything_and_out_keeps_it(invoke: Any, tmp_path: Path) -> None:
    file = scores(tmp_path / "rows.jsonl", 0.05)
    told = json.loads(
        invoke("audit", "--log-probs", file, "--beta", 0.1, *PLAN, "--json", "--out", tmp_path / "o").stdout
    )
    assert told == json.loads((tmp_path / "o" / "audit.json").read_text())
    assert told["headline"].partition(": ")[2].split(":")[0] in (tmp_path / "o" / "audit.html").read_text()
    assert (tmp_path / "o" / "audit.txt").read_text().startswith(told["headline"])
    [plan] = told["plans"]
    assert plan["verdict"] == "go" and plan["target_mass"]["low"] > 0.5
    assert told["reference"]["target_mass"]["value"] == pytest.approx(0.05, abs=0.02)
    assert 0 < told["windows"]["reinforce"]["upper_beta"]["value"] < 1


def test_the_page_is_built_beside_the_findings_and_again_from_them(invoke: Any, tmp_path: Path) -> None:
    file, folder = scores(tmp_path / "rows.jsonl", 0.05), tmp_path / "o"
    told = invoke("audit", "--log-probs", file, "--beta", 0.1, *PLAN, "--out", folder).output.splitlines()
    assert told[-2:] == [f"written: {folder / 'audit.json'}", f"page: {folder / 'audit.html'}"]
    page = (folder / "audit.html").read_bytes()
    (folder / "audit.html").unlink()
    again = invoke("report", folder)
    assert again.exit_code == 0 and again.output == f"{folder / 'audit.html'}\n"
    assert (folder / "audit.html").read_bytes() == page
    assert json.loads(invoke("report", folder, "--json").stdout) == {"report": str(folder / "audit.html")}
    (folder / "audit.json").write_text('{"audit_version": 0}')
    damaged = invoke("report", folder)
    assert damaged.exit_code == ExitCode.FAILED and "Run the same audit again" in damaged.stderr
    assert (folder / "audit.html").read_bytes() == page


def test_the_page_shows_the_answers_of_the_file_that_was_audited(invoke: Any, tmp_path: Path) -> None:
    rows = [
        {"kind": kind, "pair_id": 1, "logp_reference": -2, "text": f"{kind} words"} for kind in ("chosen", "rejected")
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    invoke("audit", "--log-probs", tmp_path / "rows.jsonl", "--out", tmp_path / "o")
    assert '"text":"chosen words"' in (tmp_path / "o" / "audit.html").read_text()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("", "at least one row"),
        ('{"kind": "sample", "source": "reference", "logp_reference": 0.5}', "must be <= 0"),
        ('{"kind": "sample", "source": "reference", "logp_reference": NaN}', "must be a finite number"),
        ('{"kind": "chosen", "logp_reference": -1}', "come in pairs"),
        ("not json", "JSON object"),
    ],
)
def test_bad_files_are_refused_in_words(rows: str, words: str, invoke: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(rows)
    result = invoke("audit", "--log-probs", tmp_path / "rows.jsonl")
    assert result.exit_code == ExitCode.USAGE and words in result.stderr and "Traceback" not in result.output


@pytest.mark.parametrize("rows", [1, 50])
@pytest.mark.parametrize("reward", ["constant", "no hit"])
def test_thin_data_is_insufficient_and_never_a_number_out_of_thin_air(
    rows: int, reward: str, invoke: Any, tmp_path: Path
) -> None:
    values = [1.0] * rows if reward == "constant" else list(np.linspace(0, 0.4, rows))
    lines = [{"kind": "sample", "source": "reference", "logp_reference": -2.0, "reward": v} for v in values]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ("--log-probs", tmp_path / "rows.jsonl", "--target", "R >= 0.5", "--rollouts", 10_000, "--json")
    told = json.loads(invoke("audit", *arguments).stdout)
    assert {plan["verdict"] for plan in told["plans"]} == {"insufficient data"}
    assert invoke("audit", *arguments, "--require-go").exit_code == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "either --reference or --log-probs"),
        (("--reference", "x", "--log-probs", "y"), "either --reference or --log-probs"),
        (("--log-probs", "y", "--pairs", "z"), "--log-probs stands alone"),
        (("--log-probs", "y", "--teacher", "z"), "--log-probs stands alone, got --teacher"),
        (("--log-probs", "y", "--samples", "9"), "--log-probs stands alone, got --samples"),
        (("--log-probs", "y", "--rows", "5"), "--rows is for --pairs and --prompts, got --rows 5 with --log-probs"),
        (("--log-probs", "none.jsonl"), "must be in a file"),
        (("--log-probs", "y", "--beta", "0"), "the optimum ignores the reference"),
        (("--log-probs", "y", "--algorithm", "magic"), "algorithm must be a known one"),
        (("--log-probs", "y", "--target", "good"), "rule on the reward"),
        (("--reference", "mog:sft", "--pairs", "z"), "audited by its own study"),
        (("--reference", "mog:other/sft"), "recipe must be a known one"),
        (("--reference", "mog:distil-align/distil.2"), "must have that stage"),
        (("--reference", "mog:distil-align/align"), "told by algorithm and beta"),
        (("--reference", "mog:distil-align/align@algorithm=ppo,beta=0.1"), "must be in the run's store"),
        (("--reference", "nosuchstudy:sft"), "nosuchstudy"),
    ],
)
def test_bad_arguments_are_refused_in_words(
    arguments: tuple[str, ...], words: str, invoke: Any, tmp_path: Path
) -> None:
    (tmp_path / "y").touch()
    result = invoke("audit", *arguments)
    assert result.exit_code == ExitCode.USAGE and words in result.stderr


# -- models of a mixture study --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_the_default_study_s_student_is_stopped_and_its_sft_goes(seed: int, invoke: Any) -> None:
    """Before any alignment is trained; `acceptance` has what training then says. Other seeds keep more of it."""
    student = invoke("audit", "--reference", f"mog:distil-align/distil@seed={seed}", "--beta", 0.1, "--json")
    calls = {plan["algorithm"]: plan["verdict"] for plan in json.loads(student.stdout)["plans"]}
    assert "go" not in calls.values()
    sft = invoke(
        *("audit", "--reference", f"mog:sft@seed={seed}", "--beta", 0.1, "--algorithm", "reinforce", "--require-go")
    )
    assert sft.exit_code == 0 and sft.output.startswith("GO: reinforce at beta 0.1")


def test_the_order_is_called_for_a_student(invoke: Any) -> None:
    told = json.loads(invoke("audit", "--reference", "mog:distil-align/distil", "--beta", 0.1, "--json").stdout)
    calls = [order["call"] for order in told["orders"]]
    assert calls.count("align-distil") == 5 and calls.count("insufficient data") == 1  # offline pairs: refused


def test_models_of_a_run_come_from_its_store(finished: Run, invoke: Any) -> None:
    aligned = f"{finished.path}:align-distil/align@seed=1,algorithm=reinforce,beta=0.1"
    result = invoke("audit", "--reference", aligned, "--algorithm", "reinforce", "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    [measured] = [
        row
        for row in finished.records
        if (row["recipe"], row["stage"], row["seed"], row["algorithm"]) == ("align-distil", "align", 1, "reinforce")
    ]
    mass = told["reference"]["target_mass"]
    five_errors = (mass["high"] - mass["low"]) / 2 * 5 / 1.96
    assert measured["target_mass"] == pytest.approx(mass["value"], abs=five_errors)
    assert told["plans"][0]["rollouts"] == 20 * 256


@pytest.mark.parametrize("seed", [0, 3])
def test_a_study_says_what_the_audit_of_its_references_says(seed: int, finished: Run, invoke: Any) -> None:
    """The same numbers to the last bit: one drawing and one judge serve both."""
    for recipe, stage in (("align-distil", "sft"), ("distil-align", "distil")):
        reference = f"{finished.path}:{recipe}/{stage}@seed={seed}"
        told = {
            p["algorithm"]: p for p in json.loads(invoke("audit", "--reference", reference, "--json").stdout)["plans"]
        }
        rows = [
            row for row in finished.records if (row["recipe"], row["stage"], row["seed"]) == (recipe, "align", seed)
        ]
        assert {row["algorithm"] for row in rows} == told.keys() == {"reinforce", "dpo-offline"}
        for row in rows:
            plan = told[row["algorithm"]]
            assert (row["audit_verdict"], row["audit_reason"]) == (plan["verdict"], plan["because"])
            assert row["audit_reward"] == plan["reward"]["value"]
            assert row["audit_mass"] == plan["target_mass"]["value"]


def test_a_study_that_requires_a_go_stops_before_it_trains(
    finished: Run, tiny_sets: list[str], invoke: Any, tmp_path: Path
) -> None:
    """At a large beta nothing is a go; at a smaller one sft is for every seed, and training goes on."""
    out = tmp_path / "run"
    stopped = invoke("run", "mog-quick", *tiny_sets, "--set=beta=0.5", "--out", out, "--require-go", "--no-report")
    assert stopped.exit_code == ExitCode.GATE, stopped.output
    assert "alignments are not a go" in stopped.stderr and "Traceback" not in stopped.output
    assert not (out / "records.jsonl").exists()
    goes = (
        "--set=recipes=align-only",
        "--set=algorithms=reinforce",
        "--set=sft.samples=10000",
        "--set=sft.components=16",
        "--set=align.updates=200",
    )
    done = invoke("run", "mog-quick", *tiny_sets, *goes, "--out", tmp_path / "go", "--require-go", "--no-report")
    assert done.exit_code == 0, done.stderr
    assert "the audit says go for all 5 alignments that are trained now" in done.stderr


def test_the_same_audit_twice_says_the_same(invoke: Any) -> None:
    first, second = (invoke("audit", "--reference", "mog:sft", "--beta", 0.2, "--json").stdout for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("runs/mog:distil-align/distil", ("runs/mog", "distil-align", "distil", 1, {})),
        ("mog:sft@seed=3", ("mog", "distil-align", "sft", 1, {"seed": "3"})),
        ("a:b:align-distil-align/align.2@beta=0.1", ("a:b", "align-distil-align", "align", 2, {"beta": "0.1"})),
    ],
)
def test_addresses(text: str, expected: tuple[Any, ...]) -> None:
    found = Address.parse(text)
    assert found is not None and (found.run, found.recipe, found.stage, found.nth, found.at) == expected


@pytest.mark.parametrize("text", ["org/model", "./folder", "C:/models/x", "model.gguf", "org/model@main"])
def test_names_of_language_models_are_no_addresses(text: str) -> None:
    assert Address.parse(text) is None


# -- size -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_hundred_thousand_rows_take_seconds_and_no_torch(shell: Any, tmp_path: Path) -> None:
    """The bar is 5 s on an idle machine; twice that is allowed here, for others may be at work."""
    random, lines = np.random.default_rng(0), []
    for i in range(100_000):
        kind = {"kind": "sample", "source": "reference" if i % 2 else "teacher"} if i % 4 else {"kind": "target"}
        row = kind | {"reward": float(random.random()), "prompt_id": i % 500, "tokens": 20}
        lines.append(json.dumps(row | {"logp_reference": -float(random.random()), "logp_teacher": -1.0}))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    (tmp_path / "torch.py").write_text("raise ImportError('the audit must not need this')\n")
    begin = time.perf_counter()
    done = shell("audit", "--log-probs", tmp_path / "rows.jsonl", "--rollouts", 100_000)
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - begin < 10


@pytest.mark.slow
def test_fifty_thousand_pairs_take_seconds_with_their_page(shell: Any, tmp_path: Path) -> None:
    """Nothing is quadratic: 3 s of computing when this was written; the bar leaves room for others at work."""
    rows = (
        {
            "kind": kind,
            "pair_id": i,
            "prompt_id": i,
            "tokens": 20,
            "logp_reference": -20.0 - i % 7,
            "logp_teacher": -19.0,
        }
        for i in range(50_000)
        for kind in ("chosen", "rejected")
    )
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    begin = time.perf_counter()
    done = shell("audit", "--log-probs", tmp_path / "rows.jsonl", "--out", tmp_path / "o")
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - begin < 20
    assert (tmp_path / "o" / "audit.html").stat().st_size <= 8_000_000
