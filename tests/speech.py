"""A tiny Whisper in a folder, and tones whose names it is to write."""

import json
import wave
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from tokenizers import pre_tokenizers

RATE = 16000
TONES = {"low": 220.0, "mid": 660.0, "high": 1760.0}
SPECIAL = ["<|startoftranscript|>", "<|transcribe|>", "<|translate|>", "<|notimestamps|>"]


def tokenizer() -> hf.WhisperTokenizer:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = hf.WhisperTokenizer(vocab={letter: i for i, letter in enumerate(letters)}, merges=[])
    made.add_special_tokens({"additional_special_tokens": SPECIAL})
    made.set_prefix_tokens()
    return made


def extractor() -> hf.WhisperFeatureExtractor:
    """Of one second, as 100 frames of 8 numbers."""
    return hf.WhisperFeatureExtractor(feature_size=8, chunk_length=1)


def whisper(folder: Path, layers: int = 2, seed: int = 0, dropout: float = 0.1) -> Path:
    """A fresh model with what it hears and writes by."""
    words = tokenizer()
    end, start = words.eos_token_id, words.convert_tokens_to_ids(SPECIAL[0])
    ends = {"pad_token_id": end, "eos_token_id": end, "bos_token_id": end}
    sizes = {"d_model": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 8}
    sizes |= {"encoder_layers": layers, "decoder_layers": layers, "max_source_positions": 50}
    config = hf.WhisperConfig(
        vocab_size=len(words), decoder_start_token_id=start, max_target_positions=24,
        suppress_tokens=None, begin_suppress_tokens=None, dropout=dropout, **sizes, **ends
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hf.WhisperForConditionalGeneration(config).save_pretrained(folder)
    words.save_pretrained(folder)
    extractor().save_pretrained(folder)
    return folder


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def tone(name: str, seconds: float = 0.5, seed: int = 0) -> np.ndarray:
    time = np.arange(int(RATE * seconds)) / RATE
    noise = np.random.default_rng(seed).normal(size=len(time)) * 0.01
    return 0.5 * np.sin(2 * np.pi * TONES[name] * time) + noise


def write_table(folder: Path, name: str, count: int, seed: int = 0) -> Path:
    """A table of wav files, each with one tone, and the names of the tones."""
    (folder / "clips").mkdir(exist_ok=True)
    draw, lines = np.random.default_rng(seed), []
    for i in range(count):
        text = str(draw.choice(list(TONES)))
        clip = f"clips/{name}{i}.wav"
        write_wav(folder / clip, tone(text, 0.3 + 0.5 * draw.random(), seed + i))
        lines.append(json.dumps({"audio": clip, "text": text}))
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder / f"{name}.jsonl"
