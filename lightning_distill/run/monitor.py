"""What a training goes by: the figure that chooses its best weights, and which way is better."""

from collections.abc import Mapping

from omegaconf import DictConfig
from torchmetrics import Metric

from ..metrics.traits import best_mode
from .call import group


def settle_monitor(cfg: DictConfig, metrics: Mapping[str, Metric]) -> None:
    """Set `cfg.monitor` and `cfg.mode` where they are null: the first metric, its best way.

    Args:
        cfg: the configuration of a run, or of one of its stages, changed in place.
        metrics: by name.

    Raises:
        ValueError: for a monitor that is measured by none, and for another mode.
    """
    monitored = str(cfg.monitor or f"val/{next(iter(metrics))}")
    name = monitored.removeprefix("val/")
    losses = ["loss", *[str(n) for n, node in group(cfg, "criteria").items() if node is not None]]
    if not monitored.startswith("val/") or name not in [*metrics, *losses]:
        choices = ", ".join(f"val/{n}" for n in [*metrics, *losses])
        raise ValueError(f"`monitor` must be one of {choices}, got {monitored!r}.")
    mode = cfg.mode
    if mode is None:
        mode = best_mode(metrics.get(name), "min" if name in losses else "max")
    if mode not in ("min", "max"):
        raise ValueError(f"`mode` must be min or max, got {mode!r}.")
    cfg.monitor, cfg.mode = monitored, mode
