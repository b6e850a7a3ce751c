"""What makes features of sound, from wherever it is."""

from pathlib import Path
from typing import Any

from transformers import AutoFeatureExtractor, WhisperFeatureExtractor

from ...models.remote_code import remote_code_is_trusted
from ...sealed import check_folder

# What of an extractor decides which numbers it makes.
SETTINGS = ("feature_size", "sampling_rate", "hop_length", "n_fft", "chunk_length", "padding_value")


def load_feature_extractor(given: Any) -> WhisperFeatureExtractor:
    """A feature extractor of Whisper as it is given, or from where it was saved.

    Args:
        given: one of transformers, a folder, or a name on the hub.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: for one of another kind, and for one that adds noise.
    """
    found = given
    if not isinstance(given, WhisperFeatureExtractor):
        path = str(given)
        if Path(path).is_dir():
            check_folder(Path(path), weights=False)
        try:
            found = AutoFeatureExtractor.from_pretrained(
                path, trust_remote_code=remote_code_is_trusted()
            )
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"No feature extractor could be loaded from {path!r}: {str(error).splitlines()[0]} "
                "It lies in the folder of a Whisper, in preprocessor_config.json."
            ) from error
    if not isinstance(found, WhisperFeatureExtractor):
        raise ValueError(
            f"data=speech_files makes what Whisper is given, and {given} has a "
            f"{type(found).__name__}. For another model write a data module of your own, whose "
            'batches hold what it takes, with task = "sequence_to_sequence".'
        )
    if found.dither:
        raise ValueError(
            f"The feature extractor adds noise (dither={found.dither}), so that a sound is another "
            "one each time: set dither to 0 in its preprocessor_config.json."
        )
    return found


def settings_of(extractor: WhisperFeatureExtractor) -> dict[str, Any]:
    """What decides which numbers it makes, as plain values."""
    return {name: getattr(extractor, name) for name in SETTINGS}
