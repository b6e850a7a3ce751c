"""Metrics that name what they read: the same as plain ones, on every path and in two processes."""

import pytest
import torch
from processes import free_port, in_two_processes
from tiny import bert, loader, text_batches, trainer
from torchmetrics import MeanSquaredError
from torchmetrics.classification import MulticlassAccuracy, MultilabelAccuracy

from lightning_distill import Agreement, DistillationModule, Objective, Term
from lightning_distill.criteria import HardLabel, SoftTarget
from lightning_distill.metrics import FromSources
from lightning_distill.metrics.traits import best_mode, needs_teacher, sources_of
from lightning_distill.models.row_head import fresh_row_head, give_row_head

LOGITS = {"preds": "student.logits", "target": "batch.labels"}
BOTH = {"student": "student.logits", "teacher": "teacher.logits"}
ROWS = {"preds": "student.pooled:cls,row_head", "target": "batch.row_labels"}


def accuracy() -> MulticlassAccuracy:
    return MulticlassAccuracy(num_classes=3, average="macro")


def test_what_has_no_label_is_left_out():
    generator = torch.Generator().manual_seed(0)
    preds = torch.randn(9, 3, generator=generator)
    target = torch.tensor([0, 1, -100, 2, 2, -100, 1, 0, 0])
    metric, plain = FromSources(accuracy(), LOGITS), accuracy()
    metric.update(preds=preds.bfloat16(), target=target)
    kept = [i for i in range(9) if target[i] >= 0]
    plain.update(preds.bfloat16().float()[kept], target[kept])
    assert metric.compute() == plain.compute() and metric.update_count == 1
    metric.update(preds=preds, target=torch.full((9,), -100))
    assert metric.update_count == 1
    # Each token has a label; several of a row are one row's.
    metric.reset()
    metric.update(preds=preds.view(3, 3, 3), target=target.view(3, 3))
    plain.reset()
    plain.update(preds[kept], target[kept])
    assert metric.compute() == plain.compute()
    several = FromSources(MultilabelAccuracy(3), LOGITS)
    several.update(preds=preds[:2], target=torch.tensor([[1, 0, 1], [-100, -100, -100]]))
    expected = MultilabelAccuracy(3)
    expected.update(preds[:1], torch.tensor([[1, 0, 1]]))
    assert several.compute() == expected.compute()
    numbers = FromSources(MeanSquaredError(), LOGITS)
    numbers.update(preds=torch.tensor([1.0, 5.0]), target=torch.tensor([3.0, torch.nan]))
    assert numbers.compute() == 4.0 and best_mode(numbers) == "min"


def test_a_copy_has_a_state_of_its_own_which_is_kept_and_forgotten():
    metric = FromSources(accuracy(), LOGITS)
    metric.persistent(True)
    copy, other = metric.clone(), FromSources(accuracy(), LOGITS)
    copy.update(preds=torch.eye(3), target=torch.tensor([0, 1, 1]))
    assert not metric.update_called and copy.update_called
    other.load_state_dict(copy.state_dict())
    other.metric._update_count = 1
    assert other.compute() == copy.compute() > 0
    copy.reset()
    assert not copy.update_called and copy.inputs == metric.inputs
    assert float(copy(preds=torch.eye(3), target=torch.tensor([0, 1, 2]))) == 1.0


def test_what_it_reads_is_known_of_the_class_and_its_options_too():
    assert not needs_teacher(FromSources(accuracy(), LOGITS))
    assert needs_teacher(FromSources(Agreement(), BOTH))
    assert needs_teacher(FromSources, {"inputs": BOTH}) and not needs_teacher(FromSources)
    assert not needs_teacher(FromSources, {"inputs": LOGITS}) and not sources_of(accuracy())


@pytest.mark.parametrize(
    ("metric", "inputs", "words"),
    [
        (len, LOGITS, "must be a torchmetrics.Metric, got a builtin"),
        (accuracy(), {}, "is empty; name a source for each argument"),
        (accuracy(), {"preds": "pupil.logits"}, "starts with 'student.'"),
    ],
)
def test_what_cannot_be_is_refused(metric, inputs, words):
    with pytest.raises(ValueError, match=words):
        FromSources(metric, inputs)


def with_head(layers: int, seed: int):
    model = bert(layers, 8, seed=seed)
    head = fresh_row_head(model, ["a", "b", "c", "d"], seed)
    # So that its labels differ from row to row.
    head.linear.weight.data.mul_(100)
    return give_row_head(model, head)


def batches():
    """Uneven ones, of which one repeats a row and one has no label of whole rows."""
    generator = torch.Generator().manual_seed(5)
    found = [*text_batches(2, rows=4), *text_batches(1, rows=3, seed=1)]
    for i, batch in enumerate(found):
        rows = len(batch["labels"])
        batch["row_labels"] = torch.randint(0, 4, (rows,), generator=generator)
        batch["row_labels"][i::3] = -100
    found[0]["row"][2] = -1
    return found


def module(teacher_head: bool = True) -> DistillationModule:
    teacher = with_head(2, 3) if teacher_head else bert(2, 8, seed=3)
    terms = {
        "hard_label": Term(HardLabel(), {"student": "student.logits", "labels": "batch.labels"}),
        "soft_target": Term(SoftTarget(), BOTH),
    }
    metrics = {
        "plain": accuracy(),
        "named": FromSources(accuracy(), LOGITS),
        "agreement": Agreement(),
        "agreement_named": FromSources(Agreement(), BOTH),
        "rows": FromSources(MulticlassAccuracy(4, average="micro"), ROWS),
    }
    return DistillationModule(with_head(1, 1), teacher, Objective(terms), metrics)


def rows_by_hand(model) -> float:
    right = count = 0
    for batch in batches():
        hidden = model.eval().bert(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        chosen = model.row_head.linear(hidden[:, 0]).argmax(-1)
        for own, label, row in zip(chosen, batch["row_labels"], batch["row"], strict=True):
            if label >= 0 and row >= 0:
                right, count = right + int(own == label), count + 1
    return right / count


def test_in_a_module_they_are_what_plain_ones_are(tmp_path):
    own = module()
    found = trainer(tmp_path).test(own, loader(batches()), verbose=False)[0]
    assert found["test/named"] == found["test/plain"]
    assert found["test/agreement_named"] == found["test/agreement"]
    # The teacher alone, by the same metric with the teacher in the student's place.
    assert found["test/teacher_named"] == found["test/teacher_plain"] != found["test/plain"]
    assert found["test/rows"] == pytest.approx(rows_by_hand(own.student), abs=1e-6)
    assert found["test/teacher_rows"] == pytest.approx(rows_by_hand(own.teacher), abs=1e-6)
    assert "test/teacher_agreement_named" not in found
    # In validation nothing of the teacher alone.
    found = trainer(tmp_path).validate(own, loader(batches()), verbose=False)[0]
    assert found["val/rows"] == pytest.approx(rows_by_hand(own.student), abs=1e-6)
    assert not any("teacher" in name for name in found)


def test_a_teacher_that_has_not_what_is_read_is_measured_by_the_others(tmp_path):
    found = trainer(tmp_path).test(module(False), loader(batches()), verbose=False)[0]
    assert "test/teacher_rows" not in found and "test/teacher_named" in found


def test_what_a_model_does_not_have_is_said_before_the_first_step(tmp_path):
    own = module()
    del own.student.row_head
    fitting = trainer(tmp_path)
    with pytest.raises(ValueError, match="labels of whole rows, and the student has none"):
        fitting.fit(own, loader(batches()), loader(batches()))
    assert fitting.global_step == 0


def _worker(rank, folder, port, results):
    import os

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    options = {"strategy": "ddp", "devices": 2, "use_distributed_sampler": False}
    # Two batches of four rows, and one of three.
    own = loader(batches()[rank::2])
    found = trainer(folder, **options).test(module(), own, verbose=False)[0]
    results[rank] = {name: float(value) for name, value in found.items()}


@pytest.mark.slow
def test_two_processes_measure_what_one_does(tmp_path):
    with torch.multiprocessing.Manager() as manager:
        results = manager.dict()
        in_two_processes(_worker, (str(tmp_path), free_port(), results))
        found = dict(results)
    expected = trainer(tmp_path).test(module(), loader(batches()), verbose=False)[0]
    assert found[0] == found[1] == pytest.approx(expected, abs=1e-6)
