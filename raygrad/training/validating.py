"""How often training is validated: an epoch is chosen on validation, so it must be looked at."""

MIN_VALIDATIONS = 20
"""How often a retraining is validated at least, whatever the size of its subset: a small one, of a
few steps an epoch, would else be judged by a handful of looks or stopped before it has learned."""


def validation_epochs(
    validation_steps: int, steps_per_epoch: int, epochs: int, min_validations: int = 0
) -> int:
    """Returns how many epochs lie from one validation to the next, at least 1.

    Args:
        validation_steps: Steps that lie between two validations at least.
        steps_per_epoch: Steps of an epoch.
        epochs: Epochs at most.
        min_validations: How many validations there must be in them; where there are fewer epochs,
            each is validated. It goes before `validation_steps`.
    """
    wanted = -(-validation_steps // steps_per_epoch)
    return max(1, min(wanted, epochs // min_validations)) if min_validations else wanted
