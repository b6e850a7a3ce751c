"""A live teacher whose answers are kept while the student learns."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from ..data.data import DataFacts
from ..teachers import CachingTeacher, pretrained
from .call import call, known


def caching_teacher(
    cfg: DictConfig,
    data: Any,
    of: Any,
    path: str | None = None,
    auto_class: str | None = None,
    folder: str | None = None,
    rehearse: Any = None,
    **options: Any,
) -> CachingTeacher:
    """The teacher that `of` or `path` names, which answers every row once.

    Args:
        cfg: the run's configuration.
        data: the data module.
        of: the configuration of a teacher, for when `path` names none.
        path: of a pretrained teacher.
        auto_class: as for a pretrained teacher.
        folder: where the answers are kept; `answers` in the run's directory by default.
        rehearse: given to a teacher that is yet to be trained.
        options: of [`CachingTeacher`][lightning_distill.teachers.CachingTeacher].
    """
    if path is not None:
        teacher = pretrained(path, auto_class)
    else:
        teacher = call(DictConfig(of), known(data, cfg=cfg, rehearse=rehearse), "teacher.of")
    where = Path(folder) if folder else Path(str(cfg.output_dir)) / "answers"
    facts = DataFacts(data)
    return CachingTeacher(
        teacher, where, views=facts.views, preprocessing=facts.preprocessing, **options
    )
