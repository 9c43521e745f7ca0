import pytest

from raygrad.errors import ConfigError
from raygrad.scoring import GRAD_COLUMNS, SCORE_COLUMNS, check_columns
from raygrad.scoring.columns import group_of, norms_needed


def test_there_are_twelve_gradient_columns():
    assert len(set(GRAD_COLUMNS)) == 15
    assert "grad_linf_last_layer_weights" in GRAD_COLUMNS


def test_columns_keep_their_order_and_lose_repeats():
    asked = ["loss", "grad_l2_all", "loss"]
    assert check_columns(asked) == ("loss", "grad_l2_all")
    assert check_columns(GRAD_COLUMNS + SCORE_COLUMNS) == GRAD_COLUMNS + SCORE_COLUMNS


def test_an_unknown_column_is_answered_with_the_nearest_right_one():
    with pytest.raises(ConfigError, match="Did you mean 'grad_l2_weights'"):
        check_columns(["grad_l2_weigths"])


@pytest.mark.parametrize("columns", [[], "grad_l2_all"])
def test_no_columns_and_a_bare_string_are_refused(columns):
    with pytest.raises(ConfigError):
        check_columns(columns)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("0.weight", "weights"),
        ("attn.in_proj_bias", "biases"),
        ("bias.weight", "weights"),
        ("layer_scale", "weights"),
        ("0.parametrizations.weight.original0", "weights"),
        ("0.parametrizations.bias.original", "biases"),
    ],
)
def test_a_parameter_is_a_bias_by_its_own_name(name, group):
    assert group_of(name) == group


def test_only_the_norms_that_a_column_wants_are_taken():
    columns = ("grad_l2_weights", "grad_l1_biases", "grad_linf_last_layer_weights")
    assert norms_needed(columns, "0.weight", None) == {"l2"}
    assert norms_needed(columns, "0.bias", None) == {"l1"}
    assert norms_needed(columns, "1.weight", "1.weight") == {"l2", "linf"}
    assert norms_needed(("grad_l2_all",), "0.bias", None) == {"l2"}
