"""What all tests of stages have in common."""

import pytest

from tests.report.no_pictures import no_pictures


@pytest.fixture(scope="module", autouse=True)
def _no_pictures():
    """The report at a study's end is looked at by its tables and words; see tests/report."""
    with no_pictures():
        yield
