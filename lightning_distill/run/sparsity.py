"""Which weights of the student become 0, as the configuration says."""

from typing import Any

from omegaconf import DictConfig

from ..sparsity import KeptSparsity, Sparsity
from .call import group
from .targets import instantiate

KEPT = {"_target_": f"{KeptSparsity.__module__.rpartition('.')[0]}.{KeptSparsity.__name__}"}


def kept_after(before: Any) -> Any:
    """What keeps the zeros of a stage in the next one; `None` if it had none.

    Args:
        before: how the stage made weights 0.
    """
    return {**KEPT, "layers": before.get("layers")} if before else None


def build_sparsity(cfg: DictConfig) -> list[Sparsity]:
    """The callback that `cfg.sparsity` names, or none.

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
    return [made]
