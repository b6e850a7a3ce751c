"""A teacher read from disk, checked against the data of the run."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from rich.progress import track
from torch import nn

from ..cache import AnswerStore
from ..cache.manifest import MANIFEST
from ..cache.row_id import row_ids
from ..data.data import check_cacheable, DataFacts
from ..models import fingerprint
from ..models.hugging_face import DTYPES
from ..newest_run import newest_run
from ..teachers import CachedTeacher, pretrained, Teacher
from .every_row import every_row
from .task import auto_class_of, task_in

log = logging.getLogger("lightning_distill")

PICTURES = "teacher_image_processor"

TARGETS = ("lightning_distill.run.cached_teacher", "lightning_distill.run.caching_teacher")


def cached_teacher(
    cfg: DictConfig,
    data: Any,
    folder: str | None = None,
    path: str | None = None,
    auto_class: str | None = None,
) -> CachedTeacher:
    """The teacher whose answers lie in a folder, once it is seen that they are to this data.

    Args:
        cfg: the run's configuration.
        data: the data module.
        folder: that `job=cache` or `teacher=caching` wrote; by default that of the newest run.
        path: of the teacher itself, to see that the answers are its own, and to cut a student from
            it; not kept in memory.
        auto_class: as for a pretrained teacher.

    Raises:
        FileNotFoundError: if there is no cache.
        ValueError: if it holds the answers of another teacher, or to other rows.
    """
    where = Path(folder) if folder else newest_cache()
    teacher = CachedTeacher(where)
    if path is not None:
        _load(teacher, path, auto_class)
    if DataFacts(data).preprocessing is None:
        # Rows that are not there are found when they are asked for.
        return teacher
    check_cacheable(data, "teacher=cached")
    check_preprocessing(teacher.store, data)
    if not _same_data(teacher.store, data):
        _check_rows(teacher, data)
    log.info("Teacher: %s, read from %s", teacher.about()["class"], where)
    return teacher


def newest_cache() -> Path:
    """The folder of answers of the newest run that wrote one.

    Raises:
        FileNotFoundError: if there is none.
    """
    try:
        return newest_run(holding=f"answers/{MANIFEST}") / "answers"
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"There is no cache in {Path('runs').absolute()}: write one with lightning-distill "
            "job=cache, or name a folder (teacher.folder=DIR)."
        ) from error


def tokenizer_path(cfg: DictConfig) -> str | None:
    """Where the tokenizer of a cached teacher is, if the cache says so and it is still there."""
    node = cfg.get("teacher")
    if node is None or node.get("_target_") not in TARGETS[:1]:
        return None
    given = OmegaConf.select(cfg, "teacher.path")
    if given is not None:
        return str(given)
    folder = OmegaConf.select(cfg, "teacher.folder")
    path = AnswerStore(folder or newest_cache()).about["teacher"].get("path")
    return path if path is not None and os.path.isdir(path) else None


def image_processor_of_cache(cfg: DictConfig) -> dict[str, Any] | None:
    """How a cached teacher was given its pictures, which its cache has written down."""
    node = cfg.get("teacher")
    if node is None or node.get("_target_") not in TARGETS[:1]:
        return None
    store = AnswerStore(OmegaConf.select(cfg, "teacher.folder") or newest_cache())
    found: dict[str, Any] | None = store.about.get("preprocessing", {}).get(PICTURES)
    return found


def teacher_weights(teacher: nn.Module, cfg: DictConfig) -> nn.Module:
    """The model that answers, or answered: loaded where only its answers are there.

    Raises:
        ValueError: if it is not known where it is, or another is there.
    """
    asked = Teacher.of(teacher)
    if asked.model is not None:
        return asked.model
    about = asked.about()
    path = OmegaConf.select(cfg, "teacher.path") or about.get("path")
    if path is None:
        raise ValueError(
            "This student is made from the teacher's weights, which a cache does not hold: name "
            "the teacher too, as in teacher.path=DIR."
        )
    kind = OmegaConf.select(cfg, "teacher.auto_class") or auto_class_of(task_in(cfg), path)
    model = _load(asked, str(path), kind)
    rounded = about["quantization"] is not None or about["dtype"] != "float32"
    return pretrained(str(path), kind) if rounded else model


def _load(teacher: Teacher, path: str, auto_class: str | None) -> nn.Module:
    """The model in the type in which it answered, if it is the one."""
    about = teacher.about()
    dtype = about["dtype"] if about["dtype"] in DTYPES else None
    model = pretrained(path, auto_class, dtype=dtype, quantization=about["quantization"])
    found = fingerprint(model)
    if found != teacher.fingerprint:
        raise ValueError(
            f"The cache holds the answers of another teacher than {path} (fingerprint "
            f"{teacher.fingerprint[:12]}, that is {found[:12]}). Make a cache with "
            "this one, or leave teacher.path out."
        )
    return model


def check_preprocessing(store: AnswerStore, data: Any) -> None:
    """Refuse a cache that was made with another tokenizer: equal numbers would be other words."""
    before = store.about.get("preprocessing", {})
    now = data.preprocessing()
    made, given = before.get("teacher_tokenizer"), now.get("teacher_tokenizer")
    if made is not None and made != given:
        raise ValueError(
            f"The cache {store.folder} was made with another tokenizer (SHA-256 {str(made)[:12]}, "
            f"this one is {str(given)[:12]}): equal numbers would be other words. Name the one "
            "that it was made with (data.tokenizer=DIR, or data.teacher_tokenizer=DIR beside a "
            "student with its own), or make a cache with this one."
        )


def _same_data(store: AnswerStore, data: Any) -> bool:
    before = store.about
    same = before.get("preprocessing") == data.preprocessing()
    return same and before.get("data") == data.fingerprint()


def _check_rows(teacher: CachedTeacher, data: Any) -> None:
    """Look for every row of other data before the first step; a part of what was cached is fine."""
    if DataFacts(data).draws_anew:
        raise ValueError(
            "Augmentation draws anew in each epoch, which no cache can hold. Let it go round among "
            "the views that were cached: data.views=N."
        )
    batches = every_row(data, 256)
    missing: dict[str, list[int]] = {}
    looked = 0
    loader = data.rows_dataloader(batches)
    for batch, (split, rows, _) in zip(
        track(loader, "looking for the rows in the cache", total=len(batches), transient=True),
        batches,
        strict=True,
    ):
        places = teacher.store.find(row_ids(teacher.teacher_inputs(batch)))
        looked += len(places)
        lost = [rows[i] for i in np.flatnonzero(places < 0)]
        if lost:
            missing.setdefault(split, []).extend(lost)
    if missing:
        count = sum(map(len, missing.values()))
        split, rows = next(iter(missing.items()))
        before = teacher.store.about.get("preprocessing", {})
        now = data.preprocessing()
        differing = [
            f"{n} was {before.get(n)!r} and is {now.get(n)!r}"
            for n in sorted(before.keys() | now.keys())
            if before and before.get(n) != now.get(n)
        ]
        why = (
            f"Preprocessing differs: {'; '.join(differing)}." if differing else "The data differs."
        )
        raise ValueError(
            f"{count:,} of {looked:,} rows are not in the cache {teacher.store.folder}, the "
            f"first is row {min(rows)} of the {split} data. {why} Make a cache with "
            "the same data options: lightning-distill job=cache."
        )
