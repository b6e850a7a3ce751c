"""What a model of speech is given: features of wav files, or features as they are."""

import hashlib
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# To the numbers that extractors of features take.
LARGEST = 2.0**15
CONVERT = "Convert it, as by: ffmpeg -i {name} -ar {rate} -ac 1 -c:a pcm_s16le new.wav"


@dataclass(frozen=True)
class WavFile:
    """A file that is read each time its row is asked for.

    Attributes:
        path: of 16-bit samples of one channel.
        digest: of its bytes.
    """

    path: str
    digest: bytes

    @classmethod
    def checked(cls, path: Path, extractor: Any) -> "WavFile":
        """A file that was read once, to see that it can be.

        Args:
            path: of the file.
            extractor: that of the model, which says how many samples a second has, and how many
                seconds it hears.

        Raises:
            ValueError: that says what is in the file instead.
        """
        rate = extractor.sampling_rate
        samples, found = read_wav(path)
        if found != rate:
            convert = CONVERT.format(name=path.name, rate=rate)
            raise ValueError(
                f"{path} has {found} samples in a second, and the model hears {rate}; nothing is "
                f"resampled here. {convert}"
            )
        if len(samples) > extractor.n_samples:
            raise ValueError(
                f"{path} lasts {len(samples) / rate:.1f} seconds, and the model hears "
                f"{extractor.chunk_length}: the rest would be cut off, but not its text. Cut the "
                "file into several."
            )
        return cls(str(path), hashlib.sha256(path.read_bytes()).digest())

    def features(self, extractor: Any) -> np.ndarray:
        """What the model is given, float32 `(bins, frames)`."""
        samples, rate = read_wav(Path(self.path))
        # One by one: in a batch, the last digits depend on what is beside a row.
        made = extractor(samples, sampling_rate=rate, return_tensors="np")["input_features"]
        return np.asarray(made[0], dtype=np.float32)


@dataclass(frozen=True)
class Features:
    """Features that a table holds.

    Attributes:
        values: float32 `(bins, frames)`.
        digest: of their bytes.
    """

    values: np.ndarray
    digest: bytes

    @classmethod
    def checked(cls, given: Any, extractor: Any) -> "Features":
        """Features from lists of numbers.

        Raises:
            ValueError: for another shape than the model takes.
        """
        bins, frames = extractor.feature_size, extractor.nb_max_frames
        try:
            values = np.asarray(given, dtype=np.float32)
        except (TypeError, ValueError):
            values = np.zeros(0, np.float32)
        if values.shape != (bins, frames) or not np.isfinite(values).all():
            raise ValueError(
                f"Features must be {bins} lists of {frames} finite numbers each, as the model "
                f"takes them, got shape {values.shape}."
            )
        return cls(values, hashlib.sha256(values.tobytes()).digest())

    def features(self, extractor: Any) -> np.ndarray:
        """As they are."""
        return self.values


Sound = WavFile | Features


def read_wav(path: Path) -> tuple[np.ndarray, int]:
    """Samples from -1 to 1, float32 `(samples,)`, and how many there are in a second.

    Raises:
        ValueError: for what is no whole wav file of 16-bit samples of one channel.
    """
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate, frames = file.getparams()[:4]
            content = file.readframes(frames)
    except FileNotFoundError as error:
        raise ValueError(f"There is no file {path}.") from error
    except (OSError, EOFError, wave.Error) as error:
        raise ValueError(f"{path} cannot be read as a wav file: {error or 'it ends'}.") from error
    if channels != 1 or width != 2:
        convert = CONVERT.format(name=path.name, rate=rate)
        raise ValueError(
            f"{path} has {channels} channel{'s' if channels > 1 else ''} of {8 * width} bits, and "
            f"must have one of 16 bits. {convert}"
        )
    if not frames or len(content) != frames * width:
        raise ValueError(
            f"{path} is cut off: its head tells of {frames} samples, and {len(content) // width} "
            "are there."
        )
    return np.frombuffer(content, dtype="<i2").astype(np.float32) / np.float32(LARGEST), rate
