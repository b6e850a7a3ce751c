"""Adapters: what lies between a tensor of the student and one of the teacher."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn, Tensor

from .maps import Maps

Kind = str | nn.Module | Maps | Callable[[int, int], nn.Module]


class Adapter(nn.Module):
    """A linear map over one dimension of a tensor, for features of unequal width.

    Over the last dimension it is the projection of FitNets (Romero et al., 2015) and
    TinyBERT (Jiao et al., 2020); over the channels of a feature map it is a 1x1 convolution.

    Args:
        student_size: size of that dimension in the student's tensor.
        teacher_size: size of that dimension in the teacher's tensor.
        dim: which dimension.
    """

    def __init__(self, student_size: int, teacher_size: int, dim: int = -1):
        super().__init__()
        self.dim = dim
        self.linear = nn.Linear(student_size, teacher_size)

    def forward(self, student: Tensor) -> Tensor:
        """Map a tensor of any shape whose dimension `dim` has the student's size."""
        return self.linear(student.movedim(self.dim, -1)).movedim(-1, self.dim)

    def extra_repr(self) -> str:  # noqa: D102
        return f"dim={self.dim}"


def build_adapters(
    kind: Kind, student: Tensor, teacher: Tensor
) -> tuple[nn.Module | None, nn.Module | None]:
    """What the student's tensor goes through, and what the teacher's, or `None` for neither.

    Only the first is trained: it makes `student` as large as `teacher`.

    Args:
        kind: `"linear"`; `"map"` or a [`Maps`][]; a module to use as it is, or a callable that
            takes the sizes of student and teacher and returns a module for the last dimension.
        student: a tensor of the student, as the criterion will see it.
        teacher: the tensor it is compared with.

    Raises:
        ValueError: if the tensors differ in rank, or in more than one dimension, where no maps
            are made of them.
    """
    if isinstance(kind, nn.Module):
        return kind, None
    if kind == "map" or isinstance(kind, Maps):
        maps = kind if isinstance(kind, Maps) else Maps()
        with _same_seed():
            of_student, of_teacher = maps.build(student, teacher)
        return _placed(of_student, student), of_teacher
    if student.shape == teacher.shape:
        return None, None
    shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
    if student.dim() != teacher.dim():
        raise ValueError(
            f"student and teacher tensors have shapes {shapes}: an adapter cannot change the "
            "number of dimensions. Name other layers, or an item of what they return. Between a "
            "map of a convolution and tokens of a vision transformer: adapter=map."
        )
    differing = [d for d in range(student.dim()) if student.shape[d] != teacher.shape[d]]
    if len(differing) > 1 or differing == [0]:
        raise ValueError(
            f"student and teacher tensors have shapes {shapes}: an adapter maps one dimension "
            "other than the batch. If they differ in tokens, both models need the same tokenizer; "
            "maps of pictures are resized by adapter=map."
        )
    dim = differing[0] - student.dim()
    with _same_seed():
        if kind == "linear":
            adapter: nn.Module = Adapter(student.shape[dim], teacher.shape[dim], dim)
        elif callable(kind):
            adapter = kind(student.shape[dim], teacher.shape[dim])
        else:
            raise ValueError(
                f"`adapter` must be 'linear', 'map', null or a module, got {kind!r}. "
                "A class of your own: {_target_: your.Module, _partial_: true}."
            )
    return _placed(adapter, student), None


@contextmanager
def _same_seed() -> Iterator[None]:
    """A seed of its own: the adapter is the same whatever drew random numbers before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def _placed(adapter: nn.Module, student: Tensor) -> nn.Module:
    """In the precision of the student's weights, which under autocast is not its tensors'."""
    mixed = torch.is_autocast_enabled(student.device.type)
    return adapter.to(student.device, torch.float32 if mixed else student.dtype)


def student_and_teacher_arguments(roles: Mapping[str, str]) -> tuple[str, str]:
    """Which argument an adapter maps and which it is made to match."""

    def argument_of(role: str) -> str:
        names = [name for name, r in roles.items() if r == role]
        # What a teacher has said may also stand in the batch.
        if role in names or (role in roles and not names):
            return role
        if len(names) != 1:
            raise ValueError(
                f"An adapter needs one input of the {role}, got {_listed(names)}. "
                "Call the one it belongs to `student` or `teacher`."
            )
        return names[0]

    return argument_of("student"), argument_of("teacher")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
