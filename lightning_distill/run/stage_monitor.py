"""What each stage of a run goes by, which need not be what the run does, and its callbacks."""

from collections.abc import Mapping

from hydra.errors import InstantiationException
from omegaconf import DictConfig, open_dict
from torchmetrics import Metric

from ..error_message import message_of
from .check_callbacks import check_callbacks, check_goes_by
from .monitor import settle_monitor
from .objective import build_objective
from .stage_settings import name_of, settings_of


def settle_stages(cfg: DictConfig, metrics: Mapping[str, Metric]) -> None:
    """Say of each stage that has a monitor of its own what is best of it, where the entry does not.

    A run without a list is one stage.

    Args:
        cfg: the run's configuration, with its own monitor settled; its stages are changed in place.
        metrics: by name.

    Raises:
        ValueError: naming a stage that does not measure what it goes by, or whose callbacks cannot
            be made or do not go together.
    """
    if cfg.get("stages") is None:
        check_callbacks(cfg)
        check_goes_by(cfg, metrics)
    for number, entry in enumerate(cfg.get("stages") or (), 1):
        own, where = goes_by(cfg, entry), f"In stage {name_of(entry, number)!r}"
        if "mode" in entry and "monitor" not in entry and own.monitor != cfg.monitor:
            raise ValueError(
                f"{where}: `mode` is {entry.mode!r} and there is no `monitor`. The stage compares "
                "layers alone, and goes by val/loss. Say which figure is meant, as in "
                f"monitor:{cfg.monitor},mode:{entry.mode}, or leave `mode` out."
            )
        try:
            settle_monitor(own, metrics)
        except ValueError as error:
            advice = "" if "monitor" in entry else " Give the stage one of its own."
            raise ValueError(f"{where}: {error}{advice}") from error
        try:
            check_callbacks(own)
            check_goes_by(own, metrics)
        except (ValueError, InstantiationException) as error:
            raise ValueError(f"{where}: {message_of(error)}") from error
        if "monitor" in entry:
            with open_dict(entry):
                entry.monitor, entry.mode = own.monitor, own.mode


def goes_by(cfg: DictConfig, entry: DictConfig) -> DictConfig:
    """The configuration of a stage, and in it what the stage goes by.

    Args:
        cfg: the run's configuration.
        entry: of the list.
    """
    own = settings_of(cfg, entry)
    if "monitor" in entry:
        if "mode" not in entry and entry.monitor != cfg.monitor:
            # That of the run is of another figure.
            own.mode = None
    elif all(source.is_inner for source in build_objective(own).sources("student")):
        # What it predicts has nothing to do with what it learns yet.
        own.monitor, own.mode = "val/loss", "min"
    return own
