"""What a run on a disk does not use is not imported: seconds of CPU in each of Ray's processes."""

import subprocess
import sys

import pytest

from raygrad.storage.when_used import when_used

ON_A_DISK = """
import sys
from raygrad.data import index, reading
from raygrad.storage import files
files.exists("/tmp")
before = "boto3" in sys.modules
from raygrad.storage import s3
print(before, s3.S3File is files.s3.S3File, "boto3" in sys.modules)
"""


def test_boto3_comes_with_the_first_use_of_s3():
    ran = subprocess.run([sys.executable, "-c", ON_A_DISK], capture_output=True, text=True)
    assert ran.stdout.split() == ["False", "True", "True"], ran.stderr


def test_a_module_that_is_not_there_is_said_at_once():
    with pytest.raises(ModuleNotFoundError, match=r"got raygrad\.nothing"):
        when_used("raygrad.nothing")
    assert when_used("sys") is sys
