"""Settings that a line gives and that nothing of the run reads: refused by name at once.

Only what is given now is asked, for a run's stored settings, a recipe and a job's defaults may hold
more than one study needs.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raygrad.config import SelectConfig, StudyConfig, TrainConfig
from raygrad.errors import ConfigError


@dataclass(frozen=True)
class _Need:
    """Settings that mean something beside another one alone."""

    names: tuple[str, ...]
    is_met: Callable[[Any], bool]
    """Whether a section is one that reads them."""
    rule: str
    """What must be there."""
    remedy: str


_OF_SCORING = (
    _Need(
        ("num_classes", "image_size", "resize", "keep_aspect", "mean", "std"),
        lambda score: score.is_own,
        "of a network of your own",
        "Give its --network, or leave it: the network that the run trains sees images as they are.",
    ),
    _Need(
        ("weights_seed",),
        lambda score: score.fresh_weights or not (score.checkpoint or score.network is None),
        "of fresh weights",
        "Give --network and --fresh-weights, or leave it.",
    ),
)
_OF_TRAINING = (
    _Need(
        ("dynamics_epochs",),
        lambda train: train.dynamics,
        "of training dynamics",
        "Give --dynamics, or leave it.",
    ),
    _Need(
        ("bound_batches",),
        lambda train: bool(train.bound_epochs),
        "of epochs whose bound is measured",
        "Give --bound-epochs, or leave it.",
    ),
    _Need(
        ("small_size",),
        lambda train: train.small_epochs > 0,
        "of first epochs with small images",
        "Give --small-epochs, or leave it.",
    ),
    _Need(
        ("rest_learning_rate", "last_layer_learning_rate", "rest_momentum"),
        lambda train: train.optimizer == "muon",
        "of the optimizer muon",
        "Give --optimizer muon, or leave it.",
    ),
    _Need(
        ("cutout_pixels",),
        lambda train: "cutout" in train.augmentations,
        "of the augmentation cutout",
        "Name it: --augment; or leave it.",
    ),
    _Need(
        ("mixup_alpha",),
        lambda train: "mixup" in train.augmentations,
        "of the augmentation mixup",
        "Name it: --augment; or leave it.",
    ),
)
_OF_SELECTION = (
    _Need(
        ("drop_fraction",),
        lambda select: "non_extreme_max_gradient" in select.methods,
        "of the method non_extreme_max_gradient",
        "Name it: --methods; or leave it.",
    ),
    _Need(
        ("ccs_drop",),
        lambda select: "ccs" in select.methods,
        "of the method ccs",
        "Name it: --methods; or leave it.",
    ),
)
_NEEDS = {"score": _OF_SCORING, "train": _OF_TRAINING, "select": _OF_SELECTION}
_EPOCHS = ("keep_epochs", "bound_epochs")


def refuse_unused(now: Mapping[str, Any], was: StudyConfig) -> None:
    """Raises ConfigError where a setting is given that no stage would read.

    Args:
        now: Sections as they are asked for, by name; those that are not there are as they were.
        was: What the settings would be if nothing were given.
    """
    for section, needs in _NEEDS.items():
        if section in now:
            _refuse_unmet(now[section], getattr(was, section), needs)
    if "train" in now:
        _refuse_late_epochs(now["train"], was.train)
    if "select" in now:
        _refuse_options(now["select"], was.select)
        if now.get("score", was.score).is_own:
            for name in _given(now["select"], was.select, ("compare_networks",)):
                raise ConfigError(
                    f"{name} must be beside a network that the run trains, got "
                    f"{_shown(now['select'].compare_networks)} and scores of a network of your "
                    "own. Leave it, or score each of them in a run of its own."
                )


def refuse_selection_beside(subsets: Sequence[str], now: SelectConfig, was: SelectConfig) -> None:
    """Raises ConfigError where subsets are named and it is said, too, which are to be drawn.

    Args:
        subsets: Files of subsets that were made elsewhere.
        now: The selection that is asked for.
        was: The run's.
    """
    if not subsets:
        return
    for name in _given(now, was, [f.name for f in dataclasses.fields(now)]):
        raise ConfigError(
            f"{name} must be of subsets that are drawn, got {_shown(getattr(now, name))} with "
            f"{_shown(tuple(subsets))} in place of them. Leave one of the two."
        )


def refuse_beside_no_data(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises ConfigError where it is said how data are read, and none are named.

    Args:
        given: Settings by name.
        defaults: What each is where nothing is said.
    """
    for name, value in given.items():
        if value != defaults[name]:
            raise ConfigError(
                f"{name} must come with data of your own, got {_shown(value)} without. Name the "
                "data too, or leave it: what the run has was indexed before."
            )


def _refuse_unmet(now: Any, was: Any, needs: Sequence[_Need]) -> None:
    for need in needs:
        if need.is_met(now):
            continue
        for name in _given(now, was, need.names):
            value = _shown(getattr(now, name))
            raise ConfigError(f"{name} must be {need.rule}, got {value} without. {need.remedy}")


def _refuse_late_epochs(now: TrainConfig, was: TrainConfig) -> None:
    for name in _given(now, was, _EPOCHS):
        late = tuple(epoch for epoch in getattr(now, name) if epoch > now.epochs)
        if late:
            raise ConfigError(
                f"{name} must be among the {now.epochs} epochs of training, got {_shown(late)}. "
                "Name earlier ones, or give more --epochs."
            )


def _refuse_options(now: SelectConfig, was: SelectConfig) -> None:
    new = [option for option in now.options if option not in was.options]
    if not new:
        return
    from raygrad.selection.named import FLAGS_OF, check_method, parsed_options

    # What is no option at all is said as that.
    known = parsed_options(now.options)
    for option in new:
        name, _, _ = option.partition("=")
        method = name.partition(".")[0]
        if method not in now.methods and name not in FLAGS_OF:
            check_method(method, **known[method])
            raise ConfigError(
                f"options must be of methods that are asked for, got {option} without {method}. "
                "Name it: --methods; or leave it."
            )


def _given(now: Any, was: Any, names: Sequence[str]) -> Iterator[str]:
    """Yields the names of settings that are neither as they were nor as they are by default."""
    defaults = type(now)()
    for name in names:
        if getattr(now, name) not in (getattr(was, name), getattr(defaults, name)):
            yield name


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
