"""Which weights of the student become 0, as the configuration says, and which stay so."""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig
from torch import nn

from ..sparsity import KeptSparsity, Sparsity
from ..sparsity.matrices import linear_layers, Matrices
from .call import group
from .targets import instantiate

KEPT = {"_target_": f"{KeptSparsity.__module__.rpartition('.')[0]}.{KeptSparsity.__name__}"}
# In the configuration of a stage that makes weights 0: the layers of which stages before did.
BEFORE = "layers_with_zeros"


def keep_zeros(cfg: DictConfig, before: Sequence[str], student: nn.Module) -> list[str]:
    """Let a stage keep the zeros of those before it; returns which layers have some after it.

    Args:
        cfg: of the stage, changed in place.
        before: paths of layers that have zeros when it begins.
        student: whose layers they are.

    Raises:
        ValueError: for layers that the student does not have.
    """
    own = [path for one in build_sparsity(cfg) for path in linear_layers(student, one.layers)]
    if own:
        cfg[BEFORE] = list(before)
    else:
        cfg.sparsity = {**KEPT, "layers": list(before)} if before else None
    return list(dict.fromkeys([*before, *own]))


def makes_zeros(cfg: DictConfig) -> bool:
    """Whether more weights become 0 in a training, or what is 0 only stays so.

    Args:
        cfg: of the training.
    """
    chosen = group(cfg, "sparsity")
    return bool(chosen) and chosen.get("_target_") != KEPT["_target_"]


def build_sparsity(cfg: DictConfig) -> list[Sparsity]:
    """The callback that `cfg.sparsity` names, and what keeps the zeros of stages before; or none.

    Raises:
        ValueError: if it makes something else.
    """
    # A run that is older than this key goes on as it was.
    if not group(cfg, "sparsity"):
        return []
    made: Any = instantiate(cfg.sparsity)
    if not isinstance(made, Sparsity):
        raise ValueError(
            f"`sparsity` must make a Sparsity, got a {type(made).__name__}: choose "
            "sparsity=magnitude or sparsity=movement."
        )
    # Behind it, so that what it gives back is 0 again.
    return [made, KeptSparsity(list(before))] if (before := cfg.get(BEFORE)) else [made]


def facts_of_zeros(cfg: DictConfig, student: nn.Module) -> dict[str, str]:
    """How many weights are 0 of all layers that have become sparse, for the report, if any have.

    Args:
        cfg: of the training, or of the last stage.
        student: as it is then.
    """
    layers = [path for one in build_sparsity(cfg) for path in one.check(student).weights]
    if not layers:
        return {}
    return {"weights that are 0": Matrices(student, layers, may_be_none=True).describe()}
