"""Networks are trained with a loss by name, their checkpoints say it, and scores are by it."""

import copy
import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raygrad.config import ScoreConfig, TrainConfig
from raygrad.engine.score.networks import NetworkScorer
from raygrad.errors import ConfigError
from raygrad.pipeline.score_loss import loss_provenance, score_loss
from raygrad.scoring.oracle import loop_grad_norms
from raygrad.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from raygrad.training.data_order import DataOrder
from raygrad.training.losses import build_loss, check_named_loss
from raygrad.training.models import build_network
from raygrad.training.outside import NetworkSource
from raygrad.training.preprocess import Normalize
from raygrad.training.probe import Probe
from tests.training.test_loop import SPEC, make_loop, weights

HERE = "tests.training.test_losses"


def squared(logits, labels):
    return (logits.softmax(1) - F.one_hot(labels, logits.shape[1])).square().sum(1)


class Centres(nn.Module):
    """A loss with a point for each class, which it would have to learn."""

    def __init__(self):
        super().__init__()
        self.at = nn.Parameter(torch.randn(3, 3))

    def forward(self, logits, labels):
        return (logits - self.at[labels]).square().sum(1)


centres = Centres()
centred = centres.forward
partly = functools.partial(centres)
fixed = Centres().requires_grad_(False)


def mean(logits, labels):
    return F.cross_entropy(logits, labels)


def headed(spec):
    """A network of which only the head learns."""
    network = build_network("mlp", spec, 0)
    for parameter in list(network.parameters())[:-2]:
        parameter.requires_grad_(False)
    return network


@pytest.mark.parametrize("name", ["label_smoothing=0.2", f"{HERE}:squared", "focal"])
def test_a_step_is_the_mean_gradient_of_the_named_loss(name):
    loop = make_loop(
        "mlp", n=20, momentum=0.0, weight_decay=0.0, epochs=1, lr_decay_epochs=(), loss=name
    )
    network, loss = copy.deepcopy(loop._network).train(), build_loss(name)
    order, train = DataOrder(20, 16, seed=5), loop._train
    for step in range(2):
        at = torch.from_numpy(order.batch(step))
        values = loss(network(loop._normalize(train.images[at])), train.labels[at])
        gradients = torch.autograd.grad(values.mean(), list(network.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter -= 0.05 * gradient
    loop.run()
    expected = torch.cat([p.detach().flatten() for p in network.parameters()])
    torch.testing.assert_close(weights(loop), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (f"{HERE}:mean", "sum over examples"),
        (f"{HERE}:missing", "loss must name a callable"),
        ("class_weights=1,2", "must be 3"),
        ("entropy", "loss must be one of"),
    ],
)
def test_what_is_no_loss_of_the_network_is_refused_before_an_update(name, text):
    with pytest.raises(ConfigError, match=text):
        make_loop("mlp", loss=name).run()


def test_the_probe_measures_the_loss_that_is_trained_with():
    loop = make_loop("mlp", epochs=1, loss="focal")
    probe = Probe(loop._train, loop._normalize, 6, 3, "focal")
    loop._observers = (probe,)
    loop.run()
    network, at = copy.deepcopy(loop._network).double().eval(), torch.from_numpy(probe.positions)
    images = loop._normalize(loop._train.images[at]).double()
    exact = loop_grad_norms(
        network, images, loop._train.labels[at], ("grad_l2_weights",), loss="focal"
    )
    table = probe.table([f"k{i}" for i in range(50)])
    np.testing.assert_allclose(table["grad_l2_weights"], exact["grad_l2_weights"], rtol=2e-4)


def _saved(folder, name, loss=None):
    weights = build_network("mlp", SPEC, 0).state_dict()
    checkpoint = Checkpoint("mlp", SPEC, Normalize((0.5,), (0.5,)), weights)
    if loss is not None:
        checkpoint = Checkpoint("mlp", SPEC, Normalize((0.5,), (0.5,)), weights, loss)
    save_checkpoint(str(folder / name), checkpoint)
    return str(folder / name)


def test_the_checkpoint_says_the_loss_and_old_ones_keep_their_digest(tmp_path):
    plain = load_checkpoint(_saved(tmp_path, "plain.pt"))
    focal = load_checkpoint(_saved(tmp_path, "focal.pt", "focal"))
    assert (plain.loss, focal.loss) == ("cross_entropy", "focal")
    assert plain.digest() != focal.digest()
    values = torch.load(tmp_path / "plain.pt", weights_only=True)
    del values["loss"]
    torch.save(values, tmp_path / "old.pt")
    old = load_checkpoint(str(tmp_path / "old.pt"))
    assert old.loss == "cross_entropy"
    assert old.digest() == plain.digest()


def test_scores_are_by_the_loss_of_the_checkpoint_unless_another_is_named(tmp_path, caplog):
    def sources(*urls):
        return [NetworkSource("mlp", SPEC, url) for url in urls]

    plain, focal = _saved(tmp_path, "plain.pt"), _saved(tmp_path, "focal.pt", "focal")
    bare = str(tmp_path / "bare.pt")
    torch.save(build_network("mlp", SPEC, 0).state_dict(), bare)
    assert score_loss(ScoreConfig(), sources(focal)) == "focal"
    assert score_loss(ScoreConfig(), sources(plain, bare)) == "cross_entropy"
    assert score_loss(ScoreConfig(), sources(None)) == "cross_entropy"
    assert "though" not in caplog.text
    assert score_loss(ScoreConfig(loss="focal=1"), sources(focal)) == "focal=1"
    assert "by the loss focal=1, though trained with focal" in caplog.text
    with pytest.raises(ConfigError, match="got cross_entropy, focal"):
        score_loss(ScoreConfig(), sources(plain, focal))


def test_the_provenance_says_the_loss_and_what_is_trainable(tmp_path):
    """And nothing of either where nothing is new, so that old tables stay valid."""
    config = ScoreConfig(columns=("grad_l2_trainable", "loss"))
    whole, head = NetworkSource("mlp", SPEC), NetworkSource(f"{HERE}:headed", SPEC)
    assert loss_provenance(ScoreConfig(), "cross_entropy", [whole]) == {}
    assert loss_provenance(ScoreConfig(), "focal", [whole]) == {"loss": "focal"}
    said = [loss_provenance(config, "focal", [one])["trainable"] for one in (whole, head)]
    assert said[0] != said[1]


def test_the_scoring_job_scores_by_the_loss_and_over_what_is_trainable():
    network = headed(SPEC).eval()
    images = np.random.default_rng(0).integers(0, 256, (6, 1, 8, 8), dtype=np.uint8)
    labels, normalize = np.arange(6) % 3, Normalize((0.5,), (0.5,))
    columns = ("grad_l2_all", "grad_l2_trainable", "loss", "grand")
    name = f"{HERE}:squared"
    found = NetworkScorer([network], normalize, columns, loss=name).score(images, labels)
    x, y = normalize(torch.from_numpy(images)), torch.from_numpy(labels)
    exact = loop_grad_norms(network, x, y, columns[:2], loss=squared)
    for column in columns[:2]:
        np.testing.assert_allclose(found[column], exact[column], rtol=1e-5)
    np.testing.assert_allclose(found["grand"], found["grad_l2_all"])
    np.testing.assert_allclose(found["loss"], squared(network(x), y).detach(), rtol=1e-5)
    assert (found["grad_l2_trainable"] < found["grad_l2_all"]).all()
    assert TrainConfig().loss == "cross_entropy"


@pytest.mark.parametrize("name", ["centres", "centred", "partly"])
def test_a_loss_that_would_have_to_learn_is_refused_for_training_alone(name):
    """No optimizer has its parameters; frozen ones are numbers like others, and scores take all."""
    for begin in (lambda n: check_named_loss(n, 3), lambda n: make_loop("mlp", n=20, loss=n)):
        with pytest.raises(ConfigError, match=f"'at' of '{HERE}:{name}', which would never"):
            begin(f"{HERE}:{name}")
        begin(f"{HERE}:fixed")
    build_loss(f"{HERE}:{name}")
