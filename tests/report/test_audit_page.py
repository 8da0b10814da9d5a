"""The page of an audit: what reaches it, what it says where there is nothing to say, and that it is one small file."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignfirst.errors import StoreError
from alignfirst.report import build_audit, offline_page
from alignfirst.report.audit import page, series
from alignfirst.report.audit.audit_files import load
from alignfirst.report.audit.verdict_card import PAIR_WORDS, both, card, focus, span
from alignfirst.report.offline_page import MOST_BYTES
from alignfirst.report.sentences import words

PLENTY = 10_000_000


@pytest.fixture(scope="module")
def whole(audits: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit with a reward, a teacher and preference rows."""
    folder = tmp_path_factory.mktemp("audit") / "whole"
    random = np.random.default_rng(0)
    rows = audits.samples(random) + audits.pairs(random, 60)
    audits.write(folder, rows, tokens=["Take", " the", " path", "\n\n", "by", " the", " river", "."])
    return folder


@pytest.fixture(scope="module")
def plain(whole: Path) -> dict[str, Any]:
    return dict(json.loads((whole / "audit.json").read_text()))


@pytest.fixture(scope="module")
def text(whole: Path) -> str:
    return build_audit(whole).read_text()


def payload_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="payload">(.*?)</script>', text, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def about(x: float | None) -> Any:
    """Six digits reach the page."""
    return None if x is None else pytest.approx(x, rel=1e-5)


# -- numbers ----------------------------------------------------------------------------------------------------------


def test_every_plan_and_window_reaches_the_figures(plain: dict[str, Any], text: str) -> None:
    data = payload_of(text)
    assert len(data["plans"]) == len(plain["plans"]) == 5
    for shown, told in zip(data["plans"], plain["plans"], strict=True):
        for name, key in series.PLAN_NUMBERS.items():
            for end in ("value", "low", "high"):
                assert shown[name][end] == about(told[key][end]), (name, end)
            assert shown[name]["why"] == told[key]["why"]
        assert (shown["verdict"], shown["beta"]) == (told["verdict"], told["beta"])
    for name, window in plain["windows"].items():
        assert data["windows"][name]["target_mass"] == pytest.approx(window["target_mass"], rel=1e-4)
        assert data["windows"][name]["upper_beta"]["value"] == pytest.approx(window["upper_beta"]["value"], rel=1e-4)
    assert [p["value"] for p in data["coverage"]["profile"]] == pytest.approx(
        [p["value"] for p in plain["coverage"]["profile"]], rel=1e-4
    )


def test_every_row_reaches_the_figures_and_the_worst_lead_the_list(plain: dict[str, Any], text: str) -> None:
    data = payload_of(text)
    every = plain["pairs"]["every"]
    for name in series.ROW_COLUMNS:
        told = [row[name] for row in every]
        assert data["rows"][name] == [about(x) for x in told], name
    costs = [row["cost_per_token_chosen"] for row in data["listed"]]
    assert len(costs) == 60 and costs == sorted(costs)
    assert [row["line"] for row in data["listed"][:20]] == [row["line"] for row in plain["pairs"]["worst"]]
    assert data["left_out"] == [] and data["total"] == 60
    assert data["means"]["cost_per_token_chosen"]["value"] == pytest.approx(
        plain["pairs"]["cost_per_token_chosen"]["value"], rel=1e-4
    )


def test_the_calibration_is_that_of_the_package(text: str) -> None:
    from alignfirst.report.audit.audit_files import evidence

    assert set(payload_of(text)["calibration"]) == set(evidence()["calibration"]) >= {"ppo", "dpo-offline"}


# -- words ------------------------------------------------------------------------------------------------------------

ends = st.none() | st.floats(-1e9, 1e9)
number = st.fixed_dictionaries({"value": ends, "low": ends, "high": ends, "why": st.none() | st.just("of this")})


@given(number, st.booleans())
def test_a_number_has_its_interval_or_says_why_it_has_none(n: dict[str, Any], share: bool) -> None:
    said = span(n, share)
    if n["value"] is not None and n["low"] is not None and n["high"] is not None:
        assert said.startswith("95 % interval ") and " to " in said
    else:
        assert said.endswith(n["why"] or "no reason was given")
    assert both(n, share).endswith(said) and "None" not in both(n, share) and "nan" not in both(n, share)


def test_the_card_says_what_the_audit_says(plain: dict[str, Any]) -> None:
    said = card(plain)
    assert [p["call"].replace("\u2011", "-") for p in said["plans"]] == [p["verdict"] for p in plain["plans"]]
    assert {p["class"] for p in said["plans"]} <= {"go", "nogo", "insufficient"}, "a style is no shown word"
    seen = dict(said["reference"])["Seen"]
    hits, draws = plain["reference"]["hits"], plain["reference"]["draws"]
    assert seen.startswith(f"{draws:,} draws".replace(",", "\u202f")) and f", {hits} in the target" in seen
    named = {words for words, _ in said["pairs"]}
    assert named == {words for _, words, _ in PAIR_WORDS}
    advice = {text.replace("\u2011", "-").replace("\u00a0%", " %") for text in (t["text"] for t in said["todo"])}
    assert advice == {text for p in plain["plans"] for text in p["todo"]}


@pytest.mark.parametrize(
    ("calls", "chip", "tone"),
    [
        (["go", "go"], "go", "go"),
        (["no-go"], "no\u2011go", "nogo"),
        (["insufficient data"] * 3, "insufficient data", "insufficient"),
        (["go", "no-go", "go"], "2 of 3 go", "go"),
        (["no-go", "insufficient data"], "none of 2 go", "insufficient"),
        ([], "insufficient data", "insufficient"),
    ],
)
def test_the_chip_is_the_verdict(calls: list[str], chip: str, tone: str, plain: dict[str, Any], tmp_path: Path) -> None:
    plans = [dict(plain["plans"][0], verdict=call) for call in calls]
    said = card(plain | {"plans": plans})
    assert (said["call"], said["tone"]) == (chip, tone)
    assert sum(n for _, _, n in said["counts"]) == (len(calls) if len(calls) > 1 else 0)


def test_the_headline_is_a_sentence_and_not_said_twice(plain: dict[str, Any]) -> None:
    one = plain | {"plans": plain["plans"][:1], "headline": "NO-GO: ppo at beta 0.1: the target stays at 3 %."}
    one["plans"] = [dict(one["plans"][0], verdict="no-go")]
    assert card(one)["headline"] == "ppo at beta 0.1: the target stays at 3\u00a0%."
    many = plain | {"headline": "GO for 2 of 5 plans (3 no-go); best: GO: ppo at beta 0.1: it reaches 9 %."}
    assert card(many)["headline"] == "Best: ppo at beta 0.1: it reaches 9\u00a0%."


def test_the_quoted_plan_is_the_best_that_goes_else_the_first_that_is_predicted(plain: dict[str, Any]) -> None:
    a, b = (dict(plain["plans"][0], verdict="go", reward={"value": x}) for x in (0.2, 0.4))
    lost, refused = dict(a, verdict="no-go"), dict(a, verdict="insufficient data", refused="no optimum")
    assert focus([lost, a, b]) == 2
    assert focus([refused, lost]) == 1
    assert focus([refused]) == 0 and focus([]) is None


def test_what_belongs_together_stays_on_a_line() -> None:
    assert words.tight({"a": ["5 % of no-go", 3], "b": ("x",)}) == {"a": ["5\u00a0% of no\u2011go", 3], "b": ["x"]}


# -- what is not there ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "pairs", "teacher", "absent"),
    [
        (True, True, True, {}),
        (True, False, True, {"scatter": "no preference rows", "rows": "no preference rows", "cost": "--pairs"}),
        (False, True, True, {"tilt": "no reward", "hits": "no reward"}),
        (False, True, False, {"tilt": "no reward", "hits": "no reward", "coverage": "--teacher", "cost": "--teacher"}),
    ],
)
def test_sections_without_numbers_stand_together_with_their_reasons(
    samples: bool, pairs: bool, teacher: bool, absent: dict[str, str], audits: ModuleType, tmp_path: Path
) -> None:
    random = np.random.default_rng(1)
    rows = (audits.samples(random, 200) if samples else []) + (
        audits.pairs(random, 12, teacher=teacher) if pairs else []
    )
    audits.write(tmp_path / "a", rows)
    why = series.missing(load(tmp_path / "a"))
    assert set(why) == set(absent)
    for section, said in absent.items():
        assert said in why[section]
    text = build_audit(tmp_path / "a").read_text()
    sections = re.findall(r'<section id="(\w+)"', text)
    links = re.findall(r'<a href="#(\w+)">', text)
    assert links == sections, "the navigation has what the page has"
    assert not set(absent) & set(sections) and ("absent" in sections) == bool(absent)


def test_an_audit_of_one_row_has_a_page(audits: ModuleType, tmp_path: Path) -> None:
    rows = audits.samples(np.random.default_rng(0), 1)[:1]
    audits.write(tmp_path / "a", rows)
    text = build_audit(tmp_path / "a").read_text()
    assert payload_of(text)["reference"]["draws"] == 1 and "insufficient data" in text


# -- files ------------------------------------------------------------------------------------------------------------


def test_answers_come_from_the_file_of_rows_while_it_is_the_one_that_was_audited(
    audits: ModuleType, tmp_path: Path
) -> None:
    rows = audits.pairs(np.random.default_rng(2), 5)
    path = audits.write(tmp_path / "a", rows)
    found = load(tmp_path / "a")
    assert found.texts == {2 * i + 1: rows[2 * i]["text"] for i in range(5)}
    path.write_text(path.read_text() + "\n")
    assert load(tmp_path / "a").texts == {}, "another file under its name is not read"
    path.unlink()
    assert load(tmp_path / "a").texts == {}
    assert "not in the audit's files" in build_audit(tmp_path / "a").read_text()


def test_rows_that_the_audit_of_a_model_wrote_are_known_by_the_line_of_their_pair(
    audits: ModuleType, tmp_path: Path
) -> None:
    rows = [row | {"pair_id": row["pair_id"] + 7} for row in audits.pairs(np.random.default_rng(2), 4)]
    path = audits.write(tmp_path / "a", rows)
    path.rename(tmp_path / "a" / "log_probs.jsonl")
    file = tmp_path / "a" / "audit.json"
    plain = json.loads(file.read_text())
    del plain["about"]["log_probs"]
    file.write_text(json.dumps(plain))
    assert load(tmp_path / "a").texts == {i + 7: rows[2 * i]["text"] for i in range(4)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        ("{", "not valid JSON"),
        ("[]", "JSON object"),
        ("{}", "audit_version None"),
        ('{"audit_version": 99}', "audit_version 99"),
    ],
)
def test_a_damaged_result_is_refused_and_the_old_page_stays(content: str | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "audit.json").write_text(content)
    (tmp_path / "audit.html").write_text("the old page")
    with pytest.raises(StoreError, match=said):
        build_audit(tmp_path)
    assert (tmp_path / "audit.html").read_text() == "the old page"


# -- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_is_one_file_that_points_nowhere(text: str) -> None:
    assert len(text.encode()) <= MOST_BYTES
    assert set(re.findall(r' (?:src|href|srcset|action)="(.)', text.split('id="payload"')[0])) == {"#"}
    assert "url(" not in text.split("</style>")[0]


def test_the_policy_allows_exactly_the_scripts_that_are_there(text: str) -> None:
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert found is not None
    policy = found[1].replace("&#39;", "'")
    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 3
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    assert policy.startswith("default-src 'none'; script-src " + " ".join(f"'sha256-{d}'" for d in digests) + ";")


def test_the_same_audit_gives_the_same_page(whole: Path, text: str) -> None:
    assert build_audit(whole).read_text() == text


@pytest.mark.parametrize("pairs", [5_000, pytest.param(50_000, marks=pytest.mark.slow)])
def test_a_hundred_thousand_rows_of_long_hostile_text_fit(pairs: int, audits: ModuleType, tmp_path: Path) -> None:
    """The worst rows stay, the others are thinned evenly, and the page says so."""
    random = np.random.default_rng(3)
    long = "<script>&" * 400  # each of these characters takes six bytes in the page
    audits.write(tmp_path / "a", audits.pairs(random, pairs, texts=[long]), plans=())
    text = build_audit(tmp_path / "a").read_text()
    assert 4_000_000 < len(text.encode()) <= MOST_BYTES
    data = payload_of(text)
    plain = json.loads((tmp_path / "a" / "audit.json").read_text())
    worst = [row["line"] for row in plain["pairs"]["worst"]]
    assert [row["line"] for row in data["listed"][: len(worst)]] == worst
    assert data["total"] == pairs and 500 <= len(data["rows"]["line"]) < pairs
    gaps = set(np.diff(data["rows"]["line"]))
    assert max(gaps) - min(gaps) <= 2, "evenly over the file"
    said = " ".join(data["left_out"])
    for words_ in ("rows of the figures", "rows of the list of worst rows", "ends of answers"):
        assert words_ in said and words_ in text.split('id="payload"')[0]


def test_a_page_that_cannot_fit_is_refused(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline_page, "MOST_BYTES", 1_000_000)
    with pytest.raises(StoreError, match="larger than 1 MB"):
        page.page(load(whole))


def test_each_form_of_the_rows_is_smaller_and_keeps_the_worst(whole: Path) -> None:
    found = load(whole)
    widest = series.payload(found, PLENTY)
    thin = series.payload(found, 0)
    assert series.size(thin) < series.size(widest)
    assert [row["line"] for row in thin["listed"]] == [row["line"] for row in widest["listed"]][: len(thin["listed"])]
    assert thin["left_out"] and thin["plans"] == widest["plans"]
