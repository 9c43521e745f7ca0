"""A newcomer's own folder, network, loss and weights: what works, and the line for what does not.

Everything is scored in this process: what is under test does not depend on Ray.
"""

import re
import sys

import pytest
import torch
from torch import nn

from raygrad.cli import command as cli
from tests.data.making import example, jpeg, put
from tests.pipeline.making_runs import without_ray

NETS = """
import torch
from torch import nn
def ok(spec):
    flat = spec.channels * 16
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(flat, spec.num_classes))
def nothing(spec):
    pass
def raises(spec):
    raise RuntimeError("boom")
def grey(spec):
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.LazyLinear(spec.num_classes))
def one_logit(spec):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(spec.channels, 1))
number = 3
def loss(logits, labels):
    return nn.functional.cross_entropy(logits, labels, reduction="none")
def mean_loss(logits, labels):
    return nn.functional.cross_entropy(logits, labels)
def unary_loss(logits):
    return logits
"""

SCORE = "--image-size 16 --mean 0 0 0 --std 1 1 1 --run NEW"
OWN = f"score --data good.tar --network nets:ok {SCORE}"
FRESH = f"score --data good.tar {SCORE} --fresh-weights"

WORKS = [
    ("prepare photos --run NEW", "16 examples, 0 rejects"),
    ("prepare photos/ --run NEW", "are the test split"),
    ("index photos --run NEW", "16 examples, 0 rejects"),
    ("prepare image-folder photos --run NEW", "16 examples, 0 rejects"),
    ("prepare odd --run NEW", "16 examples, 0 rejects"),
    ("prepare one --run NEW", "every training example is of one class, cat"),
    ("index unicode.tar --run NEW", "no test split, which training needs: .*--test-tars"),
    ("index split/*.tar --run NEW", "1 of 2 training shards are called .*--test-tars"),
    ("index split --run NEW", "24 examples, 0 rejects"),
    (f"{OWN} --checkpoint ok.pt", "scaled to 16, cut to 16x16, minus 0 0 0, over 1 1 1"),
    (f"{OWN} --checkpoint lightning.pt", "12 examples scored"),
    (f"{OWN} --checkpoint ddp.pt", "12 examples scored"),
    (f"score --data photos --network nets:ok --checkpoint ok.pt {SCORE}", "16 examples scored"),
    (f"{FRESH} --network nets:ok --loss nets:loss", "know nothing of the data"),
]
"""What a newcomer does, and what of it is said."""

REFUSED = [
    ("prepare photos", "must be given --run or --out"),
    ("prepare nowhere --run NEW", "got 'nowhere'. .*name a folder"),
    ("prepare flat/ --run NEW", "class folders must be there"),
    ("prepare hollow/ --run NEW", "must have a file, got none in cat. Remove the folder"),
    ("prepare photos.zip --run NEW", "got photos.zip. Unpack"),
    ("prepare photos/cat/0.jpg --run NEW", "Unpack or convert it, and name the folder"),
    ("prepare --data-dir photos --run NEW", "got photos. .*raygrad prepare FOLDER"),
    ("prepare digits photos --run NEW", "must have no files of its own"),
    ("prepare digits --labels folder --run NEW", "labels must come with shards"),
    ("prepare photos --labels labels.csv --run NEW", "folders' names as labels"),
    ("prepare photos --run text.pt", "must be writable.*text.pt"),
    ("prepare photos --run text.pt/sub", "must be writable"),
    ("run --test-data good.tar --run NEW", "test_tars must come with shards"),
    ("prepare photos flat --run NEW", "got 'photos' and 'flat'. Name one"),
    ("index good.tar --test-fraction 0.5 --run NEW", "got 0.5 with shards, .*--test-tars"),
    ("index s3:/bucket/x.tar --run NEW", "Write 's3://bucket/x.tar'"),
    ("index ftp://host/x.tar --run NEW", "got 'ftp://host/x.tar'"),
    ("index good.tar good.tar --run NEW", "named once"),
    ("index good.tar --labels nowhere.csv --run NEW", "got nothing at nowhere.csv"),
    ("index good.tar --labels semicolon.csv --run NEW", "semicolon.csv:KEY:LABEL"),
    (f"{OWN} --checkpoint ok.pt ok.pt", "checkpoint must not repeat"),
    (f"{OWN} --checkpoint ok.pt --columns loss loss", "columns must not repeat"),
    (f"{OWN} --checkpoint five.pt", "2 misshapen .*--num-classes"),
    (f"{OWN} --checkpoint text.pt", "Save model.state_dict"),
    (f"{OWN} --checkpoint empty.pt", "got nothing that can be read, in .*state_dict"),
    (f"{OWN} --checkpoint whole.pt", "such as a whole model, in .*state_dict"),
    (f"{OWN} --checkpoint photos", "Is a directory at .*photos"),
    (f"{OWN} --checkpoint ok.pt --columns los", "Did you mean 'loss'"),
    (f"{FRESH} --network resnet18 --columns forgetting", "got 'forgetting'"),
    (f"{FRESH} --network nets:nothing", "got a NoneType back. Write 'def nothing"),
    (f"{FRESH} --network nets:raises", "got RuntimeError: boom"),
    (f"{FRESH} --network nets:grey", "must take images 3x16x16"),
    (f"{FRESH} --network nets:one_logit", "got [2, 1]. Give it num_classes=2"),
    (f"{FRESH} --network nets:number", "got a int, which builds none"),
    (f"{FRESH} --network nets.py:ok", "without .py: nets:ok"),
    (f"{FRESH} --network syntax:net", "invalid syntax"),
    (f"{FRESH} --network nets:ok --loss nets:mean_loss", "use reduction='sum' or 'none'"),
    (f"{FRESH} --network nets:ok --loss nets:unary_loss", "loss"),
    (f"score --data photos --channels 1 --network nets:ok --fresh-weights {SCORE}", "1 channels"),
    ("train PREPARED --network nets:ok --loss nets:mean_loss", "use reduction='sum' or 'none'"),
    ("train PREPARED --network nets:ok --loss nets:unary_loss", "must take logits"),
    ("train PREPARED --network nets:nothing", "got a NoneType back"),
    ("select", "must be given a run folder"),
    ("scores NEW", "run folder must exist"),
    ("status NEW", "run folder must exist"),
    ("export labels.csv --run NEW --out out", "run folder must exist"),
]
"""What a newcomer gets wrong, and what the one line says of it."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder as somebody has it, before the first command."""
    root = tmp_path_factory.mktemp("place")
    for at in range(8):
        for name in ("cat", "dog"):
            put(root, f"photos/{name}/{at}.jpg", jpeg(at))
        for name in ("Ätna 猫", 'dog\'s "best"'):
            put(root, f"odd/{name}/{at} é.jpg", jpeg(at))
        put(root, f"one/cat/{at}.jpg", jpeg(at))
        put(root, f"flat/{at}.jpg", jpeg(at))
    for name in ("cat", "dog"):
        (root / "hollow" / name).mkdir(parents=True)
    for tar, keys, label in (
        ("good.tar", "{}", "{}"), ("unicode.tar", "ключ {}", "猫{}"),
        ("split/train-0.tar", "{}", "{}"), ("split/test-0.tar", "x{}", "{}"),
    ):  # fmt: skip
        members = []
        for at in range(12):
            members += example(keys.format(at), label.format(at % 2), "jpg", jpeg(at))
        put(root, tar, members)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 2))
    weights = net.state_dict()
    torch.save(weights, root / "ok.pt")
    torch.save({"state_dict": weights, "epoch": 3}, root / "lightning.pt")
    torch.save({f"module.{name}": value for name, value in weights.items()}, root / "ddp.pt")
    torch.save(net, root / "whole.pt")
    torch.save({"2.weight": torch.zeros(5, 48), "2.bias": torch.zeros(5)}, root / "five.pt")
    for name, text in (
        ("text.pt", "x"), ("empty.pt", ""), ("photos.zip", "PK\x03\x04"), ("nets.py", NETS),
        ("syntax.py", "def net(:"), ("labels.csv", "key,label\n0,cat\n"),
        ("semicolon.csv", "a;b\n1;2\n"),
    ):  # fmt: skip
        (root / name).write_text(text)
    return root


@pytest.fixture
def said(place, tmp_path, monkeypatch, capsys):
    """Returns the exit status of a line, and what is said of it."""

    def do(line):
        line = line.replace("NEW", str(tmp_path / "new"))
        if "PREPARED" in line:
            line = line.replace("PREPARED", str(tmp_path / "prepared"))
            assert cli.main(["prepare", "photos", "--run", str(tmp_path / "prepared")]) == 0
        status = cli.main(line.split())
        return status, "".join(capsys.readouterr())

    without_ray(monkeypatch)
    monkeypatch.chdir(place)
    yield do
    for name in ("nets", "syntax"):
        sys.modules.pop(name, None)


def literal(text):
    """Returns a pattern in which brackets stand for themselves."""
    return re.sub(r"([()\[\]?])", r"\\\1", text)


@pytest.mark.parametrize(("line", "text"), WORKS)
def test_what_a_newcomer_does_works_twice_and_says_what_was_decided(line, text, said):
    status, words = said(line)
    assert status == 0, words
    assert re.search(literal(text), words)
    assert said(line)[0] == 0, "the same line again"


@pytest.mark.parametrize(("line", "text"), REFUSED)
def test_what_cannot_be_done_ends_in_one_line_that_names_the_remedy(line, text, said, tmp_path):
    status, words = said(line)
    assert status == 2, words
    assert "Traceback" not in words
    [last] = [one for one in words.splitlines() if one.startswith("raygrad: ")]
    assert re.search(literal(text), last)
    assert not (tmp_path / "new/config.json").exists() or line.startswith("score")


def test_a_loss_that_was_refused_binds_nothing(said):
    """The next line, with another, is not blamed for it."""
    assert said(f"{FRESH} --network nets:ok --loss nets:mean_loss")[0] == 2
    assert said(f"{FRESH} --network nets:ok --loss nets:loss")[0] == 0
