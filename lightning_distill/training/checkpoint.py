"""What a module's checkpoint holds beside Lightning's own, and how it is read again."""

import logging
from collections.abc import Mapping
from typing import Any

from torch import nn, Tensor

log = logging.getLogger("lightning_distill")

# Of Lightning, for the module and for the data module.
HYPER_PARAMETERS = ("hyper_parameters", "datamodule_hyper_parameters")
TYPES = ("hparams_type", "datamodule_hparams_type")


def without_objects(checkpoint: dict[str, Any]) -> list[str]:
    """Leave out hyper-parameters that are no plain values; in place.

    `save_hyperparameters` keeps whatever a constructor is given: models, metrics, factories. A
    checkpoint with a teacher in it is as large as the teacher, and one with any object cannot be
    read by `torch.load(..., weights_only=True)`.

    Returns:
        The names of those that were left out.
    """
    left_out = []
    for key in HYPER_PARAMETERS:
        if key in checkpoint:
            given = dict(checkpoint[key])
            checkpoint[key] = {name: v for name, v in given.items() if _is_plain(v)}
            left_out += [name for name in given if name not in checkpoint[key]]
    for key in TYPES:
        checkpoint.pop(key, None)
    return left_out


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        # Of the classes themselves: others are objects to `torch.load`.
        return type(value) is dict and all(map(_is_plain, [*value, *value.values()]))
    if isinstance(value, list | tuple | set):
        return type(value) in (list, tuple, set) and all(map(_is_plain, value))
    return type(value) in (type(None), bool, int, float, complex, str, bytes) or (
        type(value) is Tensor
    )


def held_back(module: nn.Module, state: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Take out of `state` what `module` builds only when it sees a batch.

    Args:
        module: some of whose parts are made later, such as adapters.
        state: of a checkpoint; changed in place.
        prefix: of the names of those parts.

    Returns:
        What was taken out, for [`put_back`][].
    """
    known = module.state_dict().keys()
    later = [name for name in state if name.startswith(prefix) and name not in known]
    return {name: state.pop(name) for name in later}


def put_back(module: nn.Module, later: dict[str, Any]) -> None:
    """Load what [`held_back`][] has taken, now that its parts are built.

    Raises:
        ValueError: if the parts are others than those of the checkpoint.
    """
    own = module.state_dict()
    wrong = [n for n, v in later.items() if n not in own or own[n].shape != v.shape]
    if wrong:
        raise ValueError(
            f"The checkpoint holds {', '.join(wrong)}, which this objective does not build in that "
            "shape for these models and this data. Load it with the terms that it was trained with."
        )
    module.load_state_dict(later, strict=False)


def check_same_teacher(checkpoint: Mapping[str, Any], fingerprint: str | None) -> None:
    """Refuse to go on with another teacher than the one that trained so far.

    Args:
        checkpoint: with the fingerprint of that one, if it had a teacher.
        fingerprint: of the teacher that is here.
    """
    saved = checkpoint.get("teacher_fingerprint")
    if saved is None or fingerprint is None or saved == fingerprint:
        return
    raise ValueError(
        f"This checkpoint was trained with another teacher (fingerprint {saved[:12]}, "
        f"this one is {fingerprint[:12]}). Resume with the same teacher, or start afresh "
        "from the student's weights."
    )
