"""Training from kept answers is training with the teacher."""

import copy
import os
import socket

import lightning as L
import pytest
import torch
from processes import in_two_processes
from tiny import bert, loader, text_batches, trainer
from torch.utils.data import DataLoader, Dataset, DistributedSampler
from torchmetrics.classification import MulticlassAccuracy
from transformers import GPT2Config, GPT2LMHeadModel

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import HardLabel, Hint, masked_mean, soft_target, SoftTarget
from lightning_distill.teachers import CachedTeacher, CachingTeacher

LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}


class RowsOfBatches(Dataset):
    """Single rows with their padding cut, and the collation that pads a batch to its longest."""

    def __init__(self, count: int = 200):
        batches = text_batches(count // 4)
        self.rows = [{k: v[i] for k, v in b.items()} for b in batches for i in range(4)]
        for row in self.rows:
            length = int(row["attention_mask"].sum()) - int(row["row"]) % 3
            for name in ("input_ids", "attention_mask"):
                row[name] = row[name][:length]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


def collate(rows):
    longest = max(len(row["input_ids"]) for row in rows)
    batch = {
        name: torch.stack(
            [torch.nn.functional.pad(row[name], (0, longest - len(row[name]))) for row in rows]
        )
        for name in ("input_ids", "attention_mask")
    }
    return batch | {name: torch.stack([row[name] for row in rows]) for name in ("labels", "row")}


class Shuffled(L.LightningDataModule):
    """200 rows; eight a step, of one process or of two with four each, anew in each epoch."""

    def __init__(self, world: int = 1):
        super().__init__()
        self.world, self.rows = world, RowsOfBatches()

    def train_dataloader(self):
        rank = int(os.environ.get("RANK", "0"))
        sampler = DistributedSampler(self.rows, self.world, rank, shuffle=True, seed=3)
        return DataLoader(self.rows, 8 // self.world, sampler=sampler, collate_fn=collate)


class Counted(torch.nn.Module):
    """A teacher that knows how often it was run."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config, self.runs = model, model.config, 0

    def forward(self, input_ids, attention_mask, output_hidden_states=False):
        self.runs += 1
        return self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            output_hidden_states=output_hidden_states,
        )


def objective(hint: bool) -> Objective:
    terms = {
        "hard_label": Term(HardLabel(), {"student": "student.logits", "labels": "batch.labels"}),
        "soft_target": Term(SoftTarget(2.0), LOGITS),
    }
    if hint:
        sources = {r: f"{r}.hidden_states[*]" for r in ("student", "teacher")}
        sources["mask"] = "batch.attention_mask"
        terms["hint"] = Term(Hint(), sources, adapter="linear")
    return Objective(terms)


class Losses(L.Callback):
    def __init__(self):
        self.found = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.found.append(outputs["loss"].item())


def trained(folder, teacher, hint=False, epochs=2, data=None, **options):
    """Losses of 50 steps, and the student after them."""
    losses = Losses()
    torch.manual_seed(0)
    module = DistillationModule(
        bert(1, 8, seed=2),
        teacher,
        objective(hint),
        optimizer=lambda groups: torch.optim.AdamW(groups, lr=5e-3),
    )
    loop = trainer(folder, max_epochs=epochs, callbacks=[losses], **options)
    loop.fit(module, datamodule=data or Shuffled())
    return losses.found, {k: v.clone() for k, v in module.student.state_dict().items()}


def teacher():
    model = bert(3, 16, seed=1)
    # It shall have something to say.
    with torch.no_grad():
        model.classifier.weight.mul_(20)
    return model


def assert_same_training(one, other):
    (losses, weights), (others, other_weights) = one, other
    assert len(losses) == 50
    assert max(abs(a - b) for a, b in zip(losses, others, strict=True)) < 1e-6
    for name, weight in weights.items():
        torch.testing.assert_close(weight, other_weights[name], atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("hint", [False, True])
def test_training_from_kept_answers_equals_training_with_the_teacher(tmp_path, hint):
    live = trained(tmp_path, teacher(), hint)
    counted = Counted(teacher())
    options = {"hidden_dtype": "float32", "shard_mb": 0.004}
    kept = trained(tmp_path, CachingTeacher(counted, tmp_path / "kept", **options), hint)
    # The step that is tried first, with one token less too, and one epoch.
    assert counted.runs <= 25 + 3
    assert len(list((tmp_path / "kept").glob("shard-*.safetensors"))) > 1
    cached = trained(tmp_path, CachedTeacher(tmp_path / "kept"), hint)
    assert_same_training(live, kept)
    assert_same_training(live, cached)
    # It is the teacher that is learnt from, and not only the labels.
    other = trained(tmp_path, bert(3, 16, seed=9), hint)
    assert max(abs(a - b) for a, b in zip(other[0], live[0], strict=True)) > 1e-3


@pytest.mark.slow
def test_answers_in_fewer_bits_are_near_and_not_equal(tmp_path):
    live = trained(tmp_path, teacher(), hint=True)
    kept = CachingTeacher(teacher(), tmp_path / "kept", hidden_dtype="float8")
    trained(tmp_path, kept, hint=True, epochs=1)
    cached = trained(tmp_path, CachedTeacher(tmp_path / "kept"), hint=True)
    difference = max(abs(a - b) for a, b in zip(live[0], cached[0], strict=True))
    assert 1e-7 < difference < 0.05


def _worker(rank, port, folder):
    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }
    options = {"strategy": "ddp", "devices": 2}
    live = trained(folder, teacher(), data=Shuffled(2), **options)
    counted = Counted(teacher())
    keeping = CachingTeacher(counted, f"{folder}/kept")
    kept = trained(folder, keeping, data=Shuffled(2), **options)
    cached = trained(folder, CachedTeacher(f"{folder}/kept"), data=Shuffled(2), **options)
    torch.save((live, kept, cached, counted.runs), f"{folder}/{rank}.pt")


@pytest.mark.slow
def test_two_ranks_keep_and_read_side_by_side(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    in_two_processes(_worker, (port, str(tmp_path)))
    for rank in (0, 1):
        live, kept, cached, runs = torch.load(tmp_path / f"{rank}.pt", weights_only=False)
        assert_same_training(live, kept)
        assert_same_training(live, cached)
        # What the other rank wrote in the first epoch is read in the second.
        assert runs <= 25 + 3
    store = CachedTeacher(tmp_path / "kept").store
    assert len(store) == len(RowsOfBatches())
    # One process reads what two have written.
    losses, weights = trained(tmp_path, CachedTeacher(tmp_path / "kept"))
    assert_same_training((losses, weights), trained(tmp_path, teacher()))


@pytest.mark.slow
def test_metrics_of_the_teacher_are_read_too(tmp_path):
    loader = Shuffled().train_dataloader()
    found = []
    for build in (
        teacher,
        lambda: CachingTeacher(teacher(), tmp_path / "kept"),
        lambda: CachedTeacher(tmp_path / "kept"),
    ):
        metric = MulticlassAccuracy(num_classes=3)
        module = DistillationModule(bert(1, 8, seed=2), build(), objective(False), metric)
        loop = trainer(tmp_path)
        torch.manual_seed(0)
        loop.fit(module, loader)
        found.append(loop.test(module, loader, verbose=False)[0])
    assert "test/teacher_multiclassaccuracy" in found[0]
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert found[0] == pytest.approx(found[2], abs=1e-6)


def test_rows_that_were_not_kept_are_refused_before_the_first_step(tmp_path):
    kept = CachingTeacher(teacher(), tmp_path / "kept")
    trained(tmp_path, kept, epochs=1)
    data = Shuffled()
    for row in data.rows.rows:
        row["input_ids"] = (row["input_ids"] + 1) % 60
    with pytest.raises(ValueError, match="of the 8 rows of this batch are not in the cache"):
        trained(tmp_path, CachedTeacher(tmp_path / "kept"), data=data)


def test_a_checkpoint_goes_on_with_the_kept_answers_of_its_teacher_only(tmp_path):
    kept = CachingTeacher(teacher(), tmp_path / "kept")
    trained(tmp_path, kept, epochs=1)
    module = DistillationModule(bert(1, 8), CachedTeacher(tmp_path / "kept"), objective(False))
    checkpoint = {"teacher_fingerprint": "0" * 64}
    with pytest.raises(ValueError, match="trained with another teacher"):
        module.on_load_checkpoint(checkpoint)
    module.on_load_checkpoint({"teacher_fingerprint": copy.copy(kept.fingerprint)})


def test_pooled_vectors_of_a_layer_are_kept_per_row(tmp_path):
    def pooled():
        sources = {"student": "student.layer:bert.pooler", "teacher": "teacher.layer:bert.pooler"}
        return Objective({"pooled": Term(Hint(), sources, adapter="linear")})

    found = []
    for build in (
        teacher,
        lambda: CachingTeacher(teacher(), tmp_path / "kept", hidden_dtype="float32"),
        lambda: CachedTeacher(tmp_path / "kept"),
    ):
        module = DistillationModule(bert(1, 8, seed=2), build(), pooled())
        losses = Losses()
        torch.manual_seed(0)
        trainer(tmp_path, max_epochs=1, callbacks=[losses]).fit(module, datamodule=Shuffled())
        found.append(losses.found)
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert found[0] == pytest.approx(found[2], abs=1e-6)
    answers = CachedTeacher(tmp_path / "kept").store.answers
    assert answers["layer:bert.pooler"].shape == (16,)
    assert not answers["layer:bert.pooler"].per_token


def packed(order) -> list[dict]:
    """Rows of twelve tokens, each of three texts of four, with positions of their own."""
    texts = [torch.arange(4 * i, 4 * i + 4) % 55 + 5 for i in order]
    return [
        {
            "input_ids": torch.stack(
                [torch.cat(texts[i : i + 3]), torch.cat(texts[i + 3 : i + 6])]
            ),
            "position_ids": (torch.arange(12) % 4).expand(2, -1),
            "labels": torch.zeros(2, dtype=torch.long),
        }
        for i in range(0, len(texts), 6)
    ]


def test_packed_rows_are_found_as_they_were_packed_and_refused_otherwise(tmp_path):
    teacher = CachingTeacher(bert(2, 16, seed=1), tmp_path / "kept")
    module = DistillationModule(bert(1, 8, seed=2), teacher, objective(False))
    trainer(tmp_path).fit(module, loader(packed(range(12))))
    cached = CachedTeacher(tmp_path / "kept")
    module = DistillationModule(bert(1, 8, seed=2), cached, objective(False))
    # In another order of batches and of rows.
    batches = [{k: v.flip(0) for k, v in b.items()} for b in reversed(packed(range(12)))]
    found, _ = cached.answers(batches[0], [], module)
    inputs = module.teacher_inputs(batches[0])
    with torch.no_grad():
        torch.testing.assert_close(found["logits"], teacher.model(**inputs).logits)
    # The same texts, packed otherwise: the teacher would see other neighbours.
    with pytest.raises(ValueError, match="2 of the 2 rows of this batch are not in the cache"):
        cached.answers(packed([1, 0, *range(2, 12)][::-1])[0], [], module)
    # Without the positions that keep the texts apart, it is another input too.
    without = [{k: v for k, v in b.items() if k != "position_ids"} for b in packed(range(12))]
    with pytest.raises(ValueError, match="are not in the cache"):
        cached.answers(without[0], [], module)


def test_logits_of_every_token_are_kept_without_the_padding(tmp_path):
    def gpt(width, seed):
        # Without dropout: nothing but the answers differs.
        sizes = {"vocab_size": 60, "n_positions": 16, "n_embd": width, "n_layer": 2, "n_head": 2}
        config = GPT2Config(**sizes, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config)

    class PerToken(torch.nn.Module):
        def forward(self, student, teacher, mask):
            return masked_mean(soft_target(student, teacher, 2.0), mask)

    def tokens():
        sources = {**LOGITS, "mask": "batch.attention_mask"}
        return Objective({"soft_target": Term(PerToken(), sources)})

    found = []
    for build in (
        lambda: gpt(16, 0),
        lambda: CachingTeacher(gpt(16, 0), tmp_path / "kept"),
        lambda: CachedTeacher(tmp_path / "kept"),
    ):
        module = DistillationModule(gpt(8, 1), build(), tokens())
        losses = Losses()
        trainer(tmp_path, max_epochs=2, callbacks=[losses]).fit(module, datamodule=Shuffled())
        found.append(losses.found)
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert found[0] == pytest.approx(found[2], abs=1e-6)
    assert CachedTeacher(tmp_path / "kept").store.answers["logits"].per_token
