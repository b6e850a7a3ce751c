"""What the heads of saved models say of the task, and whether they are for the task of the data."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..tasks import Task, task_of_architecture, TASKS
from .architecture import architecture_in, config_in
from .task import task_in


def task_of_heads(cfg: DictConfig) -> str | None:
    """The name of the task that the configuration of teacher or student says, if it says one.

    The class of a model does not: one head of transformers serves several tasks.
    """
    for role in ("teacher", "student"):
        path = OmegaConf.select(cfg, f"{role}.path")
        kind, architecture = config_in(path).get("problem_type"), architecture_in(path)
        if kind is None or architecture is None:
            continue
        found = task_of_architecture(architecture, str(kind))
        if found.problem_type == kind:
            return found.name
    return None


def check_heads(cfg: DictConfig) -> None:
    """Refuse a saved teacher whose head is for another task than the data's.

    Raises:
        ValueError: naming the class of the teacher, and what to type.
    """
    task, path = task_in(cfg), OmegaConf.select(cfg, "teacher.path")
    if task is None or OmegaConf.select(cfg, "teacher.auto_class") is not None:
        return
    check_head("teacher.path", path, task)


def check_head(name: str, path: Any, task: Task) -> None:
    """Refuse a saved model whose head is for another task.

    Args:
        name: of the setting that names it.
        path: where it is; a name on the hub is not looked at.
        task: the data's.

    Raises:
        ValueError: naming the class of the model, and what to type.
    """
    architecture = architecture_in(path)
    if architecture is None or not task.needs_head or task.serves(architecture):
        return
    serving = [known for known in TASKS if known.needs_head and known.serves(architecture)]
    if not serving and "For" not in architecture:
        # A body without a head: what it lacks is said when it is loaded.
        return
    made_for = f", whose head is for {serving[0].name}" if serving else ""
    own = f" Data of its own task: data.task={serving[0].name}." if serving else ""
    raise ValueError(
        f"{name}={path} holds a {architecture}{made_for}, and the data has task={task.name}. "
        "Train one for this task first: lightning-distill job=finetune student=pretrained "
        f"student.path={path} data=..., which makes a fresh head.{own}"
    )
