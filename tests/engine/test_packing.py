"""How many trials fit: the arithmetic, and the sentence where none does."""

import pytest

from raygrad.engine.packing import TrialNeeds, trials_at_a_time
from raygrad.errors import ResourceError


@pytest.mark.parametrize(
    ("needs", "nodes", "expected"),
    [
        (TrialNeeds(1, 1, 0), [{"CPU": 2}], 2),
        (TrialNeeds(1, 0.5, 0), [{"CPU": 2}], 4),
        (TrialNeeds(1, 0.1, 0), [{"CPU": 1}], 10),
        (TrialNeeds(2, 1, 0), [{"CPU": 3}, {"CPU": 3}], 3),
        # 1.5 CPUs of one node and 1.5 of another do not hold a worker of 2.
        (TrialNeeds(1, 2, 0), [{"CPU": 3}, {"CPU": 3}], 2),
        (TrialNeeds(1, 1, 0.5), [{"CPU": 16, "GPU": 2}], 4),
        # 0.4 of a GPU fits twice on each; what is left of two GPUs does not add up.
        (TrialNeeds(1, 1, 0.4), [{"CPU": 16, "GPU": 2}], 4),
        (TrialNeeds(1, 1, 2), [{"CPU": 16, "GPU": 5}, {"CPU": 64}], 2),
        (TrialNeeds(1, 4, 1), [{"CPU": 16, "GPU": 8}], 4),
    ],
)
def test_trials_that_fit(needs, nodes, expected):
    assert trials_at_a_time(needs, nodes, 0) == expected
    assert trials_at_a_time(needs, nodes, 1) == 1


def test_the_sum_is_spelled_out_where_none_fits():
    with pytest.raises(ResourceError) as error:
        trials_at_a_time(TrialNeeds(4, 2, 1), [{"CPU": 7, "GPU": 1}, {"CPU": 2}], 0)
    assert str(error.value) == (
        "a trial must fit the cluster, got trials of 4 workers: 4 x 2 CPU = 8 CPU and "
        "4 x 1 GPU = 4 GPU and room for 1 on 2 nodes: 7 CPU and 1 GPU (holds 1), "
        "2 CPU and 0 GPU (holds 0). Lower --workers-per-trial, --cpus-per-worker or "
        "--gpus-per-worker, or join a larger cluster."
    )
