"""What an audit's check says of leaving examples out."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from raygrad import pipeline
from raygrad.config import DataConfig, StudyConfig
from raygrad.config.auditing import AuditConfig
from raygrad.pipeline import audit_checking, audit_judging, auditing
from raygrad.pipeline.audit_checking import Check
from raygrad.training.models import ImageSpec
from tests.pipeline.making_runs import without_ray


def check(kept, others):
    right = {"all": others, "kept": kept, "random": others}
    return Check(
        {name: np.array([of], bool) for name, of in right.items()}, dict.fromkeys(right, 9)
    )


@pytest.mark.parametrize(("number", "half"), [(10, 0.26), (1000, 0.003)])
def test_sets_that_agree_on_every_test_image_may_differ_on_others(number, half):
    """An interval of width 0 would say that ten images prove what a thousand cannot."""
    same = check([True] * number, [True] * number).summary()["kept_less_all"]
    assert same["mean"] == 0
    assert (-same["low"], same["high"]) == pytest.approx((half, half), rel=0.01)


def test_sets_that_differ_have_the_interval_of_their_differences():
    found = check([True] * 8 + [False] * 2, [True] * 9 + [False]).summary()["kept_less_all"]
    assert found["mean"] == pytest.approx(-0.1)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * np.sqrt(0.1 / 10))


OWN = "import torch\ndef net(spec):\n    side = spec.channels * spec.height * spec.width\n" + (
    "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(side, spec.num_classes))\n"
)


@pytest.fixture
def own_network(tmp_path, monkeypatch):
    """The file of a user's own network, importable, and forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "auditednet.py").write_text(OWN)
    yield tmp_path / "auditednet.py"
    sys.modules.pop("auditednet", None)


def test_no_training_or_look_of_other_code_answers_for_a_network(
    own_network, tmp_path, monkeypatch
):
    """Folds, checks and looks that are kept are of the code that they were made with."""
    without_ray(monkeypatch)
    made = {"judging": 0, "checking": 0}
    for name, module in (("judging", audit_judging), ("checking", audit_checking)):

        def counted(*given, name=name, train=module.judged_fold):
            made[name] += 1
            return train(*given)

        monkeypatch.setattr(module, "judged_fold", counted)
    config = StudyConfig(str(tmp_path / "run"), data=DataConfig(source="digits", max_examples=200))
    pipeline.bind(config)
    pipeline.prepare(config)
    options = AuditConfig(network="auditednet:net", folds=2, epochs=1, check=True)
    pipeline.audit(config, options)
    assert made == {"judging": 2, "checking": 9}
    pipeline.audit(config, replace(options, keep_fraction=0.5))
    assert made["judging"] == 2, "the folds are those of before"
    own_network.write_text(OWN + "# another\n")
    made |= {"judging": 0, "checking": 0}
    pipeline.audit(config, options)
    assert made == {"judging": 2, "checking": 9}

    torch.save(
        sys.modules["auditednet"].net(ImageSpec(1, 8, 8, 10)).state_dict(), tmp_path / "w.pt"
    )
    looks = []
    monkeypatch.setattr(auditing, "look", lambda *given: looks.append(given[-1]) or _stop())
    by_weights = replace(options, checkpoint=str(tmp_path / "w.pt"), image_size=8, num_classes=10)
    by_weights = replace(by_weights, epochs=AuditConfig.epochs, mean=(0.0,), std=(1.0,))
    for text in (OWN, OWN, OWN + "# another\n"):
        own_network.write_text(text)
        with pytest.raises(KeyboardInterrupt):
            pipeline.audit(config, by_weights)
    assert looks[0] == looks[1] != looks[2]


def _stop():
    raise KeyboardInterrupt
