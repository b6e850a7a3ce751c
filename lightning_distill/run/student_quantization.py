"""The key `quantization`, which every student may have, whatever makes it."""

import copy
from typing import Any

from omegaconf import DictConfig, open_dict

from ..quantization_schemes import Quantization, quantization_of

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
        ValueError: if it says a quantisation of its own.
    """
    plain, how = without_quantization(node, where)
    if how is not None:
        raise ValueError(
            f"{where}.{KEY} is {how.scheme.name}; the whole student is quantised, and not the one "
            f"that it is made of: set {where.partition('.')[0]}.{KEY}."
        )
    return plain
