"""An encoder that student and teacher share: it runs once in a step, for both."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn, Tensor

from ..models.encoder import encoder_of, have_one_encoder, is_frozen
from ..models.source import matching, OUTPUTS, Source
from ..models.submodules import submodules

log = logging.getLogger("lightning_distill")


class SharedEncoder:
    """Whether the student's encoder is a frozen copy of the teacher's, and its output for both.

    So distil-whisper trains (Gandhi et al., 2023, https://arxiv.org/abs/2311.00430). What the
    student's encoder returned is what the teacher's would, if it is frozen, has the same weights,
    is in eval mode (dropout would make it another one) and is given the very same tensors. All but
    the weights is looked at in each step; where anything differs, the teacher's encoder runs.

    Attributes:
        is_copy: whether the weights were the same when they were last looked at.
    """

    def __init__(self) -> None:
        self.is_copy = False
        self._was_told = False

    def look(self, student: nn.Module, teacher: nn.Module | None, asked: bool = True) -> None:
        """Compare the weights; called where they may have become others.

        Args:
            student: the model that is trained.
            teacher: the model that is asked; `None` where its answers are on disk.
            asked: whether each step asks it, so that it is worth a word.
        """
        encoder = encoder_of(student)
        frozen = encoder is not None and not any(p.requires_grad for p in encoder.parameters())
        self.is_copy = frozen and have_one_encoder(student, teacher)
        if self.is_copy and encoder is not None and asked and not self._was_told:
            self._was_told = True
            if is_frozen(encoder):
                log.info("The student's encoder is the teacher's, frozen: it runs once for both.")
            else:
                log.warning(
                    "The student's encoder is the teacher's, frozen, but in train mode, so that "
                    "both have to run: dropout makes them differ. Freeze it by student.freeze="
                    "[encoder], or put it into eval mode."
                )

    @contextmanager
    def once(
        self, student: nn.Module, teacher: nn.Module | None, sources: Sequence[Source]
    ) -> Iterator[None]:
        """While it lasts, the teacher's encoder returns what the student's did for the same inputs.

        Args:
            student: runs first.
            teacher: the model that is asked.
            sources: that are read of the teacher.
        """
        mine, own = encoder_of(student), encoder_of(teacher)
        if not self.is_copy or mine is None or own is None or not is_frozen(mine):
            yield
            return
        if _reads_encoder(own, teacher, sources):
            yield
            return
        kept: list[Any] = []
        run = own.forward

        def keep(part: nn.Module, args: Any, options: dict[str, Any], output: Any) -> None:
            kept[:] = [args, options, output]

        def given(*args: Any, **options: Any) -> Any:
            same = bool(kept) and _is_same(kept[0], args) and _is_same(kept[1], options)
            return kept[2] if same else run(*args, **options)

        handle = mine.register_forward_hook(keep, with_kwargs=True)
        # A hook could change what it returns, and not leave out that it runs.
        before = vars(own).get("forward")
        own.forward = given  # type: ignore[method-assign]
        try:
            yield
        finally:
            handle.remove()
            del own.forward
            if before is not None:
                own.forward = before


def _reads_encoder(encoder: nn.Module, teacher: Any, sources: Sequence[Source]) -> bool:
    """Whether something within the encoder is read, which must run then."""
    parts = submodules(teacher)
    path = next((path for path, part in parts.items() if part is encoder), "")
    for source in sources:
        if source.kind in OUTPUTS:
            if source.name.startswith("encoder_"):
                return True
        elif source.kind == "pooled" or any(
            f"{p}.".startswith(f"{path}.") for p in matching(source.name, parts)
        ):
            return True
    return False


def _is_same(first: Any, second: Any) -> bool:
    """Whether these are the same objects in memory, or equal numbers and words."""
    if first is second:
        return True
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        # Their values are not looked at: a GPU would have to be waited for.
        mine, other = (
            (t.data_ptr(), t.shape, t.stride(), t.dtype, t.device) for t in (first, second)
        )
        return mine == other
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(_is_same(first[k], second[k]) for k in first)
    if isinstance(first, tuple | list):
        return len(first) == len(second) and all(map(_is_same, first, second))
    return isinstance(first, bool | int | float | str) and first == second
