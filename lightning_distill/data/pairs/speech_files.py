"""Sounds and what is said in them, from tables that name wav files."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...find_files import Files, find_files
from ..ragged import Ragged
from .load_feature_extractor import load_feature_extractor, settings_of
from .pair_files import PairFiles
from .sounds import Features, Sound, WavFile
from .speech_rows import SpeechCollate, SpeechRows

# Whisper's decoder is given this token first, and its tokenizer writes it before every text.
START = "<|startoftranscript|>"


class SpeechFiles(PairFiles):
    """Rows of a sound and its text, for Whisper.

    Tables (csv, tsv, json, jsonl, parquet) have a column with paths of wav files, 16 bits and one
    channel, or with features as the model takes them, `bins` lists of `frames` numbers. A batch is
    a dict of tensors `input_features` (rows, bins, frames), float32; `labels` (rows, target
    tokens), -100 behind; `row`. A file is read when its row is asked for, and once before, when it
    is seen that it can be used. Nothing is resampled.

    Args:
        train: a table, a pattern with `*`, or a list of them.
        validation: the same; by default cut from the training rows.
        test: the same; by default the validation rows.
        columns: names of the columns of csv and tsv files that have no header.
        source: column of the paths, or of the features.
        target: column of the texts.
        folder: what paths are relative to; by default the folder of the split's first table.
        feature_extractor: one of Whisper, or where to load it; both models share it.
        teacher_feature_extractor: must make the same features, if it is given.
        options: those of [`PairDataModule`][lightning_distill.data.PairDataModule], but for
            `prefix` and `max_length`, which are of texts.

    Raises:
        FileNotFoundError: for tables and feature extractors that are not there.
        ValueError: for sounds and texts that cannot be used; see `skip_bad_rows`.
    """

    def __init__(
        self,
        train: Files,
        validation: Files | None = None,
        test: Files | None = None,
        columns: Sequence[str] | None = None,
        source: str = "audio",
        target: str = "text",
        folder: str | None = None,
        feature_extractor: Any = None,
        teacher_feature_extractor: Any = None,
        **options: Any,
    ):
        super().__init__(train, validation, test, columns, source=source, target=target, **options)
        self.folder = folder
        self.feature_extractor = feature_extractor
        self.teacher_feature_extractor = teacher_feature_extractor
        self._sounds: dict[str, Sound] = {}

    def setup(self, stage: str | None = None) -> None:
        """Load, check and tokenise; a second call does nothing."""
        if not self.splits:
            self._prepare_extractor()
        super().setup(stage)

    def collate(self) -> Any:
        """What makes features of the sounds of a batch."""
        return SpeechCollate(self.feature_extractor)

    def preprocessing(self) -> dict[str, Any]:
        """What decides which features and tokens the models are given, as plain values."""
        return {**super().preprocessing(), "feature_extractor": settings_of(self.feature_extractor)}

    def fingerprint(self) -> str:
        """SHA-256, in hex, of all sounds and tokens, and of what makes features of the sounds."""
        settings = json.dumps(settings_of(self.feature_extractor), sort_keys=True)
        return hashlib.sha256(f"{super().fingerprint()}{settings}".encode()).hexdigest()

    # Checks and reading.

    def _prepare_extractor(self) -> None:
        if self.feature_extractor is None:
            raise ValueError(
                "data=speech_files makes features of sounds as a model wants them, and there is no "
                "model to ask: take one with teacher.path or student.path, or name the folder of a "
                "Whisper: data.feature_extractor=DIR."
            )
        self.feature_extractor = load_feature_extractor(self.feature_extractor)
        if self.teacher_feature_extractor is not None:
            own, other = (
                settings_of(extractor)
                for extractor in (
                    self.feature_extractor,
                    load_feature_extractor(self.teacher_feature_extractor),
                )
            )
            differing = [f"{n} is {own[n]} and {other[n]}" for n in own if own[n] != other[n]]
            if differing:
                raise ValueError(
                    "Student and teacher hear different features of a sound "
                    f"({', '.join(differing)}), and a batch has one kind. Take a student with the "
                    "teacher's feature extractor, or learn from the teacher's texts: job=generate, "
                    "then data.targets=FILE."
                )

    def _read(self, split: str, i: int, value: Any) -> str | None:
        """By which name a sound is known, once it is seen that it can be read."""
        where = f"Row {i} of {self.origin(split)}"
        try:
            if isinstance(value, list):
                features = Features.checked(value, self.feature_extractor)
                name = f"features:{features.digest.hex()[:32]}"
                self._sounds[name] = features
                return name
            if not isinstance(value, str) or not value.strip():
                raise ValueError(
                    f"The column {self.source!r} must hold the path of a wav file, and it holds "
                    f"{value!r}."
                )
            path = self._folder_of(split) / Path(value).expanduser()
            if str(path) not in self._sounds:
                self._sounds[str(path)] = WavFile.checked(path, self.feature_extractor)
            return str(path)
        except ValueError as error:
            self.bad_rows.add(split, f"{where} has no sound that can be used. {error}")
            return None

    def _folder_of(self, split: str) -> Path:
        if self.folder is not None:
            return Path(self.folder).expanduser()
        files = self.files[split]
        assert files is not None
        return Path(find_files(split, files)[0]).parent

    # Tokens.

    def _prepare_tokenizer(self, train: Sequence[tuple[str, str]]) -> None:
        if self.tokenizer is None:
            raise ValueError(
                "data=speech_files needs the tokenizer of the model: name the folder of a Whisper, "
                "as in data.tokenizer=DIR."
            )
        super()._prepare_tokenizer(train)

    def _tokenised(self, texts: Sequence[tuple[str, str]]) -> SpeechRows:
        most = self.max_target_length
        ids = [self._target_ids(target) for _, target in texts]
        sounds = [self._sounds[name] for name, _ in texts]
        made = SpeechRows(sounds, Ragged.of([row[:most] for row in ids]), texts)
        made.cut_targets = np.array([len(row) > most for row in ids])
        return made

    def _target_ids(self, text: str) -> list[int]:
        tokenizer: Any = self.tokenizer
        ids = super()._target_ids(text)
        # The decoder begins with it in any case, before the labels.
        return ids[1:] if ids[0] == tokenizer.convert_tokens_to_ids(START) else ids
