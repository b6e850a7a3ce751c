"""In which numbers of fewer bits a model can compute: names and settings, without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from .extras import check_extra

# What is trained of a student that is quantised while it learns.
WEIGHTS, SCALES = "weights", "scales"
TRAINED = (WEIGHTS, SCALES)
KEYS = ("scheme", "train")


@dataclass(frozen=True)
class Scheme:
    """How linear layers are rounded.

    Attributes:
        name: as it is typed, and of the files that are written.
        bits: of a weight, which is a whole number times a scale.
        group: so many weights of an output share a scale; `None` is all of an output. A layer whose
            inputs are no multiple of it has one scale for each output.
        activations: whether what comes into a layer is rounded to 8 bits, too, with a scale and a
            zero point for each token, so that padding and other rows change nothing.
    """

    name: str
    bits: int
    group: int | None
    activations: bool


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("int8", 8, None, activations=True),
        Scheme("int8_weights", 8, None, activations=False),
        Scheme("int4", 4, 32, activations=True),
        Scheme("int4_weights", 4, 32, activations=False),
    )
}


@dataclass(frozen=True)
class Quantization:
    """How a student is quantised while it is trained.

    Attributes:
        scheme: how its layers are rounded.
        train: `weights`, whose scales follow from them in each step, or `scales`: all else stays.
    """

    scheme: Scheme
    train: str = WEIGHTS


def scheme_named(name: Any, where: str = "`quantization`") -> Scheme:
    """The scheme of this name.

    Args:
        name: one of `SCHEMES`.
        where: what the user has set.

    Raises:
        ValueError: if there is none of this name.
    """
    if isinstance(name, str) and name in SCHEMES:
        return SCHEMES[name]
    raise ValueError(f"{where} must be {', '.join(SCHEMES)} or null, got {name!r}.{_near(name)}")


def quantization_of(value: Any, where: str = "student.quantization") -> Quantization | None:
    """What a user has typed: a scheme, or `{scheme: int4, train: scales}`; `None` for null.

    Raises:
        ValueError: for another scheme or key, or another word for what is trained.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return Quantization(scheme_named(value, where))
    given = {str(key): value[key] for key in value}
    for key in given:
        if key not in KEYS:
            near = get_close_matches(key, KEYS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ValueError(f"{where} takes {' and '.join(KEYS)}, got {key!r}.{hint}")
    train = given.get("train", WEIGHTS)
    if train not in TRAINED:
        near = get_close_matches(str(train), TRAINED, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(f"{where}.train must be {' or '.join(TRAINED)}, got {train!r}.{hint}")
    return Quantization(scheme_named(given.get("scheme"), f"{where}.scheme"), train)


def check_torchao(where: str) -> None:
    """Refuse at once what would fail when a teacher is trained already.

    Raises:
        ValueError: if torchao is not installed.
    """
    check_extra(where, "quantization", "torchao", otherwise="leave it null")


def _near(name: Any) -> str:
    near = get_close_matches(str(name), SCHEMES, n=1, cutoff=0.5)
    return f" Did you mean {near[0]}?" if near else ""
