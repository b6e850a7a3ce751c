"""Which data module an experiment chooses, before a configuration is composed."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from omegaconf import OmegaConf


def is_named(typed: Mapping[str, str], setting: str) -> bool:
    """Whether it is said already which data module has a setting.

    `data=` says it, a run that is gone on with or looked at, and an experiment whose own has it.

    Args:
        typed: the overrides of a command.
        setting: of data modules, as `train`.
    """
    if {"data", "job.run"} & typed.keys() or typed.get("resume"):
        return True
    if "experiment" not in typed:
        return False
    data = data_of_experiment(typed["experiment"])
    # Of an experiment that is not ours nothing is known.
    # To OmegaConf a key whose value is missing is not there.
    return data is None or setting in [*_packaged(f"data/{data}")]


def data_of_experiment(name: str | None) -> str | None:
    """The data module that an experiment chooses; `None` if it is none of ours, or several."""
    recipe, main = _packaged(f"experiment/{name}"), _packaged("main")
    if recipe is None:
        return None
    chosen = [entry for node in (main, recipe) for entry in node.get("defaults", [])]
    named = [e for e in chosen if OmegaConf.is_dict(e)]
    return str([*(e[key] for e in named for key in ("data", "override /data") if key in e)][-1])


def _packaged(name: str) -> Any:
    file = files("lightning_distill.conf") / f"{name}.yaml"
    return OmegaConf.create(file.read_text(encoding="utf-8")) if file.is_file() else None
