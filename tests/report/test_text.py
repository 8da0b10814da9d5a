"""Runs of text: sample texts and curves in the payload, measures that only text has, and the page made of them."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from alignfirst.report import build, exhibit_shapes
from alignfirst.report.html import page
from alignfirst.report.page_budget import STEPS, size, within_budget
from alignfirst.report.page_sections import sections_of
from alignfirst.report.payload import payload
from alignfirst.report.run_files import RunFiles, load
from alignfirst.report.sentences.order_verdict import verdict
from alignfirst.report.text_metrics import MOST_PROMPTS, Measure, measures, parts


def shaped(models: dict[str, Any], **more: Any) -> dict[str, Any]:
    return exhibit_shapes.text({"kind": "text", "models": models, **more}, list(models))


@pytest.fixture(scope="module")
def run(synthetic: ModuleType, of_text: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> RunFiles:
    spec = synthetic.Spec(seeds=6, algorithms=("grpo", "dpo-offline"), betas=(0.1, 0.3))
    return load(synthetic.write(tmp_path_factory.mktemp("text") / "run", spec, of_text.TextSpec()))


@pytest.fixture(scope="module")
def real(synthetic: ModuleType, of_text: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> RunFiles:
    """As of a real language model: one prompt, nothing exact."""
    spec = synthetic.Spec(seeds=5, algorithms=("grpo",), betas=(0.1,))
    texts = ["The end.\nOr not.", "", "word " * 700]
    edit = of_text.TextSpec(exact=False, prompts=["The"], texts=texts)
    return load(synthetic.write(tmp_path_factory.mktemp("real") / "run", spec, edit))


# --- exhibits


def test_a_model_of_text_needs_its_texts_and_nothing_else() -> None:
    found = shaped({"a": {"texts": [{"text": "one"}, {"text": "two"}]}})
    assert found["behaviours"] == found["prompts"] == found["target_words"] == []
    assert found["target"] is None and found["weights"] is None and found["truth"] is None
    (model,) = found["models"]
    assert model["text"] == ["one", "two"] and model["more"] == [0, 0] and model["left"] == 0
    assert {model[n] for n in ("prompt", "behaviour", "target", "reward", "curves")} == {None}


def test_what_is_known_of_a_text_stands_beside_it() -> None:
    samples = [
        {"text": "a", "prompt": 0, "behaviour": 1, "target": 0.123456, "reward": None},
        {"text": "b", "prompt": 1, "reward": -1.0},
    ]
    (model,) = shaped({"a": {"texts": samples}}, behaviours=["x", "y"])["models"]
    assert model["prompt"] == [0, 1] and model["behaviour"] == [1, None]
    assert model["target"] == [0.123, None] and model["reward"] == [None, -1]


@pytest.mark.parametrize(
    "length", [0, 1, exhibit_shapes.MOST_CHARS - 1, exhibit_shapes.MOST_CHARS, exhibit_shapes.MOST_CHARS + 1, 9_999]
)
def test_a_long_text_is_cut_and_counted(length: int) -> None:
    whole = "".join(chr(0x1F600 + i % 50) for i in range(length))  # characters, whatever their bytes
    (model,) = shaped({"a": {"texts": [{"text": whole}]}})["models"]
    assert model["text"][0] == whole[: exhibit_shapes.MOST_CHARS]
    assert len(model["text"][0]) + model["more"][0] == length


def test_of_many_texts_the_first_are_kept_and_the_rest_counted() -> None:
    texts = [{"text": str(i)} for i in range(exhibit_shapes.MOST_TEXTS + 5)]
    (model,) = shaped({"a": {"texts": texts}})["models"]
    assert model["text"] == [str(i) for i in range(exhibit_shapes.MOST_TEXTS)] and model["left"] == 5


@pytest.mark.parametrize("n", [1, 2, 71, 72, 73, 500, 10_000])
def test_a_long_curve_is_thinned_and_keeps_its_end(n: int) -> None:
    curves = {"update": [i + 1.0 for i in range(n)], "loss": [float(i) for i in range(n)], "kl": [None] * n}
    (model,) = shaped({"a": {"texts": [], "curves": curves}})["models"]
    kept = model["curves"]
    assert set(kept) == {"update", "loss"}, "a curve of nothing is left out"
    assert len(kept["update"]) == min(n, exhibit_shapes.MOST_POINTS) and kept["update"][-1] == n
    assert kept["update"] == sorted(set(kept["update"]))
    assert kept["loss"] == pytest.approx([u - 1 for u in kept["update"]], rel=1e-3)


@pytest.mark.parametrize("n", [3, 100])
@pytest.mark.parametrize("short", [0, 1, 2])
def test_a_curve_that_ends_early_has_nothing_after(
    n: int, short: int, synthetic: ModuleType, of_text: ModuleType, tmp_path: Path
) -> None:
    curves = {"update": [i + 1.0 for i in range(n)], "loss": [0.5] * short, "kl": [0.1] * n, "more": [0.2] * (n + 5)}
    (model,) = shaped({"a": {"texts": [], "curves": curves}})["models"]
    kept = model["curves"]
    assert ("loss" in kept) == bool(short)
    for name in kept:
        assert len(kept[name]) == len(kept["update"]) == min(n, exhibit_shapes.MOST_POINTS)
    assert kept.get("loss", []) == [0.5 if u <= short else None for u in kept["update"]][: len(kept.get("loss", []))]
    run = synthetic.write(
        tmp_path / "run", synthetic.Spec(seeds=1, algorithms=("grpo",), betas=(0.1,)), of_text.TextSpec()
    )
    changed = json.loads((run / "exhibits.json").read_text())
    for each in changed["models"].values():
        each["curves"] = curves
    (run / "exhibits.json").write_text(json.dumps(changed))
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["digests"]["exhibits.json"] = hashlib.sha256((run / "exhibits.json").read_bytes()).hexdigest()
    (run / "manifest.json").write_text(json.dumps(manifest))
    assert page(load(run), verdict(load(run)))


def test_a_prompt_is_cut_with_a_mark() -> None:
    (prompt,) = shaped({}, prompts=["p" * 1_500])["prompts"]
    assert prompt == "p" * exhibit_shapes.MOST_PROMPT + "… (1\u202f300 more characters)"


def test_a_cell_shows_the_texts_of_its_own_model(run: RunFiles) -> None:
    data = payload(run)
    shown = 0
    for row in run.rows:
        if row["seed"] >= 5:
            continue
        cell = next(
            i for i in range(len(data["cells"]["r"]))
            if data["recipes"][data["cells"]["r"][i]]["name"] == row["recipe"]
            and data["algorithms"][data["cells"]["a"][i]] == row["algorithm"]
            and data["betas"][data["cells"]["b"][i]] == row["beta"] and data["cells"]["i"][i] == row["stage_index"]
        )  # fmt: skip
        model = data["exhibits"]["models"][data["pool"][data["cells"]["models"][cell]][str(row["seed"])]]
        assert model["text"] == [t["text"] for t in run.exhibits["models"][row["model"]]["texts"]]
        shown += 1
    assert shown == 2 * 2 * 2 * 3 * 5


# --- measures


def test_measures_are_those_that_the_rows_have(run: RunFiles, real: RunFiles) -> None:
    ids = [m.id for m in measures(run)]
    assert ids[:3] == ["text entropy", "text entropy_per_token", "text repetition"]
    assert "text distinct 2" in ids and "text coverage 1000" in ids and "text posterior target" in ids
    assert "text by_prompt 3 target_recall" in ids and len(ids) == len(set(ids))
    assert {m.column for m in measures(real)} == {"entropy", "entropy_per_token", "repetition", "distinct"}


def test_means_and_single_seeds_are_those_of_the_records(run: RunFiles) -> None:
    data = payload(run)
    by_id = {m.id: m for m in measures(run)}
    statistics = run.statistics["cells"]
    for spec in data["text_measures"]:
        measure, column = by_id[spec["id"]], data["cells"][spec["id"]]
        assert len(column["mean"]) == len(column["values"]) == len(statistics)
        for cell, mean, values in zip(statistics, column["mean"], column["values"], strict=True):
            keys = ("recipe", "algorithm", "beta", "stage_index")
            rows = {r["seed"]: r for r in run.rows if all(r[k] == cell[k] for k in keys)}
            known = [measure.of(rows[s]) for s in cell["seeds"]]
            assert data["pool"][values] == pytest.approx(known, rel=1e-3)
            assert mean == pytest.approx(sum(known) / len(known), rel=1e-3)  # type: ignore[arg-type]


def test_a_failed_seed_is_in_no_mean(synthetic: ModuleType, of_text: ModuleType, tmp_path: Path) -> None:
    lost = {("align-distil", "grpo", 0.1, 1): "diverged"}
    spec = synthetic.Spec(seeds=3, algorithms=("grpo",), betas=(0.1,), failures=lost)
    run = load(synthetic.write(tmp_path / "run", spec, of_text.TextSpec()))
    data = payload(run)
    at = next(
        i for i, c in enumerate(run.statistics["cells"]) if (c["recipe"], c["stage"]) == ("align-distil", "align")
    )
    assert len(data["pool"][data["cells"]["text repetition"]["values"][at]]) == 2
    assert build(run.path).exists()


def test_numbers_that_are_no_numbers_are_nothing() -> None:
    assert Measure("distinct", ("2",)).of({"distinct": None}) is None
    assert Measure("distinct", ("2",)).of({"distinct": {"1": 0.5}}) is None
    assert Measure("posterior", ("a",)).of({"posterior": {"a": "x"}}) is None
    assert Measure("entropy").of({}) is None


def test_of_many_prompts_the_first_are_shown(synthetic: ModuleType, of_text: ModuleType, tmp_path: Path) -> None:
    spec = synthetic.Spec(seeds=2, algorithms=("grpo",), betas=(0.1,))
    edit = of_text.TextSpec(prompts=[f"prompt {i}" for i in range(MOST_PROMPTS + 8)])
    run = load(synthetic.write(tmp_path / "run", spec, edit))
    shown = {m.path[0] for m in measures(run) if m.column == "by_prompt"}
    assert shown == {str(p + 1) for p in range(MOST_PROMPTS)}


def test_a_mixture_has_no_measures_of_text(built: Path) -> None:
    run = load(built)
    assert any(r["coverage"] for r in run.rows) and measures(run) == [] and parts(run) == set()
    data = payload(run)
    assert "text_measures" not in data and set(data["exhibits"]) == {
        "kind", "seeds", "p_star", "targets", "radius", "half_width", "models",
    }  # fmt: skip


# --- the page


def headings(text: str) -> list[str]:
    return re.findall(r'<section id="([a-z]+)"', text)


def test_text_has_its_own_sections_and_mixtures_keep_theirs(run: RunFiles, real: RunFiles, built: Path) -> None:
    text = page(run, verdict(run))
    assert headings(text) == [section.id for section in sections_of(run)]
    assert {"texts", "variety", "curves"} <= set(headings(text)) and {"exhibits", "exact"}.isdisjoint(headings(text))
    figures = re.findall(r'data-figure="([a-z]+)"', text)
    assert figures[:5] == ["exhibits", "behaviours", "variety", "prompts", "curves"]
    assert '<a href="#texts">Texts</a>' in text and "Densities" not in text
    figures = re.findall(r'data-figure="([a-z]+)"', page(real, verdict(real)))
    assert figures[:4] == ["exhibits", "variety", "curves", "plane"]
    mixture = (built / "report.html").read_text()
    assert headings(mixture) == [section.id for section in sections_of(load(built))]
    assert {"exhibits", "exact"} <= set(headings(mixture)) and {"texts", "variety"}.isdisjoint(headings(mixture))
    assert '<a href="#exhibits">Densities</a>' in mixture


def test_every_link_leads_to_a_section(run: RunFiles) -> None:
    text = page(run, verdict(run))
    links = re.findall(r'<li><a href="#([a-z]+)">', text)
    assert links == headings(text)


def test_where_theory_is_unknown_the_report_says_so(run: RunFiles, built: Path) -> None:
    found = verdict(run)
    assert [t.value for t in found.headline_numbers][1] == "not known"
    assert found.windows and not any(w.known for w in found.windows)
    text = page(run, found)
    assert "theory has no window" not in text and "The band is theory" not in text
    assert text.count("not known") >= 1 + len(found.windows)
    assert "Which trap was it?" not in text, "no exact optimum says which trap a seed is in"
    build(run.path)
    summary = (run.path / "summary.md").read_text()
    assert "**not known**" in summary and "| not known |" in summary and "unnamed" not in summary
    assert all(w.known for w in verdict(load(built)).windows)


def test_varied_keys_keep_their_own_texts(synthetic: ModuleType, of_text: ModuleType, tmp_path: Path) -> None:
    vary = {"align.updates": [72, 288], "align.learning_rate": [2e-4, 5e-4]}
    spec = synthetic.Spec(seeds=5, algorithms=("grpo",), betas=(0.1,), vary=vary)
    run = load(synthetic.write(tmp_path / "run", spec, of_text.TextSpec()))
    found = verdict(run)
    assert "not known" in [t.value for t in found.headline_numbers]
    data = payload(run)
    assert len(data["study"]["variants"]) == 4 and set(data["cells"]["v"]) == {0, 1, 2, 3}
    assert page(run, found)


def test_a_page_of_long_texts_fits_and_says_what_it_leaves_out(
    synthetic: ModuleType, of_text: ModuleType, tmp_path: Path
) -> None:
    spec = synthetic.Spec(seeds=5, algorithms=("grpo", "ppo", "ipo"), betas=(0.1, 0.2, 0.3))
    texts = [f"{i} " + "<tag> & more " * 200 for i in range(12)]
    run = load(synthetic.write(tmp_path / "run", spec, of_text.TextSpec(exact=False, prompts=["The"], texts=texts)))
    text = page(run, verdict(run))
    assert len(text.encode()) <= 8_000_000
    assert "it leaves out exhibits of all but one seed" in text


def test_thinning_keeps_numbers_with_their_cells(run: RunFiles) -> None:
    whole = payload(run)
    thin = within_budget(payload(run), 0)
    assert len(thin["left_out"]) == len(STEPS) and size(thin) < size(whole)
    assert [m["id"] for m in thin["text_measures"]] == [m["id"] for m in whole["text_measures"]]
    for m in whole["text_measures"]:
        assert thin["cells"][m["id"]]["mean"] == whole["cells"][m["id"]]["mean"]
    one = payload(run)
    STEPS[0][0](one)
    for m in [*whole["metrics"], *whole["text_measures"]]:
        before, after = whole["cells"][m["id"]]["values"], one["cells"][m["id"]]["values"]
        assert [whole["pool"][i] for i in before] == [one["pool"][i] for i in after], m["id"]


def test_hostile_texts_stay_in_the_payload(synthetic: ModuleType, of_text: ModuleType, tmp_path: Path) -> None:
    bad = '</script><script>alert(1)</script><img src=x onerror="alert(2)">\u202e\u2028<!--'
    spec = synthetic.Spec(seeds=2, algorithms=("grpo",), betas=(0.1,))
    edit = of_text.TextSpec(
        texts=[bad] * 3, prompts=[bad, bad, bad], curve=[bad], behaviours=[bad, f"{bad}2", f"{bad}3"]
    )
    text = build(synthetic.write(tmp_path / "run", spec, edit)).read_text()
    body = text[text.index("<body") :]
    assert bad not in text and "<img" not in body and body.count("<script") == 3
    data = json.loads(text[text.index('id="payload">') + 13 :].split("</script>")[0])
    assert data["exhibits"]["models"][0]["text"][0].startswith("</script><script>alert(1)")
    assert "⟨U+202E⟩⟨U+2028⟩" in data["exhibits"]["models"][0]["text"][0]
