"""A student that is a model of timm, by its name."""

import logging
from collections.abc import Sequence
from typing import Any

from torch import nn

from ..models.timm_models import (
    build,
    check_task,
    classes_of,
    image_size_argument,
    read_weights,
    what_timm_says,
)
from ..tasks import Task, task_named

log = logging.getLogger("lightning_distill")


def timm(
    name: str,
    num_labels: int | None = None,
    label_names: Sequence[str] | None = None,
    task: str | Task = "classification",
    pretrained: bool = False,
    path: str | None = None,
    image_size: int | Sequence[int] | None = None,
    seed: int = 0,
    **model_args: Any,
) -> nn.Module:
    """A model of timm that classifies pictures, fresh or with weights, ready to train.

    It is a `TimmWrapperForImageClassification` of transformers, which loads again where timm is
    installed and this package is not. Its layers are called `timm_model.` and as in timm.

    Args:
        name: as in `timm.list_models()`: resnet18, vit_tiny_patch16_224, mobilenetv2_100, ...
        num_labels: size of the head; the data says it.
        label_names: in order, written into the configuration.
        task: a [`Task`][lightning_distill.tasks.Task], or the name of one.
        pretrained: start from timm's weights, which the Hugging Face hub has; a head of another
            size is fresh.
        path: start from the weights in this file (safetensors); a head of another size is fresh.
        image_size: pixels of a side, or height and width; the data says it. Only models that are
            made for one size ask for it, such as vision transformers.
        seed: of weights that are drawn.
        model_args: of `timm.create_model`, as `drop_rate=0.1`.

    Raises:
        ValueError: if timm is missing, for an unknown name, and weights that do not fit.
        FileNotFoundError: for weights that are not there.
    """
    said, task = what_timm_says(name), task_named(task)
    check_task(task, name)
    if num_labels is None or num_labels < 1:
        raise ValueError(f"`num_labels` must be at least 1, got {num_labels}.")
    if pretrained and path is not None:
        raise ValueError("`pretrained` and `path` both name weights: leave one of them out.")
    weights = None if path is None else read_weights(path, name)
    model = build(
        name,
        num_labels,
        seed,
        weights,
        pretrained,
        **{**image_size_argument(name, image_size), **model_args},
    )
    known = said.get("num_classes") if pretrained else classes_of(weights or {}, said)
    if known is not None and known != num_labels:
        log.info("student: a fresh head of %s classes for that of %s", num_labels, known)
    task.write_labels(model.config, num_labels, label_names)
    return model  # type: ignore[no-any-return]
