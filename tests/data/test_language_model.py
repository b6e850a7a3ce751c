"""Rows of language models against plain loops over documents."""

import itertools

import datasets
import pytest
import torch
from tokenizers import models, normalizers, pre_tokenizers, Tokenizer, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from lightning_distill.data.byte_pairs import train_byte_pairs
from lightning_distill.data.language_model import LanguageModelData
from lightning_distill.data.word_pieces import train_word_pieces

TEXTS = [
    "the quick fox 狐 jumps",
    "naïve façade 🦊🦊",
    "x",
    "a much longer text, of many words, that is cut more than once: " + "again and again " * 6,
    "<|endoftext|> is written in a text",
    " spaces  around ",
    "café" * 9,
    "the fox and the dog " * 3,
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LIGHTNING_DISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        return train_byte_pairs(TEXTS[:2] * 3, 280, 64)


class Documents(LanguageModelData):
    def __init__(self, train=TEXTS, validation=TEXTS[:3], test=TEXTS[3:6], **options):
        super().__init__(**({"max_length": 16, "batch_size": 2, "eval_batch_size": 3} | options))
        self.given = {"train": train, "validation": validation, "test": test}

    def load(self):
        return {
            name: datasets.Dataset.from_dict({"text": list(texts)})
            for name, texts in self.given.items()
            if texts is not None
        }


def made(**options):
    data = Documents(**options)
    data.prepare_data()
    data.setup("fit")
    return data


def in_order(data, split="train"):
    """The rows of a split one by one, as a plan gives them."""
    count = len(data.row_lengths()[split])
    return list(data.rows_dataloader([(split, [i], None) for i in range(count)]))


def plain(texts, tokenizer):
    """Tokens of each document with its end, and what follows each, by a loop."""
    found = []
    for text in texts:
        ids = tokenizer(text, split_special_tokens=True)["input_ids"] + [tokenizer.eos_token_id]
        found.append((ids, [*ids[1:], -100]))
    return found


def test_packed_rows_are_the_documents_joined_and_cut(bpe):
    data = made(tokenizer=bpe)
    documents = plain(TEXTS, bpe)
    ids = [token for own, _ in documents for token in own]
    labels = [label for _, following in documents for label in following]
    positions = []
    for own, _ in documents:
        for place in range(len(own)):
            begins = place == 0 or len(positions) % 16 == 0
            positions.append(0 if begins else positions[-1] + 1)
    rows = in_order(data)
    assert all(row["input_ids"].shape == (1, 16) for row in rows)
    flat = {k: torch.cat([r[k] for r in rows]).flatten() for k in rows[0] if k != "row"}
    assert flat.keys() == {"input_ids", "labels", "label_bytes", "position_ids"}
    padding = len(flat["input_ids"]) - len(ids)
    assert 0 < padding < 16
    assert flat["input_ids"].tolist() == ids + [bpe.pad_token_id] * padding
    assert flat["labels"].tolist() == labels + [-100] * padding
    assert flat["position_ids"].tolist() == positions + [0] * padding
    assert [int(r["row"]) for r in rows] == list(range(len(rows)))
    assert data.num_rows == len(rows)


CONFIGS = {
    "gpt2": lambda size: GPT2Config(
        vocab_size=size, n_embd=16, n_layer=2, n_head=2, n_positions=64, eos_token_id=0
    ),
    "llama": lambda size: LlamaConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
    ),
    "qwen2": lambda size: Qwen2Config(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    ),
}


def causal(kind, tokenizer, attention="sdpa"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = CONFIGS[kind](len(tokenizer))
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
        # Large weights, so that what leaks is seen.
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    # With a cache, transformers makes no such mask; distillation runs without one.
    model.config.use_cache = False
    return model.eval()


def farthest(model, batch, positions):
    """How far logits of packed rows are from those of each piece alone."""
    with torch.no_grad():
        packed = model(input_ids=batch["input_ids"], position_ids=positions).logits
        worst = 0.0
        for row, places in enumerate(batch["position_ids"].tolist()):
            begins = [i for i, place in enumerate(places) if place == 0] + [len(places)]
            for begin, end in itertools.pairwise(begins):
                alone = model(input_ids=batch["input_ids"][row : row + 1, begin:end]).logits
                worst = max(worst, float((packed[row : row + 1, begin:end] - alone).abs().max()))
    return worst


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_no_token_of_a_packed_row_sees_another_document(bpe, kind, attention):
    data = made(tokenizer=bpe, eval_batch_size=8, max_length=32)
    (batch,) = data.rows_dataloader([("train", range(data.num_rows), None)])
    assert (batch["position_ids"] == 0).sum() > len(batch["row"])
    model = causal(kind, bpe, attention)
    assert farthest(model, batch, batch["position_ids"]) < 1e-5
    running = torch.arange(32).expand_as(batch["position_ids"])
    assert farthest(model, batch, running) > 1e-2


@pytest.mark.parametrize("kind", CONFIGS)
def test_padded_rows_give_the_logits_of_each_document_alone(bpe, kind):
    data = made(tokenizer=bpe, packing=False, max_length=32)
    (batch,) = data.rows_dataloader([("train", range(data.num_rows), None)])
    model = causal(kind, bpe)
    with torch.no_grad():
        found = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
            alone = model(batch["input_ids"][row : row + 1, :length]).logits
            torch.testing.assert_close(found[row : row + 1, :length], alone, atol=1e-5, rtol=1e-5)


def test_without_packing_a_row_is_the_beginning_of_a_document(bpe):
    data = made(tokenizer=bpe, packing=False)
    for row, (ids, labels) in zip(in_order(data), plain(TEXTS, bpe), strict=True):
        length = min(len(ids), 16)
        assert row["input_ids"].tolist() == [ids[:16]]
        # Also at the cut the token that follows is known.
        assert row["labels"].tolist() == [labels[:16]]
        assert row["attention_mask"].tolist() == [[1] * length]
        assert "position_ids" not in row
    batch = next(iter(data.rows_dataloader([("train", [2, 3], None)])))
    short = len(plain(TEXTS, bpe)[2][0])
    assert batch["input_ids"][0, short:].tolist() == [bpe.pad_token_id] * (16 - short)
    assert batch["labels"][0, short - 1 :].tolist() == [-100] * (17 - short)
    assert batch["attention_mask"][0].tolist() == [1] * short + [0] * (16 - short)


def word_level():
    """Words that it does not know become one token, spaces none."""
    inner = Tokenizer(models.WordLevel({"<s>": 0, "[UNK]": 1, "fox": 2, "</s>": 3}, "[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="</s>", pad_token="<s>", unk_token="[UNK]"
    )


def normalising():
    """Byte-level, as Qwen's: composes characters, so that its bytes are not those of the text."""
    inner = Tokenizer(models.BPE())
    inner.normalizer = normalizers.NFC()
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    from tokenizers import decoders

    inner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=270, initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>", pad_token="<pad>")


def word_pieces():
    tokenizer = train_word_pieces(TEXTS, 200, 64)
    tokenizer.eos_token = "[SEP]"
    return tokenizer


@pytest.mark.parametrize("tokenizer", [word_level, normalising, word_pieces])
def test_bytes_of_labels_are_those_of_the_text_but_for_the_first_token(tokenizer):
    tokenizer = tokenizer()
    texts = [*TEXTS, "e\u0301" * 5]
    rows = in_order(made(tokenizer=tokenizer, train=texts, packing=False, max_length=500))
    for text, row in zip(texts, rows, strict=True):
        first = tokenizer(text, return_offsets_mapping=True, split_special_tokens=True)
        end = first["offset_mapping"][0][1]
        unpredicted = len(text[:end].encode())
        assert int(row["label_bytes"].sum()) == len(text.encode()) - unpredicted
        assert not row["label_bytes"][row["labels"] == -100].any()


def test_bytes_of_characters_that_are_split_are_those_of_each_token(bpe):
    rows = in_order(made(tokenizer=bpe, packing=False, max_length=500))
    split = False
    for text, row in zip(TEXTS, rows, strict=True):
        sizes = row["label_bytes"][0].tolist()
        left = text.encode()
        ids = row["input_ids"][0].tolist()
        # GPT-2's letters for bytes, undone by the library's own table.
        for token, size in zip(ids[:-1], [None, *sizes], strict=False):
            own = bpe.convert_ids_to_tokens(token)
            if size is not None:
                assert size == len(own)
            split |= len(own) < len(bpe.decode([token]).encode())
            left = left[len(own) :]
        assert left == b"" and sizes[-2:] == [0, 0]
    assert split
