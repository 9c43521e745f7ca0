"""The page in a real browser, from disk and with the network off."""

import pyarrow.parquet as pq
import pytest

from tests.report import browser as headless
from tests.report import study


@pytest.fixture(scope="module")
def chromium():
    with headless.chromium() as instance:
        yield instance


@pytest.fixture
def open_page(chromium, report_url):
    """Opens the report at a width; fails the test on any console error or request."""
    contexts, problems = [], []

    def opened(width=1280, scheme="light", url=report_url):
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        headless.watch(page, problems)
        page.goto(f"file://{url}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


@pytest.mark.parametrize("width", [380, 1280])
def test_nothing_overflows(open_page, width):
    """No element reaches past the window, unless it stands in a box that scrolls by itself."""
    page = open_page(width)
    assert headless.overflowing(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_phone_gets_the_narrow_drawings_and_a_screen_the_wide_ones(open_page):
    for width, shown, hidden in ((380, "narrow", "wide"), (1280, "wide", "narrow")):
        page = open_page(width)
        assert page.locator(f"svg.{shown}").first.is_visible()
        assert not page.locator(f"svg.{hidden}").first.is_visible()


def test_text_in_figures_can_be_read_on_both_grounds(open_page):
    """Drawn text takes the page's own text colour, in the light theme and in the dark."""
    for scheme in ("light", "dark"):
        page = open_page(1280, scheme)
        colors = page.evaluate(
            """() => {
                const fill = getComputedStyle(document.querySelector('svg.wide text')).fill;
                return [fill, getComputedStyle(document.body).color];
            }"""
        )
        assert colors[0] == colors[1]


def test_the_theme_button_turns_the_theme_round(open_page):
    page = open_page()
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator(".theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_a_click_on_a_head_sorts_the_table_by_value(open_page):
    page = open_page()
    table = page.locator("section#results table.sortable")
    head = table.locator("th", has_text="test accuracy")
    place = head.evaluate("e => e.cellIndex")
    for expected in ("ascending", "descending"):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == expected
        values = table.locator("tbody tr").evaluate_all(
            "(rows, i) => rows.map((r) => parseFloat(r.cells[i].dataset.value))", place
        )
        assert values == sorted(values, reverse=expected == "descending")


def scores_of(run_folder, network):
    parts = sorted((run_folder / "scores" / network).glob("part-*.parquet"))
    return [row for part in parts for row in pq.read_table(part).to_pylist()]


def shown_keys(page):
    return page.locator(".browser ul.strip .tile").evaluate_all("t => t.map((e) => e.dataset.key)")


def test_the_browser_starts_with_the_hardest_and_sorts_by_any_column(open_page, run_folder):
    page = open_page()
    rows = scores_of(run_folder, "features")
    for column in (study.COLUMN, "loss", "el2n"):
        page.select_option(".browser select[name=column]", column)
        for order, sign in (("hard", -1), ("easy", 1)):
            page.select_option(".browser select[name=order]", order)
            expected = sorted(rows, key=lambda r: sign * r[column])
            values = {r["key"]: r[column] for r in rows}
            got = [values[k] for k in shown_keys(page)]
            wanted = [r[column] for r in expected[: len(got)]]
            assert got == pytest.approx(wanted, rel=1e-4)


def test_the_filters_leave_exactly_the_examples_they_say(open_page, run_folder):
    page = open_page()
    rows = scores_of(run_folder, "features")

    def count():
        return int(page.locator(".browser .status").inner_text().split()[0].replace(",", ""))

    assert count() == len(rows)
    page.select_option(".browser select[name=label]", "8")
    assert count() == sum(r["label"] == 8 for r in rows)
    page.check(".browser input[name=wrong]")
    assert count() == sum(r["label"] == 8 and r["prediction"] != 8 for r in rows)
    page.select_option(".browser select[name=label]", "")
    page.select_option(".browser select[name=prediction]", "1")
    assert count() == sum(r["label"] != 1 and r["prediction"] == 1 for r in rows)
    page.select_option(".browser select[name=prediction]", "")
    page.uncheck(".browser input[name=wrong]")
    page.fill(".browser input[name=to]", "10")
    assert abs(count() - 0.1 * len(rows)) <= 1


def test_a_click_shows_the_examples_scores_and_history(open_page, run_folder):
    page = open_page()
    rows = {r["key"]: r for r in scores_of(run_folder, "features")}
    probed = set(
        pq.read_table(run_folder / "train" / "features" / "probe.parquet")["key"].to_pylist()
    )
    key = next(k for k in shown_keys(page) if k in probed)
    page.locator(f".browser .tile[data-key='{key}']").click()
    dialog = page.locator("dialog.example")
    assert dialog.is_visible()
    text = dialog.inner_text()
    assert key in text
    for column in (study.COLUMN, "loss", "el2n"):
        shown = dialog.locator("tr", has_text=column).first.locator("td").inner_text()
        assert float(shown) == pytest.approx(rows[key][column], rel=1e-3)
    assert dialog.locator("svg.history").count() == 2
    page.keyboard.press("ArrowRight")
    assert key not in dialog.locator("h3").inner_text()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_everything_that_a_mouse_can_do_a_keyboard_can(open_page):
    """Tab reaches the filters and the tiles, and Enter opens one."""
    page = open_page()
    page.locator(".browser select[name=column]").focus()
    for _ in range(9):
        page.keyboard.press("Tab")
    focused = page.evaluate("document.activeElement.className")
    assert focused == "tile"
    page.keyboard.press("Enter")
    assert page.locator("dialog.example").is_visible()


def test_every_picture_has_an_alternative_text(open_page):
    page = open_page()
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    assert page.locator("svg.plot:not([aria-label])").count() == 0
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


def test_print_hides_the_controls_and_keeps_the_figures(open_page):
    page = open_page()
    page.emulate_media(media="print")
    assert not page.locator(".controls").first.is_visible()
    assert page.locator("svg.wide").first.is_visible()
    page.pdf()


@pytest.mark.parametrize(("width", "height", "images"), [(1280, 900, 10), (390, 844, 5)])
def test_the_first_screen_has_question_answer_figure_and_the_hardest(
    open_page, width, height, images
):
    """Above the fold, also of two protocols: on a laptop all ten, on a phone their first row."""
    page = open_page(width)
    bottoms = page.evaluate(
        """() => {
            const bottom = (e) => e.getBoundingClientRect().bottom;
            const plots = [...document.querySelectorAll('.opening svg.plot')].map(bottom);
            const hardest = [...document.querySelectorAll('.opening .tile img')].map(bottom);
            const leads = [...document.querySelectorAll('header .lead')].map(bottom);
            const top = [bottom(document.querySelector('h1')), Math.max(...leads)];
            return [...top, Math.max(...plots), ...hardest];
        }"""
    )
    question, answer, figure, *hardest = bottoms
    assert question < answer < figure < min(hardest)
    assert max(hardest[:images]) <= height
    assert page.locator(".opening .tile").count() == 10


def test_both_protocols_open_the_page_as_equals(open_page):
    """Beside each other; a phone has the first alone, and says so."""
    page = open_page()
    titles = page.locator("#figure-opening svg.wide text").all_text_contents()
    assert {"features, equal epochs", "features, equal steps"} <= set(titles)
    phone = open_page(390).locator("#figure-opening svg.narrow text").all_text_contents()
    assert "features, equal epochs" in phone
    assert "features, equal steps" not in phone


def test_no_name_is_cut_short(open_page):
    """Legends and captions of tables wrap; each tile's title is its key."""
    for width in (380, 1280):
        page = open_page(width)
        cut = page.locator(".tile span").evaluate_all(
            "(e) => e.filter((x) => x.scrollWidth > x.clientWidth + 1).length"
        )
        assert cut == 0
        captions = page.locator("caption").evaluate_all(
            "(e) => e.map((x) => x.getBoundingClientRect()).map((b) => [b.left, b.right])"
        )
        assert captions
        assert all(0 <= left <= right <= width for left, right in captions)
        tile = page.locator(".tile").first
        assert tile.get_attribute("title") == tile.get_attribute("data-key")


def test_a_phone_folds_what_is_longer_than_two_rows(open_page):
    page = open_page(380)
    strip = page.locator("#figure-suspects ul.strip").first
    total = strip.locator("li").count()
    assert total > 10
    assert strip.locator("li:visible").count() == 10
    page.locator("#figure-suspects .unfold").first.click()
    assert strip.locator("li:visible").count() == total
    browsed = page.locator(".browser .tile")
    assert browsed.count() == 10
    page.locator(".browser .more").click()
    assert browsed.count() == 70
    assert open_page(1280).locator(".unfold:visible").count() == 0


def test_an_examples_details_name_its_subsets_and_its_key_can_be_copied(open_page, run_folder):
    page = open_page()
    key = shown_keys(page)[0]
    page.locator(f".browser .tile[data-key='{key}']").click()
    dialog = page.locator("dialog.example")
    files = (run_folder / "subsets").glob("max_gradient-*.parquet")
    held = {f.stem.split("-")[1] for f in files if key in pq.read_table(f)["key"].to_pylist()}
    text = dialog.locator("table.members tr", has_text="max_gradient").first.inner_text()
    for fraction in held:
        assert f"{100 * float(fraction):g}%" in text
    page.evaluate("navigator.clipboard.writeText = async (t) => { window.copied = t; }")
    dialog.locator(".copy").click()
    page.wait_for_function("window.copied !== undefined")
    assert page.evaluate("window.copied") == key
    page.keyboard.press("Escape")
    page.select_option(".browser select[name=label]", "8")
    page.locator(".browser > .copy").click()
    page.wait_for_function("window.copied.includes('\\n')")
    rows = scores_of(run_folder, "features")
    copied = page.evaluate("window.copied").split("\n")
    assert sorted(copied) == sorted(r["key"] for r in rows if r["label"] == 8)
