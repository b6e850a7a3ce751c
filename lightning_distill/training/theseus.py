"""BERT-of-Theseus: blocks of the teacher stand in for the student's, and are replaced by and by."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import nn, Tensor
from torchmetrics import Metric

from ..models.source import matching, nearest
from ..models.submodules import submodules
from ..objective.objective import Objective
from ..schedules import Schedule
from .module import DistillationModule


class TheseusModule(DistillationModule):
    """Trains a student whose blocks are put into the teacher's place, each with a probability.

    In each training step a block of the student runs with probability `rate`; else the teacher's
    blocks that it shall replace run in its place, frozen, on the same input. The gradient goes
    through them to the blocks below. In validation the student runs alone. No term compares the
    models: the labels' loss is enough.

    One block at least is the student's own, for a step without any would train nothing. The draw
    depends on seed and step alone, so that all processes and a resumed run draw the same.

    Both models must have the same width, as with `student=from_teacher`. On several processes take
    trainer.strategy=ddp_find_unused_parameters_true.

    Args:
        student: as for [`DistillationModule`][].
        teacher: a live one.
        objective: such as [`HardLabel`][lightning_distill.criteria.HardLabel] on the labels.
        metrics: as for [`DistillationModule`][].
        optimizer: the same.
        scheduler: the same.
        rate: the probability, or a schedule of it; the paper's grows from 0.3 to 1.
        student_blocks: pattern of the paths of the student's blocks, in order.
        teacher_blocks: the same of the teacher's, of which each block of the student replaces
            equally many, as far as that is possible.
        seed: of the draw.
        **options: as for [`DistillationModule`][].

    Raises:
        ValueError: for patterns that name no block, for more blocks of the student than of the
            teacher, and without a live teacher; before the first step for blocks of another width,
            or that cannot run in each other's place.

    References:
        Xu et al., *BERT-of-Theseus: Compressing BERT by Progressive Module Replacing*, 2020,
        https://arxiv.org/abs/2002.02925.
    """

    learns_of_teacher: ClassVar[bool] = True
    needs_live_teacher: ClassVar[bool] = True

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        objective: Objective,
        metrics: Mapping[str, Metric] | Metric | None = None,
        optimizer: Callable[[Any], torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        rate: float | Schedule = 0.5,
        student_blocks: str = "*.encoder.layer.*",
        teacher_blocks: str = "*.encoder.layer.*",
        seed: int = 0,
        **options: Any,
    ):
        super().__init__(student, teacher, objective, metrics, optimizer, scheduler, **options)
        if not isinstance(rate, Schedule) and not 0 < rate <= 1:
            raise ValueError(f"`rate` must be a probability above 0, or a schedule, got {rate!r}.")
        model = None if self.taught_by is None else self.taught_by.model
        if model is None or self.taught_by is None or not self.taught_by.is_live:
            raise ValueError(
                "module=theseus runs blocks of the teacher, and this teacher is not live: take "
                "teacher=trained, or teacher=pretrained teacher.path=DIR."
            )
        self.rate, self.seed = rate, seed
        own = _blocks("student", student, student_blocks)
        others = _blocks("teacher", model, teacher_blocks)
        if len(own) > len(others):
            raise ValueError(
                f"The student has {len(own)} blocks ({student_blocks}) and the teacher "
                f"{len(others)} ({teacher_blocks}), so that not each of them can replace one."
            )
        ends = [i * len(others) // len(own) for i in range(len(own) + 1)]
        # Tuples are no parts of a module, and the teacher must not become one.
        self._pairs = tuple(
            (block, tuple(others[begin:end]))
            for block, begin, end in zip(own, ends, ends[1:], strict=False)
        )

    def student_forward(self, batch: Any, **options: Any) -> Any:
        """Run the student, in training with some of the teacher's blocks in it."""
        if not self.student.training:
            if self.is_trying:
                self._check_blocks(batch)
            return super().student_forward(batch, **options)
        with self._replaced(self.drawn(self.global_step)):
            return super().student_forward(batch, **options)

    def drawn(self, step: int) -> list[bool]:
        """Of each block, whether the student's own runs in this step."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        rate = self.rate
        if isinstance(rate, Schedule):
            rate = rate.at(min(step / max(self._total_steps - 1, 1), 1.0))
        own = torch.rand(len(self._pairs), generator=generator) < rate
        if not own.any():
            own[torch.randint(len(own), (1,), generator=generator)] = True
        return own.tolist()

    @torch.no_grad()
    def _check_blocks(self, batch: Any) -> None:
        """Refuse blocks that cannot stand in for each other, before a draw meets them."""
        run = super().student_forward
        own = _widths([block for block, _ in self._pairs], lambda: run(batch))
        others = _widths(
            [block for _, others in self._pairs for block in others],
            lambda: self.teacher_forward(batch),
        )
        if own and others and own != others:
            student, teacher = (" and ".join(map(str, sorted(found))) for found in (own, others))
            raise ValueError(
                "module=theseus puts the teacher's blocks in the place of the student's, so that "
                f"both must have the same width: the student's have {student} and the teacher's "
                f"{teacher}. Take a student of the teacher's width, as with student=from_teacher "
                "student.layers=2."
            )
        try:
            with self._replaced([False] * len(self._pairs)):
                run(batch)
        except Exception as error:
            raise ValueError(
                "module=theseus puts the teacher's blocks in the place of the student's, and "
                f"they cannot run there: {str(error).rstrip('.')}. Take a student of the teacher's "
                "family, as with student=from_teacher student.layers=2."
            ) from error

    @contextmanager
    def _replaced(self, drawn: Sequence[bool]) -> Iterator[None]:
        pairs = zip(self._pairs, drawn, strict=True)
        out = [(block, others) for (block, others), own in pairs if not own]
        try:
            for block, others in out:
                # Of this object alone: hooks of the block see what comes in its place.
                block.forward = _through(others)  # type: ignore[method-assign]
            yield
        finally:
            for block, _ in out:
                del block.forward


def _through(blocks: Sequence[nn.Module]) -> Callable[..., Any]:
    """A forward that goes through several blocks, each on what the one before returns."""

    def forward(*arguments: Any, **options: Any) -> Any:
        returned: Any = None
        for block in blocks:
            returned = block(*arguments, **options)
            hidden = _hidden(returned)
            if arguments:
                arguments = (hidden, *arguments[1:])
            else:
                options["hidden_states"] = hidden
        return returned

    return forward


def _hidden(returned: Any) -> Tensor:
    """What a block gives to the next one."""
    hidden: Tensor = returned[0] if isinstance(returned, tuple) else returned
    return hidden


def _widths(blocks: Sequence[nn.Module], run: Callable[[], Any]) -> set[int]:
    """Those of what blocks return while a model runs."""
    found: set[int] = set()
    hooks = [
        block.register_forward_hook(lambda _, __, returned: found.add(_hidden(returned).shape[-1]))
        for block in blocks
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _blocks(role: str, model: nn.Module, pattern: str) -> list[nn.Module]:
    parts = submodules(model)
    found = [parts[path] for path in matching(pattern, parts)]
    if not found:
        raise ValueError(
            f"`{role}_blocks` is {pattern!r}, and the {role} has no such parts. "
            f"{nearest(pattern, parts)}"
        )
    return found
