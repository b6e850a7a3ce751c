"""Metrics and criteria by default give way to those of the task, where nobody has chosen any."""

import logging
from importlib.resources import files
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from ..data.data import DataFacts
from ..metrics.traits import needs_teacher
from ..tasks import Task
from .call import group
from .targets import find_target
from .task import task_in

log = logging.getLogger("lightning_distill")


def follow_task(cfg: DictConfig, name: str, data: Any = None) -> None:
    """Put the task's members of a group in the place of the defaults of `conf/main.yaml`.

    Where a user has chosen some, or set a value of one, they stay. Where whole rows have labels
    too, those of these are added.

    Args:
        cfg: the run's configuration, of which it is known which task it has.
        name: of the group, `metrics` or `criteria`.
        data: the data module.
    """
    task = task_in(cfg)
    defaults: tuple[str, ...] = getattr(Task, name)
    of_task: tuple[str, ...] = () if task is None else getattr(task, name)
    if task is not None and DataFacts(data).has_row_labels:
        of_task += getattr(task, f"row_{name}")
    nodes = group(cfg, name)
    if task is None or of_task == defaults or not nodes or not set(nodes) <= {*defaults}:
        return
    # As they are written: what they refer to is no part of the packaged ones.
    written: Any = OmegaConf.to_container(nodes)
    touched = [k for k, node in written.items() if node not in (None, packaged(name, str(k)))]
    if touched or _are_chosen(name):
        return
    off = [key for key, node in nodes.items() if node is None]
    chosen = {key: None if key in off else packaged(name, key) for key in of_task}
    if any(_compares(packaged(name, str(key))) for key in off):
        # A job without a teacher has switched off what compares with one, of the defaults.
        chosen = {key: None if node and _compares(node) else node for key, node in chosen.items()}
    with open_dict(cfg):
        cfg[name] = chosen
    log.info("%s: %s, for data.task=%s", name.capitalize(), ", ".join(of_task), task.name)


def _compares(node: Any) -> bool:
    return needs_teacher(find_target(str(node["_target_"])), node)


def packaged(group_name: str, name: str) -> Any:
    """The member of a group that has this name, as `conf/` has it."""
    return choice(group_name, name)[name]


def choice(group_name: str, name: str) -> Any:
    """What the file of a choice says, as `conf/` has it; `None` if there is no such choice."""
    path = files("lightning_distill.conf") / group_name / f"{name}.yaml"
    if not name.isidentifier() or not path.is_file():
        return None
    written: Any = OmegaConf.to_container(OmegaConf.create(path.read_text(encoding="utf-8")))
    return written


def _are_chosen(name: str) -> bool:
    """Whether the user has typed which members of a group to take."""
    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return any(override.lstrip("+").startswith(f"{name}=") for override in typed)
