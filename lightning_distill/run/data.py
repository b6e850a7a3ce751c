"""The data module of a run."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import lightning as L
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from ..data.data import check_trainable, DataFacts, LOADERS, longest_target, token_lengths
from ..models.configuration import longest_input
from ..models.embeddings import check_largest_id
from ..models.hugging_face import check_path
from .cached_teacher import tokenizer_path
from .feature_extractors import take_feature_extractors
from .follow_task import follow_task
from .heads import check_heads, task_of_heads
from .image_processors import take_image_processors
from .student_vocabulary import asks_for_fewer_tokens, with_fewer_tokens
from .targets import instantiate
from .task import note_task
from .tokenizers import brings_tokenizer, folder_of_arguments
from .vocabularies import share_ids

log = logging.getLogger("lightning_distill")


def build_data(cfg: DictConfig, loaders: Sequence[str] = LOADERS, taught: bool = True) -> Any:
    """Load the data, and write what it says of itself into `cfg`.

    That is `task`, `num_labels`, `num_row_labels`, where whole rows have labels beside those of
    their words, and `num_rows`, the number of training rows.

    The student's tokenizer is its own if it is pretrained, else the teacher's, else one that
    is trained on the data. A student that knows fewer tokens than its teacher has one that is cut
    out of the teacher's.

    Args:
        cfg: the run's configuration.
        loaders: those that the job reads.
        taught: whether the student may learn of a teacher, and not of labels alone.
    """
    fewer = asks_for_fewer_tokens(cfg)
    with open_dict(cfg):
        paths = [OmegaConf.select(cfg, f"{role}.path") for role in ("student", "teacher")]
        for path in paths:
            if path is not None:
                check_path(path)
        paths[0] = paths[0] or folder_of_arguments(cfg, "student")
        paths[1] = paths[1] or tokenizer_path(cfg) or folder_of_arguments(cfg, "teacher")
        if "tokenizer" in cfg.data and cfg.data.tokenizer is None:
            cfg.data.tokenizer = paths[0] or paths[1]
        own, other = cfg.data.get("tokenizer"), paths[1]
        two = None not in (own, other) and own != other and brings_tokenizer(other)
        two = two and cfg.data.get("teacher_tokenizer", own) is None
        if two and not share_ids(cfg, str(own), other):
            cfg.data.teacher_tokenizer = other
        if "task" in cfg.data and cfg.data.task is None:
            cfg.data.task = task_of_heads(cfg)
        take_image_processors(cfg, *paths)
        take_feature_extractors(cfg, *paths)
    make = partial(_set_up, cfg, loaders)
    with _quiet() if fewer else nullcontext():
        data = make()
    if fewer:
        data = with_fewer_tokens(cfg, data, make, paths[1], taught)
    facts = DataFacts(data)
    with open_dict(cfg):
        for name in ("num_labels", "num_row_labels", "num_rows"):
            found = getattr(facts, name)
            given = cfg.get(name)
            if given is not None and found is not None and given != found:
                raise ValueError(f"{name}={given}, but the data has {name}={found}.")
            cfg[name] = found if found is not None else given
    note_task(cfg, data)
    follow_task(cfg, "criteria", data)
    check_heads(cfg)
    return data


def _set_up(cfg: DictConfig, loaders: Sequence[str], **options: Any) -> Any:
    """The data module, with its rows read."""
    data = instantiate(cfg.data, **options)
    if not isinstance(data, L.LightningDataModule):
        raise ValueError(
            f"`data` must be a LightningDataModule, got a {type(data).__name__} "
            f"from {cfg.data.get('_target_')}."
        )
    job = OmegaConf.select(cfg, "job._target_")
    check_trainable(data, "a run" if job is None else f"job={job.rpartition('.')[2]}", loaders)
    data.prepare_data()
    data.setup("fit")
    return data


@contextmanager
def _quiet() -> Iterator[None]:
    """What data have to say of their rows is not said: they are read again."""
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def check_lengths(data: Any, **models: nn.Module | None) -> None:
    """Refuse rows that are longer than what a model reads, or hold tokens that it does not know.

    Either would stop the run at that row.

    Raises:
        ValueError: naming the model, what is in the row and what to do.
    """
    for role, model in models.items():
        if model is None:
            continue
        own = role == "teacher" and DataFacts(data).teacher_tokenizer is not None
        longest, largest = token_lengths(data, "teacher" if own else "student")
        check_largest_id(largest, model, role, "data")
        limit = longest_input(model)
        if limit is not None and longest > limit:
            option = "max_target_length" if longest_target(data) > limit else "max_length"
            raise ValueError(
                f"The {role} reads at most {limit} tokens, but the data has rows of {longest}. Set "
                f"data.{option}={limit}."
            )
