"""What callbacks and the scheduler of a training need, looked at before it begins."""

from collections.abc import Iterator, Mapping

from omegaconf import DictConfig
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import Metric

from ..allowed_names import PACKAGES
from .call import group
from .objective import build_objective
from .sparsity import build_sparsity
from .targets import find_target
from .trainer import build_callbacks


def check_callbacks(cfg: DictConfig) -> None:
    """Refuse callbacks that cannot be made, or that do not go with `sparsity`.

    Args:
        cfg: the configuration of a run, or of one of its stages, with its monitor settled.

    Raises:
        ValueError: as the callback says.
    """
    callbacks = build_callbacks(cfg)
    for sparsity in build_sparsity(cfg):
        sparsity.check_beside(callbacks)


def check_goes_by(cfg: DictConfig, metrics: Mapping[str, Metric]) -> None:
    """Refuse callbacks and a scheduler that wait for a figure of the validation that there is not.

    Args:
        cfg: the configuration of a run, or of one of its stages, with its monitor settled.
        metrics: by name.

    Raises:
        ValueError: naming the setting, and the figures that there are.
    """
    if not _logs_alone(cfg):
        # Code of the user's own may log more.
        return
    objective = build_objective(cfg)
    names = [f"val/{name}" for name in [*metrics, "loss", *objective.terms, *objective.sums]]
    for where, monitor in _monitors(cfg):
        if monitor.startswith("val") and monitor.partition("/dataloader_idx_")[0] not in names:
            raise ValueError(
                f"{where} must be one of {', '.join(dict.fromkeys(names))}, got {monitor!r}."
            )


def _monitors(cfg: DictConfig) -> Iterator[tuple[str, str]]:
    """The figures that parts of the training wait for, and where that is said."""
    for name, node in group(cfg, "callbacks").items():
        # One that is not strict does without.
        if node is not None and node.get("monitor") is not None and node.get("strict", True):
            yield f"callbacks.{name}.monitor", str(node.monitor)
    node = cfg.get("scheduler")
    if node is not None and node.get("monitor") is not None and _is_plateau(node):
        yield "scheduler.monitor", str(node.monitor)


def _is_plateau(node: DictConfig) -> bool:
    # No other scheduler looks at a figure.
    return find_target(node.get("_target_"), "scheduler._target_") is ReduceLROnPlateau


def _logs_alone(cfg: DictConfig) -> bool:
    """Whether no code of the user's own may log anything."""
    nodes = [cfg.get("module"), *group(cfg, "callbacks").values()]
    targets = [str(node.get("_target_")) for node in nodes if node is not None]
    return all(target.partition(".")[0] in PACKAGES for target in targets)
