"""What can be found wrong in the terms of an objective before models are loaded."""

import inspect
from collections.abc import Iterator
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from omegaconf import DictConfig, OmegaConf

from .allowed_names import OURS
from .check_values import check_number

CRITERIA = f"{OURS}.criteria"


def check_terms(criteria: Any) -> None:
    """Refuse values of terms that no other value can make right, and try the criteria themselves.

    Args:
        criteria: the terms by name, as they were composed; values that refer to others are left.

    Raises:
        ValueError: naming the key, what it must be and what it is.
    """
    nodes = {k: node for k, node in (criteria or {}).items() if OmegaConf.is_dict(node)}
    for name, node in nodes.items():
        weight = _plain(node, "weight")
        if weight is not None and not isinstance(weight, dict):
            check_number(f"criteria.{name}.weight", weight, least=0)
        criterion = node.get("criterion")
        if OmegaConf.is_dict(criterion) and str(criterion.get("_target_")).startswith(OURS):
            temperature = _plain(criterion, "temperature")
            if not isinstance(temperature, dict):
                # The most common slip; the others wait for torch.
                key = f"criteria.{name}.criterion.temperature"
                check_number(key, temperature, above=0)
    for name, node in nodes.items():
        for key in ("criterion", "temperature"):
            if OmegaConf.is_dict(OmegaConf.select(node, key)):
                _try_criterion(f"criteria.{name}.{key}", node[key])


def _plain(node: DictConfig, key: str) -> Any:
    """A value that refers to no other; `None` for one that does."""
    # `in` would follow a reference.
    if key not in [*node] or OmegaConf.is_interpolation(node, key):
        return None
    value = None if OmegaConf.is_missing(node, key) else node[key]
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _try_criterion(where: str, node: DictConfig) -> None:
    """Make one of ours with the values that stand there, as far as they refer to no others."""
    room, _, kind = str(node.get("_target_")).rpartition(".")
    if room != CRITERIA:
        return
    cls = getattr(import_module(CRITERIA), kind, None)
    if not isinstance(cls, type):
        # Whoever makes it says what there is.
        return
    given = {str(k): _plain(node, str(k)) for k in node if not str(k).startswith("_")}
    refer = [k for k in given if OmegaConf.is_interpolation(node, k)]
    if any(_is_made(value) for value in given.values()):
        return
    taken = inspect.signature(cls).parameters
    unknown = [key for key in given if key not in taken]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        near = get_close_matches(unknown[0], [*taken], n=3)
        listed = ", ".join(near or taken) or "nothing"
        raise ValueError(f"{kind} takes no {unknown[0]!r}. It takes {listed}. (in {where})")
    needed = [n for n, p in taken.items() if p.default is p.empty and n not in given]
    if needed or any(taken[k].default is inspect.Parameter.empty for k in refer if k in taken):
        return
    try:
        cls(**{k: v for k, v in given.items() if k not in refer})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{error} (in {where})") from error


def _is_made(value: Any) -> bool:
    """Whether an object is made by `_target_` anywhere in a value."""
    return any(key == "_target_" for key in _keys(value))


def _keys(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _keys(inner)
