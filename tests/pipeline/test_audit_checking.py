"""What an audit's check says of leaving examples out."""

import numpy as np
import pytest

from raygrad.pipeline.audit_checking import Check


def check(kept, others):
    right = {"all": others, "kept": kept, "random": others}
    return Check(
        {name: np.array([of], bool) for name, of in right.items()}, dict.fromkeys(right, 9)
    )


@pytest.mark.parametrize(("number", "half"), [(10, 0.26), (1000, 0.003)])
def test_sets_that_agree_on_every_test_image_may_differ_on_others(number, half):
    """An interval of width 0 would say that ten images prove what a thousand cannot."""
    same = check([True] * number, [True] * number).summary()["kept_less_all"]
    assert same["mean"] == 0
    assert (-same["low"], same["high"]) == pytest.approx((half, half), rel=0.01)


def test_sets_that_differ_have_the_interval_of_their_differences():
    found = check([True] * 8 + [False] * 2, [True] * 9 + [False]).summary()["kept_less_all"]
    assert found["mean"] == pytest.approx(-0.1)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * np.sqrt(0.1 / 10))
