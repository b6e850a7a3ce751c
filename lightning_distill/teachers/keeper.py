"""Teachers that a module keeps without training, saving or averaging them."""

import copy
from typing import Any

import torch
from torch import nn, Tensor

from .teacher import Teacher


class KeepsTeachers(nn.Module):
    """A module beside which teachers stand, and go where it goes.

    A [`Teacher`][] that is assigned to an attribute, and whatever [`is_teacher`][] says is one, is
    no submodule: no optimizer, checkpoint, average of weights or gradient bucket contains it. It is
    frozen, follows the module to its device and type, and is shared by copies of the module.
    """

    def is_teacher(self, name: str, model: nn.Module) -> bool:
        """Whether a module that is assigned to an attribute is a teacher, and not to be trained."""
        return isinstance(model, Teacher)

    @property
    def kept_teachers(self) -> dict[str, Teacher]:
        """All that are kept, by the names of their attributes."""
        kept: dict[str, Teacher] = self.__dict__.setdefault("_kept_teachers", {})
        return kept

    def __setattr__(self, name: str, value: Any) -> None:
        kept = self.__dict__.get("_kept_teachers")
        if kept:
            kept.pop(name, None)
        # `_modules` is there once `nn.Module.__init__` has run.
        is_module = isinstance(value, nn.Module) and "_modules" in self.__dict__
        if is_module and self.is_teacher(name, value):
            self.kept_teachers[name] = Teacher.of(value)
            self.kept_teachers[name].freeze()
            self._modules.pop(name, None)
            # As it was given: hooks and whoever looks find their own model.
            object.__setattr__(self, name, value)
            return
        super().__setattr__(name, value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        # Teachers never change, and may be larger than all else.
        for name, teacher in self.kept_teachers.items():
            memo |= {id(teacher): teacher, id(self.__dict__[name]): self.__dict__[name]}
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        copied.__dict__["_shares_teachers"] = True
        return copied

    def begin_teachers(self) -> None:
        """Put teachers on the device of the module, and let those that keep answers open them."""
        module: Any = self
        trainer = module.trainer
        for teacher in self.kept_teachers.values():
            # Strategies that shard the module move only what is inside it.
            teacher.settle(module.device)
            teacher.begin(module.global_rank, trainer.strategy.barrier, str(trainer.precision))

    def end_teachers(self) -> None:
        """Let teachers that keep answers write what is left, after a loop."""
        module: Any = self
        for teacher in self.kept_teachers.values():
            teacher.end(module.trainer.strategy.barrier)

    # Public ways to move a module; `nn.Module._apply`, which all of them call, is not.

    def to(self, *args: Any, **options: Any) -> Any:
        """Move the module and its teachers."""
        self._move_teachers("to", *args, **options)
        return super().to(*args, **options)

    def cpu(self) -> Any:
        """Move the module and its teachers."""
        self._move_teachers("cpu")
        return super().cpu()

    def cuda(self, device: Any = None) -> Any:
        """Move the module and its teachers."""
        self._move_teachers("cuda", device)
        return super().cuda(device)

    def half(self) -> Any:
        """Convert the module and its teachers."""
        self._move_teachers("half")
        return super().half()

    def bfloat16(self) -> Any:
        """Convert the module and its teachers."""
        self._move_teachers("bfloat16")
        return super().bfloat16()

    def float(self) -> Any:
        """Convert the module and its teachers."""
        self._move_teachers("float")
        return super().float()

    def double(self) -> Any:
        """Convert the module and its teachers."""
        self._move_teachers("double")
        return super().double()

    def type(self, dst_type: Any) -> Any:
        """Convert the module and its teachers."""
        self._move_teachers("type", dst_type)
        return super().type(dst_type)

    def _move_teachers(self, way: str, *args: Any, **options: Any) -> None:
        for name, teacher in self.kept_teachers.items():
            kinds = {(t.dtype, t.device) for t in _floats(teacher)}
            probes = [torch.empty(0, dtype=dtype, device=device) for dtype, device in kinds]
            moved = [getattr(probe, way)(*args, **options) for probe in probes]
            pairs = list(zip(probes, moved, strict=True))
            if any(before.dtype != after.dtype for before, after in pairs):
                # It is known by its weights as they were given; in another type they are others.
                _ = teacher.fingerprint
            if self.__dict__.get("_shares_teachers", False) and any(a is not b for a, b in pairs):
                # Those of the module that this is a copy of stay where they are.
                self._copy_teacher(name)
            getattr(self.kept_teachers[name], way)(*args, **options)

    def _copy_teacher(self, name: str) -> None:
        given, kept = copy.deepcopy((self.__dict__[name], self.kept_teachers[name]))
        self.__dict__[name], self.kept_teachers[name] = given, kept


def _floats(teacher: nn.Module) -> list[Tensor]:
    tensors = [*teacher.parameters(), *teacher.buffers()]
    return [tensor for tensor in tensors if tensor.is_floating_point()]
