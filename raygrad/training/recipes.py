"""How each network is trained on each data set: one frozen configuration a pair.

The paper (Vodrahalli, Li and Malik 2018, arXiv 1811.12569) gives the networks, the batch of the
training step as the unit of its Figure 1, 50 epochs with one decay at epoch 30 on MNIST (Figure 2)
and two decays on CIFAR (Figure 5). What it leaves open is chosen here once, on validation
accuracy alone.
"""

from dataclasses import replace

from raygrad.config import TrainConfig
from raygrad.errors import ConfigError, unknown_name
from raygrad.training.own_code import imported

_MNIST = TrainConfig(
    network="cnn",
    epochs=50,
    batch_size=128,
    # At 0.05 a run diverged in epoch 29, after 28 good ones.
    learning_rate=0.02,
    weight_decay=5e-4,
    lr_decay_epochs=(30,),
    # Long enough that no plateau before the decay ends the training.
    patience=25,
    augment="shift",
    augment_pixels=2,
    dynamics=True,
    probe_size=512,
    bound_epochs=(1, 10, 30, 50),
    channels_last=True,
)
_CIFAR = TrainConfig(
    network="cnn5",
    epochs=100,
    batch_size=128,
    learning_rate=0.05,
    weight_decay=5e-4,
    lr_decay_epochs=(50, 75),
    patience=40,
    augment="shift_flip",
    augment_pixels=4,
    dynamics=True,
    probe_size=512,
    bound_epochs=(1, 50, 75, 100),
)
_IMAGENET = TrainConfig(
    network="vgg16",
    epochs=90,
    batch_size=256,
    learning_rate=0.01,
    weight_decay=5e-4,
    lr_decay_epochs=(30, 60),
    patience=30,
    augment="photo_crop",
    # Runs of 128 photographs, 14 MB, which S3 gives in one request.
    shuffle_buffer=2**15,
    numerics="bf16",
    channels_last=True,
    dynamics=True,
    probe_size=512,
    bound_epochs=(1, 30, 60, 90),
    save_interval_s=300.0,
)
_DIGITS = TrainConfig(
    network="cnn",
    epochs=30,
    batch_size=32,
    optimizer="adamw",
    learning_rate=2e-3,
    dynamics=True,
    probe_size=512,
    bound_epochs=(1, 10, 30),
)

_VGG_ON_CIFAR = replace(
    _CIFAR, network="vgg16_32", epochs=200, lr_decay_epochs=(100, 150), warmup_epochs=5.0,
    patience=80, numerics="bf16", channels_last=True, bound_epochs=(1, 100, 150, 200),
)  # fmt: skip
# Not the paper's: the network, Muon's rates and momenta, label smoothing, the moves by 2 and the
# alternating mirroring are published for it (github.com/KellerJordan/cifar10-airbench, MIT licence;
# arXiv 2404.00498) at 8 epochs in batches of 2,000. Here batches are of 500, so that a tenth of the
# data still has updates: rates of sgd are divided by 4, Muon's by 2, and half of the epochs see
# images of 24 pixels, for half of the work. Six epochs, for time: 89.1% on validation by the mean
# of six trainings on JPEG files; ten came to 89.5% in one.
_FAST_ON_CIFAR = TrainConfig(
    network="airbench94",
    epochs=6,
    batch_size=500,
    loss="label_smoothing=0.2",
    optimizer="muon",
    learning_rate=0.12,
    momentum=0.8,
    weight_decay=1e-3,
    rest_learning_rate=26.5,
    # The published rate is of weights that are 256 times these.
    last_layer_learning_rate=0.67 * 500 / 256**2,
    rest_momentum=0.85,
    schedule="linear",
    lr_decay_epochs=(),
    augment="alternating_flip+shift",
    augment_pixels=2,
    augment_fill="reflect",
    small_epochs=3,
    patience=10,
    dynamics=True,
    probe_size=512,
    bound_epochs=(1, 6),
    # Of 500 images each.
    bound_batches=10,
    channels_last=True,
)
_LINEAR_ON_CIFAR = replace(_CIFAR, network="linear", learning_rate=0.005, augment="none")

RECIPES: dict[str, dict[str, TrainConfig]] = {
    "digits": {
        "cnn": _DIGITS,
        "mlp": replace(_DIGITS, network="mlp"),
        "linear": replace(_DIGITS, network="linear"),
    },
    "mnist": {
        "cnn": _MNIST,
        "mlp": replace(_MNIST, network="mlp"),
        # A linear network has nowhere to learn that a moved digit is the same digit.
        "linear": replace(_MNIST, network="linear", learning_rate=0.01, augment="none"),
    },
    "cifar10": {
        "cnn5": _CIFAR,
        "vgg16_32": _VGG_ON_CIFAR,
        "linear": _LINEAR_ON_CIFAR,
        "airbench94": _FAST_ON_CIFAR,
    },
    "cifar100": {"cnn5": _CIFAR, "vgg16_32": _VGG_ON_CIFAR, "linear": _LINEAR_ON_CIFAR},
    "imagenet": {"vgg16": _IMAGENET, "alexnet": replace(_IMAGENET, network="alexnet")},
}
"""Recipes by data set, then by network."""


def recipe(data_set: str, network: str) -> TrainConfig:
    """Returns how a network is trained on a data set; change fields with `dataclasses.replace`.

    Args:
        data_set: digits, mnist, cifar10, cifar100 or imagenet.
        network: A network that the data set has a recipe for.

    Raises:
        ConfigError: There is no such recipe; the error names those that there are.
    """
    if data_set not in RECIPES:
        raise ConfigError(unknown_name("data set of a recipe", data_set, RECIPES))
    if network not in RECIPES[data_set]:
        raise ConfigError(
            unknown_name(f"network of a recipe for {data_set}", network, RECIPES[data_set])
            + " Or write a TrainConfig of your own."
        )
    return RECIPES[data_set][network]


def named_recipe(name: str) -> TrainConfig:
    """Returns the recipe of a name such as `mnist/cnn`: data set, then network; or your own.

    Args:
        name: A name, or `module:name` of a `TrainConfig` of your own, or of a function without
            arguments that returns one.

    Raises:
        ConfigError: There is no such recipe; the error names those that there are.
    """
    if ":" in name:
        return _own_recipe(name)
    names = [f"{data_set}/{network}" for data_set, of in RECIPES.items() for network in of]
    if name not in names:
        raise ConfigError(unknown_name("recipe", name, names))
    return recipe(*name.split("/"))


def _own_recipe(name: str) -> TrainConfig:
    found = imported(name, "recipe")
    try:
        made = found() if callable(found) else found
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        made = f"{type(error).__name__}: {error}"
    if isinstance(made, TrainConfig):
        return made
    got = made if isinstance(made, str) else f"a {type(made).__name__}"
    raise ConfigError(
        f"recipe {name!r} must be a raygrad.config.TrainConfig, or a function without arguments "
        f"that returns one, got {got}. Write 'def mine(): return TrainConfig(epochs=90)'."
    )
