"""The task of a run."""

from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from ..tasks import Task, task_named, task_of_architecture, TASKS
from .architecture import architecture_in
from .targets import instantiate


def task_in(cfg: DictConfig) -> Task | None:
    """The task that `cfg.task` names, or makes by `_target_`; `None` if the data has said none."""
    node = cfg.get("task")
    if node is None:
        return None
    return made_task(node)


def made_task(node: Any) -> Task:
    """The task of this name, or the one that a configuration makes by `_target_`."""
    return task_named(instantiate(node) if OmegaConf.is_config(node) else node)


def note_task(cfg: DictConfig, data: Any) -> None:
    """Write the task of the data into `cfg.task`: its name, or how it is made.

    Raises:
        ValueError: if another one is there already.
    """
    if getattr(data, "task", None) is None:
        return
    task = task_named(data.task)
    given = task_in(cfg)
    if given is not None and given != task:
        raise ValueError(f"task={given.name}, but the data has task={task.name}.")
    node = OmegaConf.select(cfg, "data.task")
    made = {"_target_": f"{type(task).__module__}.{type(task).__qualname__}"}
    with open_dict(cfg):
        if task in TASKS:
            cfg.task = task.name
        else:
            cfg.task = node.copy() if OmegaConf.is_config(node) else made
    if made_task(cfg.task) != task:
        raise ValueError(
            f"{type(data).__name__} makes its task with settings of its own, which the run's "
            f"configuration cannot repeat: it has {task!r}. Let the data module take it as an "
            "argument, as in data.task={_target_: mine.MyTask, ...}."
        )


def auto_class_of(task: Any, path: Any = None, otherwise: str | None = None) -> str:
    """The `Auto` class of transformers for a task, and for the class of a saved model.

    Args:
        task: a task or its name; `None` is that of the model.
        path: a folder that `save_pretrained` wrote, if there is one.
        otherwise: the name of the class, or its ending, where the folder does not say it.
    """
    name = (None if path is None else architecture_in(path)) or otherwise
    known = task_of_architecture(name or "") if task is None else task_named(task)
    return known.auto_class(name)
