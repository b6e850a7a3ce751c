"""Vectors of rows: pooled by the mask that each model itself was given."""

import pytest
import torch
from tiny import loader, trainer
from torch.testing import assert_close
from transformers import BertConfig, BertModel

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import Hint
from lightning_distill.models.capture import capture, read
from lightning_distill.models.pooling import Dense, give_dense, pooled
from lightning_distill.models.source import Source
from lightning_distill.tasks import Embedding
from lightning_distill.teachers import CachedTeacher, CachingTeacher

MASK = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]])


def encoder(width: int = 8, vocabulary: int = 60, seed: int = 0) -> BertModel:
    config = BertConfig(
        hidden_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=vocabulary,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BertModel(config, add_pooling_layer=False).eval()


def texts(lengths=(3, 6, 4, 5), vocabulary: int = 60, seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, vocabulary, (len(lengths), max(lengths)), generator=generator)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


@pytest.mark.parametrize("how", ["mean", "cls", "max", "last"])
def test_tokens_are_pooled_by_the_mask(how):
    hidden = torch.randn(4, 4, 3, dtype=torch.float64)
    found = pooled(hidden, MASK, how)
    for row, mask, vector in zip(hidden, MASK, found, strict=True):
        inside = [row[i] for i in range(4) if mask[i]]
        expected = torch.zeros(3).double()
        if inside:
            stacked = torch.stack(inside)
            of = {"mean": stacked.mean(0), "cls": inside[0], "last": inside[-1]}
            expected = of[how] if how in of else stacked.max(0).values
        assert_close(vector, expected)
    # Without a mask all tokens count, and whatever stands in the padding is never read.
    assert_close(pooled(hidden, None, how)[3], found[3])
    spoilt = hidden.masked_fill(MASK[..., None] == 0, torch.nan)
    assert_close(pooled(spoilt, MASK, how), found)


def test_half_precision_is_pooled_in_single():
    assert pooled(torch.ones(1, 2, 3, dtype=torch.bfloat16), None).dtype == torch.float32


def test_sources_of_vectors_are_printed_as_they_are_written():
    for text in ("student.pooled:mean", "teacher.pooled:last,normalised"):
        source = Source.parse(text)
        assert str(source) == text and not source.is_many


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("student.pooled:meen", "how tokens are pooled: mean, cls, max, last.*Did you mean mean"),
        ("student.pooled:", "how tokens are pooled"),
        ("student.pooled:mean,long", "for vectors of length 1"),
        ("student.pooled:mean[0]", "leave the brackets out"),
        ("batch.pooled:mean", "batch has no layers"),
    ],
)
def test_a_malformed_source_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        Source.parse(text)


def vectors_of(model, text, *arguments, **inputs):
    source = Source.parse(text)
    with torch.no_grad(), capture(model, [source]) as captured:
        outputs = model(*arguments, **inputs)
    return read(source, outputs, captured)


def test_a_model_is_pooled_by_the_mask_that_it_was_given():
    model, batch = encoder(), texts()
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    counted = batch["attention_mask"][..., None].double()
    expected = ((hidden.double() * counted).sum(1) / counted.sum(1)).float()
    assert_close(vectors_of(model, "student.pooled:mean", **batch), expected)
    by_place = vectors_of(model, "student.pooled:mean", *batch.values())
    assert_close(by_place, expected)
    normalised = vectors_of(model, "student.pooled:mean,normalised", **batch)
    assert_close(normalised, expected / expected.norm(dim=-1, keepdim=True))
    dense = Dense(8, 5, activation="tanh")
    mapped = vectors_of(give_dense(model, dense), "student.pooled:mean", **batch)
    assert_close(mapped, (expected @ dense.linear.weight.T + dense.linear.bias).tanh())


def test_a_model_without_hidden_states_is_refused():
    class Head(torch.nn.Module):
        def forward(self, input_ids, attention_mask):
            return {"logits": input_ids.float()}

    with pytest.raises(ValueError, match=r"student returns none.*student.auto_class=AutoModel"):
        vectors_of(Head(), "student.pooled:mean", **texts())
    with pytest.raises(ValueError, match="`activation` must be one of identity, tanh"):
        Dense(2, 2, activation="softmax")


class Reversed(torch.nn.Module):
    """A teacher with tokens, and lengths, of its own; it counts how often it is run."""

    def __init__(self):
        super().__init__()
        self.model, self.runs = encoder(12, 40, seed=3), 0

    def forward(self, input_ids, attention_mask):
        self.runs += 1
        return self.model(input_ids=input_ids, attention_mask=attention_mask)


def of_two_tokenizers(count: int = 6) -> list[dict]:
    found = []
    for i in range(count):
        lengths = (2 + i % 3, 5, 3, 4)
        own = texts(lengths, seed=i)
        other = texts(tuple(n + 2 for n in reversed(lengths)), 40, seed=100 + i)
        place = torch.tensor([0, 1, 0, 1])
        labels = torch.tensor([torch.nan, 0.3, torch.nan, 0.9])
        row = torch.tensor([0, 0, 1, 1]) + 2 * i
        found.append({**own, "teacher": other, "place": place, "labels": labels, "row": row})
    return found


def taught(teacher, tmp_path, epochs: int = 2):
    """What a student is after some steps, and the losses on the way."""
    terms = {"student": "student.pooled:mean", "teacher": "teacher.pooled:mean,normalised"}
    objective = Objective({"vectors": Term(Hint("cosine"), terms, adapter="linear")})
    module = DistillationModule(encoder(seed=1), teacher, objective, task=Embedding())
    losses = []
    module.log_dict = lambda values, **options: losses.append(float(values["train/vectors"]))
    batches = of_two_tokenizers()
    trainer(tmp_path, max_epochs=epochs, log_every_n_steps=1).fit(module, loader(batches))
    return losses


def test_live_caching_and_cached_vectors_give_the_same_loss(tmp_path):
    live = taught(Reversed(), tmp_path / "a")
    teacher = Reversed()
    caching = CachingTeacher(teacher, tmp_path / "kept")
    assert taught(caching, tmp_path / "b") == pytest.approx(live, abs=1e-6)
    # Six batches in the first epoch, one that is tried, and one without its last token.
    runs = teacher.runs
    assert runs <= 9
    cached = CachedTeacher(tmp_path / "kept")
    assert taught(cached, tmp_path / "c") == pytest.approx(live, abs=1e-6)
    assert teacher.runs == runs and len(set(live)) > 1
    (answer,) = cached.store.answers.values()
    # A row of `width` numbers for each text, and no hidden states.
    assert answer.name == "pooled:mean,normalised" and answer.shape == (12,)
    assert not answer.per_token and answer.encoding.settings()["dtype"] == "float32"
    with pytest.raises(ValueError, match="pooled:cls"):
        of = {"student": "student.pooled:mean", "teacher": "teacher.pooled:cls"}
        other = Objective({"vectors": Term(Hint(), of, adapter="linear")})
        module = DistillationModule(encoder(), CachedTeacher(tmp_path / "kept"), other)
        module.prepare(of_two_tokenizers()[0])
