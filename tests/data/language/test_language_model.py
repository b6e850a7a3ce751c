"""Rows of language models against plain loops over documents."""

import itertools
import logging
import unicodedata

import datasets
import pytest
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, Tokenizer, trainers
from tokenizers_of_text import byte_level
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from lightning_distill.data.language import document_tokens
from lightning_distill.data.language.byte_pairs import train_byte_pairs
from lightning_distill.data.language.language_model import _checked, LanguageModelData
from lightning_distill.data.text.word_pieces import train_word_pieces

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
    long = sum(len(ids) > 16 for ids, _ in plain(TEXTS, bpe))
    assert data.counts()["train documents cut by max_length"] == long > 1
    of_test = sum(len(ids) > 16 for ids, _ in plain(TEXTS[3:6], bpe))
    assert data.counts()["test documents cut by max_length"] == of_test
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


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_training_gives_each_row_once_and_an_epoch_has_its_own_order(bpe, packing, workers):
    data = made(tokenizer=bpe, packing=packing, num_workers=workers)
    loader = data.train_dataloader()
    first = [batch["row"].tolist() for batch in loader]
    assert sorted(row for rows in first for row in rows) == list(range(data.num_rows))
    loader.sampler.set_epoch(1)
    assert [batch["row"].tolist() for batch in loader] != first
    # A batch is the rows of a plan.
    loader.sampler.set_epoch(0)
    plan = [("train", rows, None) for rows in first]
    for ours, theirs in zip(loader, data.rows_dataloader(plan), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_repeats_that_even_out_ranks_are_marked(bpe, monkeypatch):
    data = made(tokenizer=bpe, packing=False)
    seen, steps = [], set()
    for rank in (0, 1):
        loader = data.test_dataloader()
        loader.sampler.rank, loader.sampler.num_replicas = rank, 2
        batches = list(loader)
        steps.add(len(batches))
        seen += torch.cat([batch["row"] for batch in batches]).tolist()
    assert len(steps) == 1
    # Three rows over two ranks.
    assert sorted(seen) == [-1, 0, 1, 2]


def test_the_same_options_give_the_same_data_and_others_do_not(bpe):
    options = {"tokenizer": bpe, "validation": None, "validation_fraction": 0.3}
    one, again = made(**options), made(**options)
    assert one.fingerprint() == again.fingerprint()
    for change in ({"seed": 1}, {"max_length": 8}, {"packing": False}, {"train": TEXTS[1:]}):
        other = made(**options | change)
        assert other.fingerprint() != one.fingerprint()
    assert made(tokenizer=bpe, max_length=8).preprocessing() != one.preprocessing()
    assert one.preprocessing() == made(tokenizer=bpe, train=TEXTS[:4]).preprocessing()


def test_validation_documents_are_cut_from_the_training_documents_once(bpe):
    data = made(tokenizer=bpe, validation=None, validation_fraction=0.25, packing=False)
    rows = [r["input_ids"][0].tolist() for s in ("train", "validation") for r in in_order(data, s)]
    assert sorted(rows) == sorted(ids[:16] for ids, _ in plain(TEXTS, bpe))
    assert data.counts()["train documents"] == 6 and data.counts()["validation documents"] == 2


def test_counts_are_those_of_tokens_and_of_what_is_predicted(bpe):
    counts = made(tokenizer=bpe).counts()
    documents = plain(TEXTS, bpe)
    tokens = sum(len(ids) for ids, _ in documents)
    assert counts["train tokens"] == tokens
    assert counts["predicted train tokens"] == tokens - len(documents)
    assert counts["train rows"] == -(-tokens // 16)
    # Documents go on in the next row.
    assert not any("cut" in name for name in counts)


def test_other_options_for_the_same_rows(bpe):
    data = made(tokenizer=bpe)
    # What a job that knows of classification asks for.
    other = data.replace(
        batch_size=5, drop_unlabelled=True, labelled_rows=None, augmentation=None, views=None
    )
    assert len(next(iter(other.train_dataloader()))["row"]) == 5
    assert len(next(iter(data.train_dataloader()))["row"]) == 2
    assert other.splits is data.splits
    with pytest.raises(ValueError, match="`replace` changes .*batch_size.*, got max_length"):
        data.replace(max_length=3)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        data.replace(batch_size=0)


@pytest.mark.parametrize("packing", [True, False])
def test_a_teacher_of_another_tokenizer_reads_the_same_texts(bpe, packing):
    teacher = word_pieces()
    data = made(tokenizer=bpe, teacher_tokenizer=teacher, packing=packing, max_length=24)
    rows = in_order(data)
    for row in rows:
        other = row["teacher"]
        assert other.keys() >= {"input_ids", "labels", "label_bytes"}
        assert row["input_ids"].shape[1] <= 24 and other["input_ids"].shape[1] <= 24
        ours = bpe.decode(row["input_ids"][0], skip_special_tokens=True)
        theirs = teacher.decode(other["input_ids"][0], skip_special_tokens=True)
        assert squeezed(ours) == squeezed(theirs)
    whole = "".join(bpe.decode(r["input_ids"][0], skip_special_tokens=True) for r in rows)
    if packing:
        # Whole texts, in another order, and nothing of them lost.
        assert sorted(squeezed(whole)) == sorted(squeezed("".join(TEXTS)))
    else:
        assert len(rows) == len(TEXTS)
        assert all(
            text.startswith(bpe.decode(row["input_ids"][0], skip_special_tokens=True))
            for text, row in zip(TEXTS, rows, strict=True)
        )
    # The end is learnt where a document ends, not where it is cut.
    ends = sum(int((row["labels"] == bpe.eos_token_id).sum()) for row in rows)
    assert ends == (len(TEXTS) if packing else sum(len(i) <= 24 for i, _ in plain(TEXTS, bpe)))
    cut = data.counts().get("train documents cut by max_length", 0)
    assert cut == len(TEXTS) - ends


@pytest.mark.parametrize("packing", [True, False])
def test_spans_are_of_the_same_text_on_both_sides(packing):
    ours, theirs = byte_level(), byte_level(300)
    data = made(
        tokenizer=ours, teacher_tokenizer=theirs, packing=packing, max_length=24, batch_size=2
    )
    (batch,) = data.rows_dataloader([("train", range(data.num_rows), None)])
    seen = 0
    for row in range(data.num_rows):
        of_span = [{}, {}]
        for texts, side in zip(of_span, (batch, batch["teacher"]), strict=True):
            for span, label in zip(
                side["spans"][row].tolist(), side["labels"][row].tolist(), strict=True
            ):
                if span >= 0:
                    texts.setdefault(span, []).append(label)
        assert of_span[0].keys() == of_span[1].keys()
        # Numbered on from piece to piece of a row, so that none is met twice.
        assert sorted(of_span[0]) == list(range(len(of_span[0])))
        for span, ids in of_span[0].items():
            written = "".join(ours.convert_ids_to_tokens(ids))
            assert written == "".join(theirs.convert_ids_to_tokens(of_span[1][span]))
        seen += len(of_span[0])
    # All that is predicted but the ends is in a span, but for first tokens of unequal length.
    predicted = int(((batch["labels"] >= 0) & (batch["labels"] != ours.eos_token_id)).sum())
    assert seen > 0.2 * predicted
    padded = batch["spans"][batch["labels"] == -100]
    assert (padded == -1).all()


def test_a_text_that_holds_a_special_token_has_spans_too():
    ours, theirs = byte_level(), byte_level(300)
    texts = ["a text with <|endoftext|> in it"]
    data = made(train=texts, tokenizer=ours, teacher_tokenizer=theirs)
    (batch,) = data.rows_dataloader([("train", [0], None)])
    assert (batch["spans"] >= 0).sum() > 5


def squeezed(text):
    """What a tokenizer that lowers cases and drops accents and spaces leaves."""
    kept = unicodedata.normalize("NFD", text.lower().replace("[unk]", "").replace("[sep]", ""))
    kept = kept.replace("##", "")
    return "".join(c for c in kept if c.isascii() and not c.isspace())


def test_a_teacher_of_the_same_tokenizer_has_no_tensors_of_its_own(bpe):
    data = made(tokenizer=bpe, teacher_tokenizer=bpe)
    assert data.teacher_tokenizer is None and "teacher" not in in_order(data)[0]


def test_a_tokenizer_is_trained_where_there_is_none():
    data = made(vocab_size=300)
    assert len(data.tokenizer) == 300
    for text in TEXTS:
        assert data.tokenizer.decode(data.tokenizer(text)["input_ids"]) == text


def test_tokens_are_kept_and_found_again(bpe, tmp_path, monkeypatch):
    monkeypatch.setattr(document_tokens, "WORTH_KEEPING", 10)
    first = made(tokenizer=bpe)
    assert list((tmp_path / "cache" / "tokens").glob("*.arrow"))

    def never(self, batch):
        raise AssertionError("tokenised anew")

    monkeypatch.setattr(document_tokens.DocumentEncoder, "__call__", never)
    assert made(tokenizer=bpe).fingerprint() == first.fingerprint()
    with pytest.raises(AssertionError, match="tokenised anew"):
        made(tokenizer=bpe, train=TEXTS[1:])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_length": 1}, "`max_length` must be at least 2, got 1"),
        ({"batch_size": True}, "`batch_size` must be a whole number, got True"),
        ({"validation_fraction": 1}, "`validation_fraction` lies between 0 and 1, got 1"),
        ({"shuffle_rows": 0}, "`shuffle_rows` must be at least 1, got 0"),
        ({"vocab_size": 100}, "`vocab_size` is 100, but there are 256 bytes"),
        ({"train": []}, "The train data has no rows"),
        (
            {"train": [" "] * 3, "packing": False, "vocab_size": 300, "tokenizer": "words"},
            "Nothing of the train data",
        ),
        ({"tokenizer": "./nowhere"}, "There is no tokenizer in ./nowhere"),
        ({"tokenizer": "no end"}, "data.tokenizer has no end token.*set tokenizer.eos_token"),
    ],
)
def test_options_that_cannot_be(options, words):
    known = {"words": word_level(), "no end": word_level()}
    known["no end"].eos_token = None
    if options.get("tokenizer") in known:
        options = options | {"tokenizer": known[options["tokenizer"]]}
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        made(**options)


def test_a_tokenizer_that_does_not_say_where_its_tokens_lie_is_refused(bpe):
    class Slow:
        is_fast = False
        pad_token_id = eos_token_id = 0

    with pytest.raises(ValueError, match="data.tokenizer is a Slow, .*Take a fast one"):
        _checked(Slow(), "tokenizer")


def test_documents_without_anything_to_predict_are_left_out_and_counted(bpe, caplog):
    with caplog.at_level(logging.WARNING):
        data = made(tokenizer=word_level(), train=["fox fox", " ", ""], packing=False)
    assert data.num_rows == 1
    assert "2 of 3 documents of the train data have nothing to predict within 16" in caplog.text


def test_a_class_that_loads_nothing_says_so():
    with pytest.raises(TypeError, match=r"LanguageModelData must define `load\(\)`"):
        LanguageModelData().setup()
