"""The data of a run that is over, for a job that is given its directory."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from .read_config import check_expansion, read_config
from .resuming import CONFIG, go_to, record_of
from .stage import say
from .targets import check_targets, trust
from .typed import ALLOW, key_of, typed

# What a measurement is made of.
TAKEN = ("data", "task", "metrics", "monitor", "mode")


def take_data(cfg: DictConfig, run: Path) -> None:
    """Give a job the data, task and metrics of a run, where its user has typed no data.

    Args:
        cfg: the job's configuration, changed in place.
        run: a directory; nothing happens if it is that of no run.

    Raises:
        ValueError: for what a configuration may not name.
    """
    if not (run / CONFIG).is_file():
        return
    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    keys = [key_of(override) for override in given]
    if {"data", "experiment"} & {*keys}:
        say("Data", f"as typed, and not that of {run}")
        return
    # Single settings that were typed are set in the run's data.
    changed = {key: OmegaConf.select(cfg, key) for key in keys if key.startswith("data.")}
    groups = {key.partition(".")[0] for key in keys} - {"data"}
    saved = read_config(run / CONFIG)
    with open_dict(cfg):
        for name in TAKEN:
            if name not in groups and name in saved:
                cfg[name] = saved[name]
        for key, value in changed.items():
            OmegaConf.update(cfg, key, value, force_add=True)
    # What came with the run is not the user's own.
    trust(typed(cfg, ALLOW), run)
    check_expansion(cfg)
    check_targets(cfg)
    more = f", with {', '.join(changed)} as typed" if changed else ""
    say("Data", f"that of {run}{more}")
    go_to(record_of(run).get("folder"))
