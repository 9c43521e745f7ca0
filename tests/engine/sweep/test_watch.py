"""What the driver of a sweep says while its trials run."""

from types import SimpleNamespace

from raygrad.engine.sweep import watch
from raygrad.runs.result_rows import ResultRows
from raygrad.training.trial import Trial


def test_a_sweep_of_long_trials_says_that_they_run(tmp_path, caplog, monkeypatch):
    """A trial may take hours; without a word its sweep could not be told from one that hangs."""
    clock = [100.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: clock[0])
    trials = [
        Trial("linear", None, None, "random", share, 10, 0, "equal_epochs", f"{share}", "c")
        for share in (0.1, 0.2, 0.3)
    ]
    waiting = SimpleNamespace(over=lambda: None, still=lambda: None)
    rows = ResultRows(str(tmp_path), str(tmp_path / "results.parquet"))
    seen = watch.Watch(rows, str(tmp_path), trials, waiting, 2)
    two = [
        SimpleNamespace(config={"position": at}, status="RUNNING", is_finished=lambda: False)
        for at in (0, 1)
    ]
    caplog.set_level("INFO")
    seen.on_trial_start(1, two, two[0])
    clock[0] += 30
    seen.on_trial_start(1, two, two[1])
    seen.on_step_begin(1, two)
    assert caplog.messages == []
    clock[0] += 35
    for _ in range(3):
        seen.on_step_begin(1, two)
    assert caplog.messages == ["sweep: 0 of 3 trials, 2 running, the longest for 65 s"]
