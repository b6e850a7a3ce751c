"""Tiny encoder-decoders of several families, and a batch for them."""

from typing import Any

import torch
import transformers as hf

BARTS = {"d_model": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
BARTS |= {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "dropout": 0.0}
ENDS = {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
ENDS |= {"bos_token_id": 2, "forced_eos_token_id": None}
FRAMES = {"num_mel_bins": 6, "max_source_positions": 9, "max_target_positions": 24}
FRAMES |= {"suppress_tokens": None, "begin_suppress_tokens": None}
FAMILIES = ("t5", "bart", "marian", "whisper")


def model(family: str, layers: int = 1, seed: int = 0, attention: str = "sdpa") -> Any:
    """A model without dropout, in eval mode."""
    of_barts = {**BARTS, **ENDS, "encoder_layers": layers, "decoder_layers": layers}
    limits = {"max_position_embeddings": 24}
    torch.manual_seed(seed)
    if family == "t5":
        sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_heads": 2, "dropout_rate": 0.0}
        ends = {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
        config = hf.T5Config(vocab_size=50, num_layers=layers, **sizes, **ends)
        made = hf.T5ForConditionalGeneration(config)
    elif family == "bart":
        made = hf.BartForConditionalGeneration(hf.BartConfig(vocab_size=50, **of_barts, **limits))
    elif family == "marian":
        made = hf.MarianMTModel(hf.MarianConfig(vocab_size=50, **of_barts, **limits))
    else:
        config = hf.WhisperConfig(vocab_size=50, **of_barts, **FRAMES)
        made = hf.WhisperForConditionalGeneration(config)
    if hasattr(made, "final_logits_bias"):
        made.final_logits_bias.copy_(torch.randn(1, 50))
    # So large that logits differ from place to place.
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3 if parameter.dim() > 1 else 1)
    made.set_attn_implementation(attention)
    return made.eval()


def batch(family: str, rows: int = 3, targets: int = 6, sources: int = 7) -> dict[str, Any]:
    """Rows of unequal length on both sides; of Whisper random features of equal length."""
    draw = torch.Generator().manual_seed(1)
    labels = torch.randint(3, 50, (rows, targets), generator=draw)
    of_labels = torch.tensor([targets, 3, 5, 2, 6])[:rows]
    labels[torch.arange(targets) >= of_labels[:, None]] = -100
    found = {"labels": labels, "row": torch.arange(rows)}
    if family == "whisper":
        return {"input_features": torch.randn(rows, 6, 18, generator=draw), **found}
    ids = torch.randint(3, 50, (rows, sources), generator=draw)
    mask = (torch.arange(sources) < torch.tensor([4, sources, 5, 3, 6])[:rows, None]).long()
    return {"input_ids": ids * mask + (1 - mask), "attention_mask": mask, **found}


def wider(given: dict[str, Any], by: int = 3) -> dict[str, Any]:
    """The same batch with more padding on both sides."""
    fill = {"input_ids": 1, "attention_mask": 0, "labels": -100}
    pad = torch.nn.functional.pad
    return {n: pad(v, (0, by), value=fill[n]) if n in fill else v for n, v in given.items()}
