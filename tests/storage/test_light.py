"""What a run on a disk does not use is not imported: seconds of CPU in each of Ray's processes."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from raygrad.storage.when_used import WhenUsed

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
        WhenUsed("raygrad.nothing")


def test_threads_that_come_first_together_meet_one_module(tmp_path, monkeypatch):
    """It is run once, and nobody sees it half done."""
    code = "import time\ntime.sleep(0.2)\nclass Made: pass\n"
    (tmp_path / "slow_to_come.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    module = WhenUsed("slow_to_come")
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: module.Made, range(8)))
    assert len(made) == 1
