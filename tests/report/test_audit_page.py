"""The audit's page shows the tables' rows in their order, escapes names, and is there alone."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest

from raygrad.report.audit_browser import audit_browser, views
from raygrad.report.audit_page import audit_section, write_audit_page
from raygrad.report.tables import Run
from raygrad.report.thumbnails import make_thumbnail
from raygrad.runs.audit_tables import read_audit, write_audit
from tests.report.browser import chromium, watch

NUMBER = 30


def made_tables():
    keys = [f"k{at:02d}" for at in range(NUMBER)]
    base = {"key": keys, "file": [f"{key}.png" for key in keys], "split": ["train"] * NUMBER}
    labels = pa.table(
        base
        | {
            "label_name": ["<!--<script></script><b>cat"] * NUMBER,
            "suggested_name": ["dog"] * NUMBER,
            "confidence": np.linspace(0.9, 0.1, NUMBER),
            "suspect": [at < 5 for at in range(NUMBER)],
        }
    )
    repeats = pa.table(
        {"group": [1, 1], "key": ["k07", "k08"], "kind": ["exact", "exact"],
         "split": ["train", "test"], "across_splits": [True, True],
         "across_labels": [True, True]}
    )  # fmt: skip
    outliers = pa.table(
        base | {"distance": np.arange(NUMBER), "reason": ["blank"] + [""] * (NUMBER - 1)}
    )
    drop = pa.table({"key": keys[:6], "reason": ["repeats"] * 6})
    return {
        "labels": labels, "repeats": repeats, "outliers": outliers,
        "keep": pa.table({"key": keys[6:]}), "drop": drop,
    }  # fmt: skip


SUMMARY = {
    "num_examples": NUMBER, "num_wrong": 5.0, "num_wrong_low": 2.0, "num_wrong_high": 8.0,
    "num_suspects": 5, "num_repeated": 2, "num_across_splits": 1, "num_across_labels": 0,
    "num_odd": 1, "num_kept": 24, "num_dropped": 6, "accuracy": 0.8,
    "joint": [[0.5, 5 / NUMBER], [0.0, 0.5 - 5 / NUMBER]], "classes": ["<cat>", "dog"],
    "how": "cnn", "near": [], "rule": "a random draw",
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    write_audit(str(tmp_path / "audit"), made_tables(), SUMMARY)
    return Run(url=str(tmp_path), name="made")


def test_each_list_holds_its_tables_rows_in_order():
    found = {view.name: view for view in views(made_tables())}
    assert found["suspects"].keys == ["k00", "k01", "k02", "k03", "k04"]
    assert found["suspects"].rows[0]["note"] == "rather dog, 90%"
    assert [row["note"] for row in found["repeats"].rows] == [
        "group 1, exact, train, labels differ", "group 1, exact, test, labels differ"
    ]  # fmt: skip
    assert found["leaks"].keys == found["contradictions"].keys == ["k07", "k08"]
    assert found["outliers"].keys == ["k00"]
    assert (found["kept"].total, found["dropped"].total) == (24, 6)


@pytest.mark.parametrize("number", [201, 399, 500])
def test_of_a_long_list_an_even_sample_is_shown_and_not_its_beginning(number):
    keys = [f"k{at:03d}" for at in range(number)]
    rows = {"key": keys, "file": keys, "split": ["train"] * number, "label_name": keys}
    rows |= {"suggested_name": keys, "confidence": np.ones(number), "suspect": [False] * number}
    tables = made_tables()
    odd = pa.table({"key": keys[:1], "reason": ["blank"], "distance": [1.0]})
    tables |= {"labels": pa.table(rows), "outliers": odd, "repeats": tables["repeats"].slice(0, 0)}
    tables |= {
        "keep": pa.table({"key": keys}),
        "drop": pa.table({"key": keys[:1], "reason": ["repeats"]}),
    }
    shown = next(view for view in views(tables) if view.name == "kept").keys
    steps = np.diff([int(key[1:]) for key in shown])
    assert len(set(steps.tolist())) == 1
    assert int(shown[-1][1:]) + steps[0] >= number
    assert len(shown) <= 200


def test_pictures_are_embedded_once_and_names_cannot_end_the_script():
    pictures = {key: make_thumbnail(np.zeros((8, 8), np.uint8)) for key in ("k00", "k07")}
    html = audit_browser(views(made_tables()), pictures)
    blob = re.search(r'<script type="application/json">(.*?)</script>', html, re.S).group(1)
    data = json.loads(blob)
    assert len(data["images"]) == 2
    places = {row[0]: row[6] for view in data["views"].values() for row in view["rows"]}
    assert (places["k00"], places["k07"], places["k01"]) == (0, 1, -1)
    assert data["views"]["suspects"]["rows"][0][3] == "<!--<script></script><b>cat"


def test_the_page_and_the_report_say_the_same_and_only_where_there_is_an_audit(run, tmp_path):
    url = write_audit_page(run, str(tmp_path / "report"))
    text = (tmp_path / "report" / "audit.html").read_text()
    assert url.endswith("report/audit.html")
    assert "about 5 are labelled wrongly (2 to 8" in text
    assert "&lt;cat&gt;" in text
    assert "<cat>" not in text
    section = audit_section(run)
    assert len(section.intro) == 1  # of a weaker network a second line tells
    assert section.intro[0].startswith("Of 30 images about 5")
    assert 'href="audit.html"' in section.parts[0]
    nothing = Run(url=str(tmp_path / "none"), name="none")
    assert write_audit_page(nothing, str(tmp_path / "none")) is None
    assert not audit_section(nothing).parts


def test_an_audit_whose_summary_is_not_there_is_not_whole(run, tmp_path):
    tables, summary = read_audit(str(tmp_path / "audit"))
    assert (len(tables), summary["num_wrong"]) == (5, 5.0)
    (tmp_path / "audit" / "summary.json").unlink()
    assert read_audit(str(tmp_path / "audit")) == ({}, {})


def test_what_is_chosen_is_copied_and_else_what_matches(run, tmp_path):
    """By key, by file, or as CSV with both labels; also with a name that needs quotes."""
    url = write_audit_page(run, str(tmp_path / "report"))
    problems = []
    with chromium() as browser:
        page = browser.new_page()
        watch(page, problems)
        page.add_init_script(
            "navigator.clipboard.writeText = (text) => { window.copied = text; "
            "return Promise.resolve(); }"
        )
        page.goto(f"file://{url}")
        copied = lambda what: (page.click(f"[data-copies={what}]"), page.evaluate("copied"))[1]  # noqa: E731
        assert copied("key").split() == ["k00", "k01", "k02", "k03", "k04"]
        page.click(".tile >> nth=1")
        page.click(".tile >> nth=3")
        assert "2 chosen" in page.inner_text(".status")
        assert copied("file").split() == ["k01.png", "k03.png"]
        page.select_option("select[name=list]", "leaks")
        page.click(".tile >> nth=1")
        lines = copied("labels").splitlines()
        assert lines[0] == "key,file,label,suggested"
        assert [line.split(",")[0] for line in lines[1:]] == ["k01", "k03", "k08"]
        page.click(".clear")
        page.fill("input[name=text]", "k07")
        assert copied("key") == "k07"
    assert problems == []
