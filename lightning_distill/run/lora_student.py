"""A student with adapters, made of any other student."""

from typing import Any

from torch import nn

from ..students import lora
from ..students.lora import check_peft
from .call import call, known
from .student_quantization import inner_student


def lora_student(
    data: Any,
    of: Any = None,
    path: str | None = None,
    auto_class: str | None = None,
    attn_implementation: str | None = None,
    teacher: nn.Module | None = None,
    **options: Any,
) -> nn.Module:
    """The student that `path` or `of` names, with adapters.

    Args:
        data: the data module.
        of: the configuration of a student, for when `path` names none.
        path: of a pretrained student.
        auto_class: as for a pretrained student.
        attn_implementation: as for a pretrained student.
        teacher: for a student that is cut from it.
        options: of [`lora`][lightning_distill.students.lora].
    """
    check_peft()
    node = of
    if path is not None:
        node = {
            "_target_": "lightning_distill.students.pretrained",
            "path": path,
            "auto_class": auto_class,
            "attn_implementation": attn_implementation,
        }
    role = "student.of" if path is None else "student"
    made = call(inner_student(node, role), known(data, path, teacher=teacher), role)
    return lora(made, **options)
