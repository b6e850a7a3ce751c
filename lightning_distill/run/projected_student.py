"""A student whose vectors are mapped to another width, made of any other student."""

from typing import Any

import torch
from torch import nn

from ..models.configuration import configured
from ..models.pooling import Dense, dense_of, give_dense
from .call import call, known
from .student_quantization import inner_student


def projected_student(
    data: Any,
    width: int,
    of: Any = None,
    path: str | None = None,
    auto_class: str | None = None,
    attn_implementation: str | None = None,
    teacher: nn.Module | None = None,
    bias: bool = True,
    activation: str = "identity",
    seed: int = 0,
) -> nn.Module:
    """The student that `path` or `of` names, with a part that maps its pooled vectors.

    A student that has such a part already, as one that is cut from a teacher with one, keeps it.

    Args:
        data: the data module.
        width: of the vectors that come out.
        of: the configuration of a student, for when `path` names none.
        path: of a pretrained student.
        auto_class: as for a pretrained student.
        attn_implementation: as for a pretrained student.
        teacher: for a student that is cut from it.
        bias: whether something is added.
        activation: what follows: `identity`, `tanh`, `relu` or `gelu`.
        seed: draws its weights.

    Raises:
        ValueError: if a part is there already that makes another width, and for a model of which it
            is not known how wide its hidden states are.
    """
    node = of
    if path is not None:
        node = {
            "_target_": "lightning_distill.students.pretrained",
            "path": path,
            "auto_class": auto_class,
            "attn_implementation": attn_implementation,
        }
    role = "student.of" if path is None else "student"
    student = call(inner_student(node, role), known(data, path, teacher=teacher), role)
    there = dense_of(student)
    if there is not None:
        if there.linear.out_features != width:
            raise ValueError(
                f"student.width={width}, but the student maps its vectors already, to "
                f"{there.linear.out_features} numbers. Set that width, or take the student as it "
                "is, without student=projected."
            )
        return student
    own = configured(student, "hidden_size")
    if not isinstance(own, int):
        raise ValueError(
            f"student=projected maps vectors of a model whose configuration says its hidden_size, "
            f"and a {type(student).__name__} says none."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return give_dense(student, Dense(own, width, bias, activation))
