"""A real study of the digits, computed once a session, and its report."""

from pathlib import Path

import pytest

from tests.report import study


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory) -> Path:
    """The run folder of two networks, two protocols and three seeds."""
    return study.write_run(tmp_path_factory.mktemp("study") / "digits")


@pytest.fixture(scope="session")
def report_url(run_folder, tmp_path_factory) -> str:
    """The report of that run, beside it."""
    from raygrad.report import write_report

    return write_report([str(run_folder)], str(tmp_path_factory.mktemp("report")))


@pytest.fixture(scope="session")
def small_run_folder(tmp_path_factory) -> Path:
    """One network, one protocol: a run whose report is soon made."""
    folder = tmp_path_factory.mktemp("study") / "small"
    return study.write_run(folder, networks=("linear",), protocols=("equal_epochs",))
