import os
import stat

from raygrad.data import storage


def test_what_is_written_can_be_read_by_whom_the_umask_lets(tmp_path):
    """An atomic write leaves the same permissions as an ordinary one."""
    ordinary = tmp_path / "ordinary"
    ordinary.write_bytes(b"")
    storage.write_bytes(str(tmp_path / "atomic"), b"")
    modes = {stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("ordinary", "atomic")}
    assert len(modes) == 1
