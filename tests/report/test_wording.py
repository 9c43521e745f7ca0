"""Numbers in words: nothing is all or none that is not, and no share is named that a set is not."""

import numpy as np
import pyarrow as pa
import pytest

from raygrad.report.figures.agreement import agreement_figure
from raygrad.report.figures.cartography import corners_figure
from raygrad.report.figures.concentration import concentration_figure, concentration_sentence
from raygrad.report.figures.galleries import top_sample_figure
from raygrad.report.figures.kept_classes import kept_classes_figure
from raygrad.report.figures.overlap import overlap_figure
from raygrad.report.kept import Kept
from raygrad.report.style import WIDE, drawing
from raygrad.report.tables import Run, Scores
from raygrad.report.thumbnails import make_thumbnail
from raygrad.report.wording import percent, top_words


@pytest.mark.parametrize(
    ("fraction", "words"),
    [
        (0.0, "0%"), (1e-7, "0.00001%"), (0.0032, "0.32%"), (0.95, "95%"), (0.9994, "99.9%"),
        (0.9995, "99.95%"), (0.99964, "99.96%"), (0.9999, "99.99%"), (0.99995, "over 99.99%"),
        (0.9999999, "over 99.99%"), (1 - 1e-15, "100%"), (1.0, "100%"), (1.25, "125%"),
    ],
)  # fmt: skip
def test_only_none_is_0_percent_and_only_all_is_100(fraction, words):
    assert percent(fraction) == words


def test_a_share_of_few_examples_is_named_as_what_it_is():
    assert top_words(0.01, 17, 1797) == "1%"
    assert top_words(0.01, 1, 150) == "1 (0.67%)"
    assert top_words(0.05, 20, 112) == "20 (17.9%)"


def small_run(number: int) -> Run:
    """Two networks' scores of few examples."""
    rng = np.random.default_rng(0)
    keys = [f"k{at:03d}" for at in range(number)]
    base = {"key": keys, "label": np.arange(number) % 3}
    drawn = [{c: rng.random(number) for c in ("norm", "loss")} for _ in range(2)]
    names = ("one", "other")
    tables = {n: Scores(n, pa.table(base | d)) for n, d in zip(names, drawn, strict=True)}
    followed = pa.table({"key": keys, "dyn_unc": rng.random(number)})
    return Run("runs/small", "small", scores=tables, dynamics={"one": followed})


def test_captions_of_few_examples_name_the_sets_that_are_shown():
    run = small_run(60)
    values = run.scores["one"].values("norm")
    held = np.sort(values)[::-1].cumsum() / values.sum()
    assert concentration_sentence(values, "norm") == (
        f"The hardest 1 (1.7%) of 60 examples hold {percent(held[0])} of all norm, the hardest 10% "
        f"{percent(held[5])}"
    )
    assert "of the hardest 1 (1.7%) and" in overlap_figure(run, "norm").caption
    shared = agreement_figure(run, "one", "norm")
    assert "The share of the hardest 1 (1.7%), 5% and 10% of 60 examples" in shared.caption
    pictures = dict.fromkeys(run.scores["one"].table["key"].to_pylist())
    pictures = {key: make_thumbnail(np.zeros((8, 8), np.uint8)) for key in pictures}
    top = top_sample_figure(run, "norm", pictures)
    assert top.title == "Random picks from the top 20 (33.3%)"
    assert "(seed 0) of the 20 (33.3%) of the examples" in top.caption
    assert "of the 20 (33.3%) of the largest loss" in corners_figure(run, "one", pictures).caption


def test_captions_of_many_examples_name_the_shares():
    run = small_run(2000)
    assert "The hardest 1% of 2,000" in concentration_sentence(np.ones(2000), "norm")
    assert "of the hardest 1% and" in overlap_figure(run, "norm").caption
    assert "the hardest 1, 5 and 10% of 2,000" in agreement_figure(run, "one", "norm").caption


def kept_sentence(**kept: list[list[int]]) -> str:
    """The sentence of subsets by positions, of 60 examples whose classes are 0, 1, 2, 0, 1, ..."""
    found = [
        Kept(method, 0.1, tuple(range(len(of))), tuple(np.array(one) for one in of))
        for method, of in kept.items()
    ]
    return kept_classes_figure(small_run(60), "one", found).caption


def test_a_class_that_any_draw_loses_is_said():
    whole = [[0, 1, 2, 3, 4, 5]] * 2
    assert "No subset loses a class." in kept_sentence(random=whole, max_gradient=whole)
    lost = kept_sentence(random=[[0, 1, 3, 4]] * 2, max_gradient=whole)
    assert "random at 10% keeps no example of 2." in lost
    each = kept_sentence(random=whole, max_gradient=[[0, 1, 3], [1, 2, 4]])
    assert "max_gradient at 10% keeps no example of 0 and 2 in some draws." in each
    lost = kept_sentence(random=[[0, 3]] * 2, max_gradient=[[0, 1, 3]] * 2)
    assert "max_gradient at 10% keeps no example of 2." in lost


def test_names_with_dollar_signs_are_drawn_as_they_are():
    """Between two of them matplotlib reads mathematics, of which some is an error."""
    run = small_run(60)
    named = {"a$_^$b": run.scores["one"], "$x$": run.scores["other"]}
    odd = Run("runs/small", "small", scores=named)
    with drawing():
        figure = overlap_figure(odd, "norm").draw(WIDE)
        figure.draw_without_rendering()
    texts = [text.get_text().replace(r"\$", "$") for text in figure.axes[0].texts]
    assert "a$_^$b and $x$" in texts


def test_the_marks_of_a_concentration_are_what_they_say():
    with drawing():
        figure = concentration_figure(small_run(60), "one", "norm").draw(WIDE)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert [text.partition(" hold")[0] for text in texts] == ["1 (1.7%)", "10%"]
