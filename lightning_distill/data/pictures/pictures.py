"""Pictures, and how some of them become a batch for two models."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ..draw import Draw, keyed, seed_of
from ..labelled_rows import LabelledRows
from .image_processor import ImageProcessor
from .picture_file import Sources

Augmentation = Callable[[Tensor, torch.Generator], Any]


class Pictures(LabelledRows):
    """Pictures that are read when they are asked for; indexed by row numbers, it gives a batch.

    Args:
        sources: all pictures.
        student_processor: how the student wants them.
        teacher_processor: how the teacher wants them, if that is another way.
        labels: of all pictures, shape (rows, ...).
        numbers: which of them these are, shape (chosen,).
        augmentation: what a [`Draw`][] with a view does to a picture before either processor, see
            [`CropAndFlip`][]; `None` leaves it.
        seed: of augmentation and mixing.
        mixup: alpha of the Beta distribution of the share of the picture itself; `None` is off.

    Attributes:
        partners: numbers of the pictures that others are mixed with; `None` is all of `numbers`.
    """

    partners: torch.Tensor | None = None

    def __init__(
        self,
        sources: Sources,
        student_processor: ImageProcessor,
        teacher_processor: ImageProcessor | None,
        labels: Tensor,
        numbers: Tensor,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        mixup: float | None = None,
    ):
        super().__init__(labels, numbers, augmentation, seed)
        self.sources, self.mixup = sources, mixup
        self.processors = [student_processor]
        if teacher_processor is not None and teacher_processor != student_processor:
            self.processors.append(teacher_processor)

    @property
    def lengths(self) -> np.ndarray:
        """All are equally long, shape (chosen,)."""
        return np.ones(len(self.numbers), dtype=np.int64)

    def __getitem__(self, chosen: list[int]) -> dict[str, Any]:
        asked = np.asarray(chosen, dtype=np.int64)
        numbers = self.numbers.numpy()[np.where(asked < 0, -asked - 1, asked)].tolist()
        view = chosen.view if isinstance(chosen, Draw) else None
        made, labels = [], []
        for number in numbers:
            values, label_of = self._values(number, view)
            made.append(values)
            labels.append(label_of)
        rows = torch.tensor(numbers, dtype=torch.int64)
        batch: dict[str, Any] = {
            "pixel_values": torch.stack([values[0] for values in made]),
            "labels": self.labels[torch.tensor(labels, dtype=torch.int64)],
            "row": rows.masked_fill(torch.from_numpy(asked < 0), -1),
        }
        if len(self.processors) > 1:
            batch["teacher"] = {"pixel_values": torch.stack([values[1] for values in made])}
        return batch

    def _values(self, number: int, view: int | None) -> tuple[list[Tensor], int]:
        """What each model is given of a picture, and whose label it has."""
        values = self._processed(number, view)
        if self.mixup is None or view is None:
            return values, number
        # Drawn for the row, whoever is beside it in the batch: a cache can hold it.
        key = int(torch.randint(2**62, (), generator=keyed(self.seed + 1, number, view)))
        random = np.random.default_rng(key)
        share = float(random.beta(self.mixup, self.mixup))
        others = self.numbers if self.partners is None else self.partners
        other = int(others[int(random.integers(len(others)))])
        mixed = [
            share * own + (1 - share) * of_other
            for own, of_other in zip(values, self._processed(other, view), strict=True)
        ]
        return mixed, number if random.random() < share else other

    def _processed(self, number: int, view: int | None) -> list[Tensor]:
        picture = self.sources.read(number)
        if self.augmentation is not None and view is not None:
            picture = self._augmented(picture, number, view)
        return [processor(picture) for processor in self.processors]

    def _augmented(
        self, picture: UInt8[Tensor, "3 h w"], number: int, view: int
    ) -> UInt8[Tensor, "3 h2 w2"]:
        assert self.augmentation is not None
        seed = seed_of(self.augmentation, self.seed)
        changed = self.augmentation(picture, keyed(seed, number, view))
        fits = isinstance(changed, Tensor) and changed.dtype == torch.uint8 and changed.dim() == 3
        if not fits or changed.shape[0] != 3 or not changed.numel():
            raise ValueError(
                f"`augmentation` ({type(self.augmentation).__name__}) was given a picture (3, "
                "height, width) in uint8 and must return one, got "
                f"{tuple(changed.shape) if isinstance(changed, Tensor) else changed!r}."
            )
        return changed

    def mixed_by(self, alpha: float | None, partners: Tensor | None = None) -> "Pictures":
        """The same rows, each mixed with another one when it is drawn under a view."""
        return self._with(mixup=alpha, partners=partners)

    def contents(self) -> Iterator[bytes]:
        """All pictures and labels."""
        for number in range(len(self.sources)):
            yield self.sources.content(number)
        yield self.labels.numpy().tobytes()

    def processed_by(self, processor: ImageProcessor) -> "Pictures":
        """The same rows for one model, which wants its pictures in this way."""
        return self._with(processors=[processor])
