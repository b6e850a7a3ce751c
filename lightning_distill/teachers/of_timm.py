"""A teacher that is a trained model of timm, by its name."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from ..models.timm_models import build, check_task, classes_of, read_weights, what_timm_says


def timm(
    name: str,
    num_labels: int | None = None,
    label_names: Sequence[str] | None = None,
    task: Any = None,
    pretrained: bool = False,
    path: str | None = None,
    **model_args: Any,
) -> nn.Module:
    """A trained model of timm, in eval mode; every one of its weights must be there.

    Args:
        name: as in `timm.list_models()`, also with the tag of its weights: resnet18.a1_in1k.
        num_labels: how many classes the data has; those of the weights by default.
        label_names: of the data, in the order of the head's classes, which the weights of timm do
            not name.
        task: a [`Task`][lightning_distill.tasks.Task]; it says the kind of labels.
        pretrained: take timm's weights, which the Hugging Face hub has.
        path: take the weights in this file (safetensors).
        model_args: of `timm.create_model`, as `img_size=32`.

    Raises:
        ValueError: if timm is missing, for an unknown name, for no weights, for weights that do
            not fit, and a head of other classes than the data's.
        FileNotFoundError: for weights that are not there.
    """
    said = what_timm_says(name)
    if pretrained is (path is not None):
        raise ValueError(
            f"Weights drawn at random teach nothing: teacher={name} of timm needs either "
            "teacher.pretrained=true (from the Hugging Face hub) or teacher.path=FILE, as in "
            "teacher.path=weights.safetensors."
        )
    weights = None if path is None else read_weights(path, name)
    known = said.get("num_classes") if weights is None else classes_of(weights, said)
    wanted = num_labels or known
    if wanted is None:
        raise ValueError(f"The weights in {path} do not tell how many classes {name} knows.")
    if known is not None and known != wanted:
        raise ValueError(
            f"The teacher {name} knows {known} classes, and the data has {wanted}. Train it for "
            f"them first: lightning-distill job=finetune student=timm student.name={name} "
            f"{'student.pretrained=true' if path is None else f'student.path={path}'} data=..., "
            "then teacher=pretrained teacher.path=RUN/student."
        )
    model = build(name, wanted, 0, weights, pretrained, **model_args)
    if task is not None:
        check_task(task, name)
        task.write_labels(model.config, wanted, label_names)
    elif label_names:
        model.config.id2label = dict(enumerate(map(str, label_names)))
    return model.eval()  # type: ignore[no-any-return]
