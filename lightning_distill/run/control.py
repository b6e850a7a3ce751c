"""A control: a student that is taught with the teacher's answers to other rows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig
from torch import nn

from ..models.batch import batch_size
from ..teachers import Teacher
from .stages import Stage
from .trainer import module_learns_of_teacher

EXPLAINED = "control=true trains a student with the teacher's answers to other rows"


def check_control(
    cfg: DictConfig, stages: Sequence[Stage], teacher: nn.Module | None, data: Any
) -> None:
    """Refuse a control that would be none, before anything is trained.

    Args:
        cfg: the run's configuration.
        stages: of the run.
        teacher: of it.
        data: a data module that is set up.

    Raises:
        ValueError: saying why.
    """
    if teacher is None or not any(stage.learns_of_teacher for stage in stages):
        raise ValueError(
            f"{EXPLAINED}, and nothing here learns of a teacher. Choose one and a term that reads "
            "it, as in criteria=[hard_label,soft_target], or leave control=true out."
        )
    if any(module_learns_of_teacher(stage.cfg) for stage in stages):
        raise ValueError(
            f"{EXPLAINED}, and {cfg.module.get('_target_')} takes more of the teacher than its "
            "answers. Leave control=true out."
        )
    if batch_size(next(iter(data.train_dataloader()))) < 2:
        raise ValueError(
            f"{EXPLAINED} of the same batch, and a batch has one row. Write data.batch_size=2 or "
            "more, with trainer.accumulate_grad_batches if memory is short."
        )


@contextmanager
def answers_to_other_rows(teacher: nn.Module) -> Iterator[nn.Module]:
    """While it lasts, each row that is trained on is given the teacher's answer to another one."""
    one = Teacher.of(teacher)
    one.answers_other_rows = True
    try:
        yield one
    finally:
        one.answers_other_rows = False
