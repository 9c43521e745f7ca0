"""Whose fault it is: every rule as a table, without Ray."""

import errno

import pytest
import torch

from raygrad.engine.score.blame import REFUSED_S, Blame, Place
from raygrad.engine.score.faults import OutputError, fault_of
from raygrad.engine.score.rounds import Rounds
from raygrad.errors import (
    ConfigError,
    DataError,
    IncompleteError,
    RaygradError,
    ResourceError,
    StorageAwayError,
    StorageRefusedError,
)

A, B, C = Place("a"), Place("b"), Place("c")
ALL = (A, B, C)
SKEW = "StorageRefusedError: RequestTimeTooSkewed"
DENIED = "StorageRefusedError: AccessDenied"
GPUS = tuple(Place("a", str(number)) for number in range(4))


def refused_output():
    error = OutputError("the output must be writable")
    error.__cause__ = StorageRefusedError("ExpiredToken")
    return error


def untried():
    """A network whose check met a broken GPU."""
    error = ConfigError("network 'own' must take images 3x16x16, got RuntimeError")
    error.__cause__ = RuntimeError("CUDA error: uncorrectable ECC error encountered")
    return error


@pytest.mark.parametrize(
    ("error", "is_built", "expected"),
    [
        (untried(), False, "device"),
        (untried(), True, "device"),
        (StorageAwayError("storage must answer within 120 s"), True, "storage"),
        (StorageRefusedError("InvalidAccessKeyId"), True, "storage"),
        (StorageRefusedError("InvalidAccessKeyId"), False, "storage"),
        (refused_output(), True, "storage"),
        (OSError(errno.ESTALE, "Stale file handle"), True, "storage"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), True, "storage"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), True, "device"),
        (torch.AcceleratorError("CUDA error: an illegal memory access", 700), True, "device"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True, "device"),
        (RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm"), True, "device"),
        (RuntimeError("No CUDA GPUs are available"), False, "device"),
        (torch.OutOfMemoryError("CUDA out of memory"), True, "device"),
        (MemoryError(), True, "device"),
        (ResourceError("an actor must see its GPU, got none."), False, "device"),
        (OutputError("No space left on device"), True, "setup"),
        (ConfigError("checkpoint must not change"), True, "setup"),
        (ImportError("no module named own"), True, "setup"),
        (RuntimeError("this network cannot be built here"), False, "setup"),
        (FileNotFoundError(errno.ENOENT, "no file"), False, "setup"),
        (DataError("used + rejected must be the index's"), True, "data"),
        (FileNotFoundError(errno.ENOENT, "no file"), True, "shard"),
        (OSError(errno.EIO, "Input/output error"), True, "shard"),
        (IncompleteError("an object must not change while it is read"), True, "shard"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), True, "code"),
        (ZeroDivisionError(), True, "code"),
    ],
    ids=lambda value: f"{type(value).__name__}-{value}"[:50],
)
def test_an_error_is_somebodys_fault(error, is_built, expected):
    assert fault_of(error, is_built=is_built) == expected


def test_a_node_is_set_aside_after_two_errors_of_its_device():
    blame = Blame()
    assert blame.device(A, "s1", "ECC", ALL, 0.0) == "elsewhere"
    assert not blame.is_aside(A)
    assert blame.device(A, "s1", "ECC", ALL, 1.0) == "elsewhere"
    assert blame.aside == {A: "ECC"}
    assert not blame.is_aside(B)


def test_a_fault_of_yesterday_is_forgotten():
    blame = Blame()
    blame.device(A, "s1", "ECC", ALL, 0.0)
    blame.device(A, "s2", "ECC", ALL, 90_000.0)
    assert blame.aside == {}


def test_the_last_place_is_never_set_aside_and_the_job_ends_where_nothing_is_finished():
    blame = Blame()
    verdicts = [blame.device(A, f"s{at}", "ECC", (A,), at) for at in range(6)]
    assert verdicts == ["elsewhere"] * 5 + ["fatal"]
    assert blame.aside == {}


def test_a_last_place_that_finishes_shards_goes_on_for_ever():
    blame = Blame()
    for at in range(50):
        assert blame.device(A, f"s{at}", "ECC", (A,), at) == "elsewhere"
        blame.finished(f"t{at}", A)


def test_a_shard_that_fails_on_two_nodes_is_to_blame_and_the_first_node_is_not():
    blame = Blame()
    blame.device(A, "bad", "device-side assert", ALL, 0.0)
    blame.device(A, "bad", "device-side assert", ALL, 1.0)
    assert blame.is_aside(A)
    assert blame.device(B, "bad", "device-side assert", ALL, 2.0) == "failed"
    assert blame.aside == {}


def test_on_one_node_a_shard_is_to_blame_after_three():
    blame = Blame()
    verdicts = [blame.device(A, "bad", "assert", (A,), at) for at in range(3)]
    assert verdicts == ["elsewhere", "elsewhere", "failed"]


def test_of_a_node_with_several_gpus_the_broken_one_is_set_aside():
    blame = Blame()
    blame.device(GPUS[2], "s1", "ECC", (*GPUS, B), 0.0)
    blame.device(GPUS[2], "s1", "ECC", (*GPUS, B), 1.0)
    assert [blame.is_aside(one) for one in GPUS] == [False, False, True, False]


def test_a_node_whose_second_gpu_fails_is_set_aside_as_a_whole():
    blame = Blame()
    blame.device(GPUS[2], "s1", "Xid", (*GPUS, B), 0.0)
    blame.device(GPUS[0], "s2", "Xid", (*GPUS, B), 1.0)
    assert all(blame.is_aside(one) for one in GPUS)
    assert not blame.is_aside(B)


def test_a_broken_gpu_of_the_only_node_is_set_aside_alone():
    blame = Blame()
    for at in range(2):
        blame.device(GPUS[1], "s1", "ECC", GPUS, at)
        blame.device(GPUS[3], f"t{at}", "ECC", GPUS, at)
    assert [blame.is_aside(one) for one in GPUS] == [False, True, False, True]


def test_a_set_up_is_wrong_only_where_different_nodes_say_so():
    blame = Blame()
    assert blame.setup(A, "", "no module", ALL, 0.0) == "elsewhere"
    assert blame.setup(A, "", "no module", ALL, 1.0) == "elsewhere", "the same node agrees to much"
    assert blame.setup(B, "", "no module", ALL, 2.0) == "fatal"


def test_a_set_up_that_another_node_could_use_is_that_nodes_fault():
    blame = Blame()
    blame.built(C)
    for at, place in enumerate((A, B, A, B)):
        assert blame.setup(place, "", "no module", ALL, at) == "elsewhere"
    assert set(blame.aside) == {A, B}


def test_a_set_up_that_the_only_node_cannot_use_is_fatal_at_once():
    assert Blame().setup(A, "", "no module", (A,), 0.0) == "fatal"
    assert Blame().setup(A, "s1", "No space left", (A,), 0.0) == "fatal"


def test_a_second_actor_of_the_only_node_that_cannot_be_built_does_not_end_the_first():
    blame = Blame()
    blame.built(A)
    assert blame.setup(A, "", "memory", (A,), 0.0) == "elsewhere"


def test_one_shards_configuration_error_is_not_the_jobs():
    """A shard that two nodes refuse, while they take all others, is listed."""
    blame = Blame()
    blame.built(A), blame.built(B)
    assert blame.setup(A, "odd", "another provenance", ALL, 0.0) == "elsewhere"
    assert blame.setup(B, "odd", "another provenance", ALL, 1.0) == "failed"
    assert blame.setup(A, "s1", "refused", ALL, 2.0) == "elsewhere"
    assert blame.setup(B, "s2", "refused", ALL, 3.0) == "fatal", "two nodes, two shards"


def test_code_that_fails_with_every_shard_is_not_the_shards_fault():
    blame = Blame()
    assert [blame.code(A, f"s{at}", (A,)) for at in range(8)] == ["failed"] * 7 + ["fatal"]
    for early in (Blame(num_finished=1), Blame()):
        early.finished("ok", A)
        assert {early.code(A, f"s{at}", (A,)) for at in range(20)} == {"failed"}
    apart = Blame()
    assert {apart.code(A, f"s{at}", ALL) for at in range(20)} == {"failed"}, "one node of three"
    assert apart.code(B, "s0", ALL) == "fatal"


def test_a_shard_whose_actor_dies_is_given_up_after_three_on_one_node():
    blame = Blame()
    assert [blame.death(A, "bad", n, (A,), n) for n in (1, 2, 3)] == ["wait", "wait", "final"]


def test_a_shard_whose_actor_dies_is_tried_on_another_node_before_it_is_given_up():
    blame = Blame()
    assert [blame.death(A, "bad", n, ALL, n) for n in (1, 2, 3)] == ["wait", "wait", "failed"]
    assert blame.aside == {}, "one shard tells nothing of the node"
    assert blame.death(B, "bad", 1, ALL, 4) == "final"


def test_a_node_where_actors_die_of_several_shards_is_set_aside():
    blame = Blame()
    for at in range(6):
        blame.death(A, f"s{at // 3}", at % 3 + 1, ALL, at)
    assert set(blame.aside) == {A}


def ask(blame, shard, now_s, refused=False, at=A, others=(A,), said=SKEW):
    return blame.storage(at, shard, said, others, now_s, refused=refused, wait_s=1800.0)


def test_storage_that_is_away_for_all_is_waited_for_and_not_for_ever():
    blame = Blame()
    for now_s in range(0, 1800, 100):
        assert {ask(blame, shard, now_s) for shard in ("s1", "s2")} == {"wait"}
    assert ask(blame, "s1", 1800) == "away"


def test_storage_that_refuses_all_is_given_up_sooner():
    blame = Blame()
    assert ask(blame, "s1", 0, refused=True) == ask(blame, "s2", 1, refused=True) == "wait"
    assert ask(blame, "s1", REFUSED_S - 1, refused=True) == "wait"
    assert ask(blame, "s1", REFUSED_S, refused=True) == "away"


def test_storage_that_came_back_is_waited_for_afresh():
    blame = Blame()
    ask(blame, "s1", 0), ask(blame, "s2", 0)
    blame.finished("s1", A), blame.finished("s2", A)
    assert blame.storage_since_s is None
    assert ask(blame, "s3", 5000) == "wait"
    assert ask(blame, "s4", 6000) == "wait"


def test_an_object_that_alone_is_refused_is_the_shards():
    blame = Blame()
    assert ask(blame, "bad", 0, refused=True) == "wait"
    for at in range(9):
        blame.finished(f"s{at}", A)
    assert ask(blame, "bad", 10, refused=True) == "wait"
    assert ask(blame, "bad", 25, refused=True) == "failed"


def test_a_node_that_storage_refuses_alone_is_set_aside_and_the_others_go_on():
    """Its clock is far off: its actors cannot be built, and would hold their shards for ever."""
    blame = Blame()
    assert ask(blame, "", 0, True, A, ALL) == "wait"
    blame.finished("s1", B)
    assert ask(blame, "", 19, True, A, ALL) == "wait"
    assert ask(blame, "", 21, True, A, ALL) == "wait", "s1 may be of before all were refused"
    blame.finished("s2", B)
    assert ask(blame, "", 30, True, A, ALL) == "elsewhere"
    assert blame.aside == {}, "once is no proof"
    assert ask(blame, "", 36, True, A, ALL) == "elsewhere"
    assert blame.aside == {A: SKEW}


def test_a_clock_that_goes_off_in_the_middle_costs_its_node_and_no_shard_its_last_try():
    blame, verdicts = Blame(), []
    for now_s in range(0, 90, 5):
        blame.finished(f"s{now_s}", B)
        shard = f"t{now_s // 30 % 2 + 2 * (now_s >= 45)}"
        verdicts.append(ask(blame, shard, now_s, True, A, ALL))
        if blame.aside:
            break
    assert verdicts.count("failed") <= 2
    assert verdicts[-2:] == ["elsewhere"] * 2
    assert set(blame.aside) == {A}


def test_a_node_that_is_refused_while_nobody_else_asks_is_to_blame_after_a_while():
    """The others are done with what there was for them, and could do this too."""
    blame = Blame()
    blame.finished("s1", B)
    verdicts = [ask(blame, "", now_s, True, A, ALL) for now_s in (0, 20, 40, 60, 61)]
    assert verdicts == ["wait"] * 3 + ["elsewhere"] * 2
    assert set(blame.aside) == {A}


def test_a_second_node_that_is_refused_alone_is_to_blame_as_the_first_was():
    """The first, which is set aside and asks no more, is nobody else who is refused."""
    blame = Blame()
    for at, begin_s in ((A, 0), (B, 100)):
        for now_s in (0, 60, 61):
            ask(blame, "", begin_s + now_s, True, at, ALL)
    assert set(blame.aside) == {A, B}


def test_shards_that_nobody_may_read_set_no_node_aside_and_are_given_up():
    """An actor works through a block of them, while all other shards are finished elsewhere."""
    blame, left, now_s = Blame(), [f"s{one}" for one in range(32)], 0.0
    while left:
        now_s += 1.0
        for one in (B, C):
            blame.finished(f"good-{now_s}-{one.node}", one)
        verdict = ask(blame, left[0], now_s, True, A, ALL, DENIED)
        assert verdict in ("wait", "failed")
        if verdict == "failed":
            left.pop(0)
    assert blame.aside == {}


def test_a_node_that_may_not_read_what_others_read_is_set_aside():
    """Its role lacks a right: shards that it gave up were finished by the others."""
    blame, now_s, verdicts = Blame(), 0.0, []
    while not blame.aside:
        assert now_s < 200.0
        now_s += 1.0
        shard = f"s{verdicts.count('failed')}"
        blame.finished(f"good-{now_s}", B)
        verdicts.append(ask(blame, shard, now_s, True, A, ALL, DENIED))
        if verdicts[-1] == "failed":
            blame.finished(shard, C)
    assert set(blame.aside) == {A}
    assert verdicts.count("failed") <= 4


def test_a_token_that_expires_everywhere_sets_nobody_aside():
    """Some are refused a few seconds before the others, which finish what they have meanwhile."""
    blame = Blame()
    for now_s in range(0, int(REFUSED_S) - 10, 5):
        if now_s < 15:
            blame.finished(f"s{now_s}", B)
        places = (A, C) if now_s < 15 else ALL
        assert {ask(blame, "", now_s, True, at, ALL) for at in places} == {"wait"}
    assert blame.aside == {}
    blame.finished("s1", A)
    assert blame.storage_since_s is None


def test_a_node_alone_waits_for_what_refuses_it():
    blame = Blame()
    assert {ask(blame, "", now_s, refused=True) for now_s in range(0, 290, 10)} == {"wait"}
    assert ask(blame, "", REFUSED_S, refused=True) == "away"


def test_storage_that_does_not_answer_one_node_is_not_taken_for_a_refusal():
    blame = Blame()
    for now_s in range(0, 600, 10):
        blame.finished(f"s{now_s}", B)
        assert ask(blame, "", now_s, False, A, ALL) == "wait"


def test_a_lone_actor_tries_another_shard_before_it_waits_for_long():
    blame = Blame()
    assert ask(blame, "s1", 0) == "wait"
    assert ask(blame, "s1", 61) == "failed"
    assert ask(blame, "s2", 62) == ask(blame, "s2", 500) == "wait", "now it is no single object"
    assert ask(blame, "s2", 1800) == "away"


def test_a_shard_is_tried_by_three_pools_and_given_back_for_nothing():
    rounds = Rounds(3)
    assert rounds.failed("a")
    rounds.returned("b")
    assert rounds.again() == ["a", "b"]
    assert rounds.failed("a")
    assert rounds.again() == ["a"]
    assert not rounds.failed("a")
    assert rounds.again() == []
    assert rounds.num_failed == 2


def test_pools_that_only_give_back_end():
    rounds = Rounds(3)
    for _ in range(2):
        rounds.returned("a")
        assert rounds.again() == ["a"]
    rounds.returned("a")
    with pytest.raises(RaygradError, match="1 shards that places which are set aside"):
        rounds.again()
