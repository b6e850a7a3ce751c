"""The key `quantization`, which every student may have, whatever makes it."""

import copy
from typing import Any

from omegaconf import DictConfig, open_dict

from ..quantization_schemes import Quantization, quantization_of, SCALES
from .student_vocabulary import without_vocabulary

KEY = "quantization"


def without_quantization(
    node: Any, where: str = "student"
) -> tuple[DictConfig, Quantization | None]:
    """What makes a student of full precision, and how that shall be quantised.

    Args:
        node: the configuration of a student.
        where: it stands.

    Raises:
        ValueError: for a scheme that there is not.
    """
    plain = copy.deepcopy(DictConfig(node) if isinstance(node, dict) else node)
    if KEY not in plain:
        return plain, None
    with open_dict(plain):
        return plain, quantization_of(plain.pop(KEY), f"{where}.{KEY}")


def inner_student(node: Any, where: str) -> DictConfig:
    """What makes the student that another one is made of, which is not quantised by itself.

    Args:
        node: its configuration.
        where: it stands, as in `student.of`.

    Raises:
        ValueError: if it says a quantisation of its own, or fewer tokens.
    """
    plain, how = without_quantization(node, where)
    if how is not None:
        raise ValueError(
            f"{where}.{KEY} is {how.scheme.name}; the whole student is quantised, and not the one "
            f"that it is made of: set {where.partition('.')[0]}.{KEY}."
        )
    inner: DictConfig = without_vocabulary(plain, where)
    return inner


def check_rounds(cfg: DictConfig, entry: DictConfig, where: str, is_last: bool) -> None:
    """Refuse a stage that says without sense whether the student's weights are rounded.

    Args:
        cfg: the run's configuration.
        entry: of the stage.
        where: it stands, as in `stages[0]`.
        is_last: whether no stage comes after it.

    Raises:
        ValueError: for what is neither true nor false, and for false of a student that is not
            quantised, whose scales alone are trained, or that no later stage would quantise.
    """
    if KEY not in entry:
        return
    value, how = entry[KEY], quantization_of(cfg.student.get(KEY))
    if not isinstance(value, bool):
        raise ValueError(
            f"{where}.{KEY} must be true or false, got {value!r}: a stage says whether the student "
            "rounds its weights in it, and student.quantization how."
        )
    if value:
        return
    if how is None:
        raise ValueError(
            f"{where}.{KEY} is false, and the student is not quantised in any stage: set "
            "student.quantization, as in student.quantization=int8, or leave that out."
        )
    if how.train == SCALES:
        raise ValueError(
            f"{where}.{KEY} is false, and of the student only scales are trained, which it does "
            "without then: set student.quantization.train to weights."
        )
    if is_last:
        raise ValueError(
            f"{where}.{KEY} is false in the last stage: the student would be rounded when it is "
            "used, and its weights were not trained for that. Let a stage with rounding follow."
        )
