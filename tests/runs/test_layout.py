"""Where things stand in a run folder, whatever networks are called."""

import json
from dataclasses import asdict

from raygrad.runs.journal import Entry, read_journal, recorded
from raygrad.runs.layout import RunLayout
from raygrad.storage import files
from raygrad.storage.manifest import read_marker, write_marker

TIMM = "train-timm/resnet18"


def test_a_stage_of_a_network_with_a_folder_in_its_name_is_listed_as_all_are(s3_url, tmp_path):
    for root in (s3_url, str(tmp_path)):
        layout = RunLayout(root)
        assert layout.marked() == []
        write_marker(layout.marker(TIMM), "d")
        write_marker(layout.marker("prepare"), "d")
        assert layout.marked() == ["prepare", "train-timm-resnet18"]
        assert len(files.list_files(files.join(root, "stages"), ".json")) == 2


def test_a_marker_that_an_older_raygrad_wrote_stays_where_it_is(tmp_path):
    layout = RunLayout(str(tmp_path))
    older = f"{tmp_path}/stages/{TIMM}.json"
    write_marker(older, "old")
    assert read_marker(layout.marker(TIMM))["inputs_digest"] == "old"
    assert layout.marked() == ["train-timm-resnet18"]
    files.remove(layout.marker(TIMM))
    assert layout.marked() == []
    write_marker(layout.marker(TIMM), "new")
    assert not files.exists(older)
    assert layout.marker("train-own:net").endswith("/train-own:net.json"), "as it always stood"


def test_the_journal_reads_what_stands_in_a_folder_of_its_own_too(tmp_path):
    url = str(tmp_path)
    with recorded(url, TIMM):
        pass
    assert len(files.list_files(url, ".json")) == 1
    entry = Entry("score-timm/resnet18", 1.0, 5.0, "complete", "p", "0.1.0")
    older = json.dumps(asdict(entry)).encode()
    files.write_bytes(f"{url}/19700101T000001-score-timm/resnet18-ab.json", older)
    assert [one.stage for one in read_journal(url)] == ["score-timm/resnet18", TIMM]
