"""Sounds and the tokens of what is said in them, and how some of them become a batch."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..ragged import Ragged
from ..text.rows import UNLABELLED
from .pair_rows import PairRows
from .sounds import Sound


class SpeechRows(PairRows):
    """Rows of a sound and a target; a sound is read when its row is asked for.

    Args:
        sounds: of all rows.
        targets: the tokens of the text that is to be written, of all rows.
        texts: names of the sounds and targets, as they were read.
    """

    # Of a sound there are no tokens.
    student: Any

    def __init__(self, sounds: Sequence[Sound], targets: Ragged, texts: Sequence[tuple[str, str]]):
        super().__init__({}, targets, texts)
        self.student, self.sounds = None, list(sounds)
        self.cut = np.zeros(len(targets), dtype=bool)

    @property
    def lengths(self) -> np.ndarray:
        """Of the targets in tokens, shape (rows,): all sounds are as long for the model."""
        return self.targets.lengths[self.numbers.numpy()]

    def __getitem__(self, chosen: list[int]) -> dict[str, Any]:
        asked = np.asarray(chosen, dtype=np.int64)
        numbers = self.numbers.numpy()[np.where(asked < 0, -asked - 1, asked)]
        rows = torch.from_numpy(numbers)
        return {
            "sounds": [self.sounds[number] for number in numbers],
            "labels": self.labels_at(rows),
            "row": rows.masked_fill(torch.from_numpy(asked < 0), -1),
        }

    def contents(self) -> Iterator[bytes]:
        """All sounds, and the tokens of the targets."""
        for sound in self.sounds:
            yield sound.digest
        yield from self.targets.contents()


class SpeechCollate:
    """Makes features of sounds, and pads targets by -100."""

    def __init__(self, extractor: Any):
        self.extractor = extractor

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Features and labels of some rows, as a batch."""
        features = [sound.features(self.extractor) for sound in rows["sounds"]]
        return {
            "input_features": torch.from_numpy(np.stack(features)),
            "labels": rows["labels"].padded(UNLABELLED),
            "row": rows["row"],
        }
