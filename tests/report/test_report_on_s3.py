import shutil
from pathlib import Path

import pytest

from raygrad.report import write_report
from raygrad.storage.files import list_files, read_bytes, write_bytes


@pytest.mark.slow
def test_a_run_on_s3_gives_the_same_report_as_on_disk(small_run_folder, tmp_path, s3_url):
    """The same tables, figures and thumbnails; only the run's own address differs."""
    local = tmp_path / "local"
    shutil.copytree(small_run_folder, local)
    expected = Path(write_report([str(local)]))
    run = f"{s3_url}/runs/local"
    for path in sorted(p for p in local.rglob("*") if p.is_file() and "report" not in p.parts):
        write_bytes(f"{run}/{path.relative_to(local)}", path.read_bytes())
    url = write_report([run])
    assert url == f"{run}/report/index.html"
    page = read_bytes(url).decode()
    assert 'id="figure-images"' in page
    assert page.replace(run, str(local)) == expected.read_text()
    written = {u.rpartition("/")[2]: read_bytes(u) for u in list_files(f"{run}/report/figures")}
    on_disk = {p.name: p.read_bytes() for p in (expected.parent / "figures").iterdir()}
    assert written == on_disk
