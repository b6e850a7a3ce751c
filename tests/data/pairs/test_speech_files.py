"""Speech: what a model is given of wav files, against transformers alone, and what is refused."""

import json

import numpy as np
import pytest
import torch
from speech import extractor, RATE, tokenizer, tone, write_table, write_wav
from torch.testing import assert_close
from transformers import Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from lightning_distill.data import SpeechFiles


def ready(train, validation=None, **options) -> SpeechFiles:
    given = {"feature_extractor": extractor(), "tokenizer": tokenizer(), "batch_size": 3}
    data = SpeechFiles(str(train), None if validation is None else str(validation),
                       **(given | options))  # fmt: skip
    data.setup()
    return data


def rows_of(path, *rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def table(tmp_path):
    return write_table(tmp_path, "train", 7)


def test_a_batch_is_what_the_processor_of_whisper_makes(table, tmp_path):
    data = ready(table, table)
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    seen = set()
    for batch in data.val_dataloader():
        for number, features, labels in zip(
            batch["row"].tolist(), batch["input_features"], batch["labels"], strict=True
        ):
            seen.add(number)
            content = (tmp_path / rows[number]["audio"]).read_bytes()
            samples = np.frombuffer(content[44:], "<i2").astype(np.float64) / 32768
            expected = extractor()(samples, sampling_rate=RATE, return_tensors="pt")
            assert_close(features, expected["input_features"][0], rtol=0, atol=1e-6)
            own = tokenizer()
            # The decoder begins with the start of a transcript; the labels go on behind it.
            ids = own(rows[number]["text"]).input_ids[1:]
            assert labels[labels != -100].tolist() == ids and ids[-1] == own.eos_token_id
    assert seen == set(range(7)) and data.num_rows == 7
    assert data.counts()["train rows"] == 7
    assert data.row_lengths()["train"].tolist() == [len(r["text"]) + 2 for r in rows]


def test_a_row_is_the_same_to_the_last_bit_beside_any_others(table):
    data = ready(table, table)
    (several,) = data.rows_dataloader([("train", [4, 1, 2, 6], None)])
    for place, number in enumerate((4, 1, 2, 6)):
        (alone,) = data.rows_dataloader([("train", [number], None)])
        assert torch.equal(alone["input_features"][0], several["input_features"][place])
        assert int(several["row"][place]) == number


def test_rows_are_known_by_their_sounds_and_settings(table, tmp_path):
    data = ready(table, table)
    assert data.fingerprint() == ready(table, table).fingerprint()
    other = WhisperFeatureExtractor(feature_size=8, chunk_length=1, hop_length=80)
    assert ready(table, feature_extractor=other).fingerprint() != data.fingerprint()
    assert data.preprocessing()["feature_extractor"]["hop_length"] == 160
    json.dumps(data.preprocessing())
    row = json.loads(table.read_text().splitlines()[0])
    write_wav(tmp_path / row["audio"], tone("low", 0.4, 99))
    assert ready(table, table).fingerprint() != data.fingerprint()


def test_features_are_taken_as_they_are(table, tmp_path):
    made = extractor()(tone("mid"), sampling_rate=RATE)["input_features"][0]
    path = rows_of(tmp_path / "f.jsonl", *[{"audio": made.tolist(), "text": "mid"}] * 3)
    data = ready(path, path)
    batch = next(iter(data.val_dataloader()))
    assert_close(batch["input_features"][0].numpy(), made.astype(np.float32), rtol=0, atol=0)
    short = rows_of(tmp_path / "s.jsonl", {"audio": made[:, :9].tolist(), "text": "mid"})
    with pytest.raises(ValueError, match=r"Row 0 of .*s.jsonl.*8 lists of 100 .*got shape \(8, 9"):
        ready(short)


def bad_rows(folder):
    """Rows that cannot be used, each with words of its error."""
    whole = write_wav(folder / "whole.wav", tone("low")).read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "head.wav").write_bytes(whole[:20])
    (folder / "none.wav").write_bytes(b"ID3 an mp3 file, say")
    write_wav(folder / "slow.wav", tone("low"), rate=8000)
    write_wav(folder / "stereo.wav", tone("low"), channels=2)
    write_wav(folder / "long.wav", tone("low", 1.5))
    write_wav(folder / "empty.wav", np.zeros(0))
    return [
        ("missing.wav", "low", "There is no file .*missing.wav"),
        ("cut.wav", "low", "cut.wav is cut off: its head tells of 8000 samples, and 3989 are"),
        ("head.wav", "low", "head.wav cannot be read as a wav file"),
        ("none.wav", "low", "none.wav cannot be read as a wav file: .*RIFF"),
        ("slow.wav", "low", "8000 samples in a second, and the model hears 16000; nothing is res"),
        ("stereo.wav", "low", "2 channels of 16 bits, and must have one .*ffmpeg -i stereo.wav"),
        ("long.wav", "low", "lasts 1.5 seconds, and the model hears 1: the rest would be cut"),
        ("empty.wav", "low", "empty.wav is cut off: its head tells of 0 samples"),
        (None, "low", "'audio' must hold the path of a wav file, and it holds None"),
        ("whole.wav", " ", "must have a target .column 'text'., and it holds ' '"),
    ]


def test_what_cannot_be_used_is_a_bad_row(table, tmp_path):
    faults = bad_rows(tmp_path)
    good = [json.loads(line) for line in table.read_text().splitlines()]
    for i, (sound, text, words) in enumerate(faults):
        path = rows_of(tmp_path / f"bad{i}.jsonl", good[0], {"audio": sound, "text": text}, *good)
        with pytest.raises(ValueError, match=f"Row 1 of the train data .*{words}"):
            ready(path)
    bad = [{"audio": sound, "text": text} for sound, text, _ in faults]
    data = ready(rows_of(tmp_path / "all.jsonl", *bad, *good), str(table), skip_bad_rows=True)
    assert data.num_rows == 7 and data.counts()["train rows left out"] == len(faults)


def test_what_is_missing_or_does_not_fit_is_named(table, tmp_path):
    with pytest.raises(ValueError, match="no model to ask: .*data.feature_extractor=DIR"):
        ready(table, feature_extractor=None)
    with pytest.raises(ValueError, match="needs the tokenizer of the model"):
        ready(table, tokenizer=None)
    with pytest.raises(FileNotFoundError, match="No feature extractor could be loaded from"):
        ready(table, feature_extractor=str(tmp_path))
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="makes what Whisper is given, and .* Wav2Vec2FeatureExtr"):
        ready(table, feature_extractor=str(tmp_path / "other"))
    with pytest.raises(ValueError, match="adds noise .dither=0.1."):
        ready(table, feature_extractor=WhisperFeatureExtractor(dither=0.1))
    wider = WhisperFeatureExtractor(feature_size=16, chunk_length=1)
    with pytest.raises(ValueError, match="hear different features .*feature_size is 8 and 16"):
        ready(table, teacher_feature_extractor=wider)
    with pytest.raises(ValueError, match="no column 'sound' .data.source."):
        ready(table, source="sound")
