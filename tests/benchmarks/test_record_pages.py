"""Every record is a page and a JSON that says the same, with its commands and all of its tables."""

import json

import pytest

from benchmarks.record_pages import RECORDS, page_content, pages

PAGES = sorted(RECORDS.glob("20*.md"))


def test_a_table_is_read_cell_by_cell_and_a_command_as_it_is_given(tmp_path):
    page = tmp_path / "2026-01-02-own.md"
    page.write_text(
        "# Own\n\n    python benchmarks/own.py --rounds 3\n\n2 cores of a kind, 24 GB. Text.\n\n"
        "## Times\n\n| way | s |\n|---|---|\n| **raygrad** | 1.5 |\n| [peer](x.md) | 2 |\n"
    )
    found = page_content(page)
    assert found["commands"] == ["python benchmarks/own.py --rounds 3"]
    assert found["machine"] == "2 cores of a kind, 24 GB"
    (table,) = found["tables"]
    assert table == {
        "under": "Times",
        "columns": ["way", "s"],
        "rows": [["raygrad", "1.5"], ["peer", "2"]],
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_every_record_has_a_json_beside_its_page(page):
    assert page.with_suffix(".json").exists(), "write it: python benchmarks/record_pages.py"


@pytest.mark.parametrize("page", pages(), ids=lambda p: p.stem)
def test_an_early_records_json_says_what_its_page_says(page):
    content = json.loads(page.with_suffix(".json").read_text())
    assert content == page_content(page), "write it again: python benchmarks/record_pages.py"
    assert content["commands"] or content["tables"]
