"""Models, batches and trainers small enough for a test."""

from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
)


def bert(layers: int, width: int, seed: int = 0, **changes) -> BertForSequenceClassification:
    options = {"num_labels": 3, "vocab_size": 60, "max_position_embeddings": 32} | changes
    config = BertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * width,
        **options,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BertForSequenceClassification(config)


def text_batches(count: int = 4, rows: int = 4, tokens: int = 7, seed: int = 0) -> list[dict]:
    """Batches of random tokens; every second row is padded by two."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for i in range(count):
        mask = torch.ones(rows, tokens, dtype=torch.long)
        mask[::2, -2:] = 0
        batches.append(
            {
                "input_ids": torch.randint(5, 60, (rows, tokens), generator=generator),
                "attention_mask": mask,
                "labels": torch.randint(0, 3, (rows,), generator=generator),
                "row": torch.arange(i * rows, (i + 1) * rows),
            }
        )
    return batches


class Batches(torch.utils.data.Dataset):
    def __init__(self, batches):
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, i):
        return self.batches[i]


def loader(batches) -> DataLoader:
    return DataLoader(Batches(batches), batch_size=None)


def trainer(tmp_path, **options) -> L.Trainer:
    defaults = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": tmp_path,
    }
    return L.Trainer(**(defaults | options))


def gpt2(layers: int, width: int, vocabulary: int = 40, seed: int = 0, **changes) -> Any:
    """A causal language model without dropout."""
    options = {"n_positions": 64, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = GPT2Config(
        vocab_size=vocabulary,
        n_embd=width,
        n_layer=layers,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
        **(options | changes),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config)


def token_batch(lengths: list[int], prompts: list[int], seed: int, vocabulary: int = 40) -> dict:
    """Rows of random tokens, padded on the right; labels are what follows, behind the prompts."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, vocabulary, (len(lengths), max(lengths)), generator=generator)
    places = torch.arange(max(lengths))
    mask = (places < torch.tensor(lengths)[:, None]).long()
    labels = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=-100)
    outside = (places >= torch.tensor(lengths)[:, None] - 1) | (
        places < torch.tensor(prompts)[:, None] - 1
    )
    return {
        "input_ids": ids * mask,
        "attention_mask": mask,
        "labels": labels.masked_fill(outside, -100),
    }
