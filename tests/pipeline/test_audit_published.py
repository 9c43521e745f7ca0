"""An audit's backbone of published weights is shown images as those weights want it."""

import pytest

from raygrad.config.auditing import AuditConfig
from raygrad.errors import ConfigError
from raygrad.pipeline.auditing import _shown
from raygrad.training.pretrained import PRETRAINED

FACTS = {"channels": 3, "num_classes": 10}


def test_size_mean_and_classes_are_the_published_ones_and_a_size_can_be_given(caplog):
    with caplog.at_level("INFO", "raygrad"):
        shown = _shown(AuditConfig(network="vit_b_16", checkpoint=PRETRAINED), "vit_b_16", FACTS)
    assert "published weights ViT_B_16_Weights.IMAGENET1K_V1, at 224 pixels" in caplog.text
    assert (shown.source.checkpoint_url, shown.source.spec.num_classes) == (PRETRAINED, 1000)
    assert shown.preprocess.transform.crop == 224
    assert shown.preprocess.normalize.mean == (0.485, 0.456, 0.406)
    options = AuditConfig(network="resnet18", checkpoint=PRETRAINED, image_size=64)
    assert _shown(options, "resnet18", FACTS).preprocess.transform.crop == 64


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"mean": (0.5, 0.5, 0.5)}, FACTS),
        ({"num_classes": 10}, FACTS),
        ({}, FACTS | {"channels": 1}),
    ],
)
def test_what_the_weights_do_not_want_is_refused(options, facts):
    config = AuditConfig(network="resnet18", checkpoint=PRETRAINED, **options)
    with pytest.raises(ConfigError, match=r"their own mean and std.*Leave those flags"):
        _shown(config, "resnet18", facts)
