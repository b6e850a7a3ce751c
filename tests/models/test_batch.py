"""A batch is a mapping, a pair, an object or a tuple, of any class and content."""

from collections import namedtuple, UserDict
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tiny import loader, trainer
from torch import nn
from torch.testing import assert_close
from torchmetrics.classification import MulticlassAccuracy
from transformers import BatchEncoding

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import HardLabel, Hint, SoftTarget
from lightning_distill.models.batch import (
    batch_size,
    counted_rows,
    entries,
    entry,
    first_rows,
    labels_of,
    move,
    NamedTuple,
    next_rows,
    repeated_rows,
    row_numbers,
    take_rows,
    teacher_entries,
    with_entries,
)
from lightning_distill.models.inputs import model_inputs, named
from lightning_distill.models.reading import read
from lightning_distill.models.source import Source

X = torch.arange(12.0).view(3, 4)
LABELS = torch.tensor([0, 1, 2])
ROW = torch.tensor([5, 6, -1])


@dataclass(frozen=True)
class Sample:
    x: torch.Tensor
    labels: torch.Tensor
    row: torch.Tensor
    words: list
    note: str | None = None


class Slots:
    __slots__ = ("labels", "row", "words", "x")

    def __init__(self, x, labels, row, words):
        self.x, self.labels, self.row, self.words = x, labels, row, words


class LikeAMapping:
    """As graphs of torch_geometric and some TensorDicts: keys and items, and no Mapping."""

    def __init__(self, **values):
        self.values = values

    def keys(self):
        return self.values.keys()

    def __getitem__(self, name):
        return self.values[name]


Record = namedtuple("Record", ["x", "labels", "row", "words"])
FIELDS = {"x": X, "labels": LABELS, "row": ROW, "words": ["a", "b", "c"]}
NAMED = {
    "dict": dict(FIELDS),
    "UserDict": UserDict(FIELDS),
    "BatchEncoding": BatchEncoding(FIELDS),
    "frozen dataclass": Sample(**FIELDS),
    "slots": Slots(**FIELDS),
    "namespace": SimpleNamespace(**FIELDS),
    "like a mapping": LikeAMapping(**FIELDS),
    "namedtuple": Record(**FIELDS),
    "tuple with names": NamedTuple(FIELDS.values(), FIELDS),
    "pair": ({"x": X, "row": ROW, "words": ["a", "b", "c"]}, LABELS),
}


class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.layer = nn.Linear(width, 3)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize("batch", NAMED.values(), ids=NAMED)
def test_whatever_has_names_is_read_alike(batch):
    assert set(entries(batch)) - {"note"} == set(FIELDS)
    assert entry(batch, "x") is X and entry(batch, "absent") is None
    assert labels_of(batch) is LABELS and row_numbers(batch) is ROW
    assert batch_size(batch) == 3
    assert counted_rows(batch).tolist() == [True, True, False]
    if not isinstance(batch, NamedTuple):
        # These have the names of a forward, and go by place to another.
        assert list(model_inputs(batch, Net())) == ["x"]
    one = first_rows(batch)
    assert entry(one, "x").shape == (1, 4) and labels_of(one).tolist() == [0]
    assert entry(one, "words") == ["a"]
    moved = move(batch, "meta")
    assert entry(moved, "x").device.type == "meta" and entry(moved, "words") == ["a", "b", "c"]
    changed = with_entries(batch, {"labels": LABELS + 1})
    assert labels_of(changed).tolist() == [1, 2, 3] and labels_of(batch) is LABELS


@pytest.mark.parametrize("as_list", [False, True])
def test_a_pair_is_inputs_and_labels(as_list):
    pair = [X, LABELS] if as_list else (X, LABELS)
    assert labels_of(pair) is LABELS and batch_size(pair) == 3
    assert model_inputs(pair, Net()) is X
    x, labels = first_rows(pair)
    assert x.shape == (1, 4) and labels.tolist() == [0]


def test_a_tensor_is_inputs_alone():
    assert labels_of(X) is None and entries(X) == {} and batch_size(X) == 3
    assert model_inputs(X, Net()) is X and first_rows(X).shape == (1, 4)


def test_what_has_no_rows_stays():
    batch = {"scale": torch.tensor(2.0), "x": X, "name": "abc", "none": None, "shape": [7, 8]}
    batch["nested"] = {"x": X, "pair": (X, "word")}
    one = first_rows(batch)
    assert one["scale"] == 2 and one["name"] == "abc" and one["shape"] == [7, 8]
    assert one["nested"]["x"].shape == one["nested"]["pair"][0].shape == (1, 4)
    assert batch_size(batch) == 3 and batch_size({"text": ["a", "b"]}) == 2
    assert batch_size({"id": "abc"}) == 1
    assert_close(take_rows(X, torch.tensor([True, False, True])), X[[0, 2]])


def test_entries_of_the_teacher_are_found_in_any_mapping():
    own = BatchEncoding({"x": X})
    assert teacher_entries({"teacher": own}) is own
    assert teacher_entries({"teacher": None}) is None and teacher_entries((X, LABELS)) is None


class Masked(nn.Module):
    """Takes a mask; what else depends on the test."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)


class OneInput(Masked):
    def forward(self, x, mask):
        return self.layer(x * mask)


class WithLabels(Masked):
    def forward(self, x, mask, labels=None):
        assert labels is None
        return self.layer(x * mask)


class WithTypes(Masked):
    def forward(self, x, mask, types=None, labels=None):
        return self.layer(x * mask)


class ThreeInputs(Masked):
    def forward(self, x, mask, scale):
        return self.layer(x * mask * scale)


MASK = torch.ones(3, 4)


@pytest.mark.parametrize("model", [OneInput(), WithLabels()], ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("kind", [tuple, list])
def test_a_tuple_goes_by_the_names_of_the_forwards_arguments(model, kind):
    batch = named(kind([X, MASK, LABELS]), model)
    assert labels_of(batch) is LABELS
    x, mask, labels = batch
    assert x is X and mask is MASK and labels is LABELS
    given = model_inputs(batch, model)
    assert list(given) == ["x", "mask"] and given["mask"] is MASK
    # A teacher whose arguments have other names gets them by their place.
    assert [id(v) for v in model_inputs(batch, Renamed())] == [id(X), id(MASK)]


class Renamed(Masked):
    def forward(self, pixels, weights):
        return self.layer(pixels * weights)


def test_three_required_inputs_are_three_inputs():
    scale = torch.ones(3, 1)
    assert list(model_inputs((X, MASK, scale), ThreeInputs())) == ["x", "mask", "scale"]
    assert labels_of(named((X, MASK, scale), ThreeInputs())) is None
    assert labels_of(named((X, MASK, scale, LABELS), ThreeInputs())) is LABELS


def test_labels_are_never_taken_for_an_input():
    with pytest.raises(ValueError) as info:
        model_inputs((X, MASK, LABELS), WithTypes())
    assert "WithTypes.forward takes x, mask, types, labels: it is not clear which of them are" in (
        str(info.value)
    )
    assert 'return a dict, as in {"x": ..., "labels": ...}' in str(info.value)


def test_a_class_that_takes_anything_is_given_all_tensors():
    class Anything(nn.Module):
        def forward(self, x, **more):
            return x

    given = model_inputs({"x": X, "mask": MASK, "labels": LABELS, "id": ["a"]}, Anything())
    assert list(given) == ["mask", "x"] or set(given) == {"x", "mask"}


def test_a_forward_that_cannot_do_without_labels_gets_them():
    class Needs(nn.Module):
        def forward(self, x, labels):
            return x

    assert set(model_inputs({"x": X, "labels": LABELS, "row": ROW}, Needs())) == {"x", "labels"}


class Own(DistillationModule):
    """Reads its batches itself, as the README offers."""

    def student_inputs(self, batch):
        return batch.pixels

    teacher_inputs = student_inputs


@dataclass
class Pixels:
    pixels: torch.Tensor
    labels: torch.Tensor


def fitted(tmp_path, batches, student=None, cls=DistillationModule):
    inputs = {"student": "student.logits", "teacher": "teacher.logits"}
    labels = {"student": "student.logits", "labels": "batch.labels"}
    objective = Objective({"soft": Term(SoftTarget(), inputs), "hard": Term(HardLabel(), labels)})
    torch.manual_seed(0)
    student, teacher = (student or Net)(), Net()
    metrics = {"accuracy": MulticlassAccuracy(3, average="micro")}
    module = cls(student, teacher, objective, metrics, lambda g: torch.optim.SGD(g, lr=0.1))
    run = trainer(tmp_path)
    run.fit(module, loader(batches), loader(batches))
    return {
        name: float(value) for name, value in run.callback_metrics.items()
    }, student.state_dict()


@pytest.fixture
def expected(tmp_path):
    return fitted(tmp_path, [(X / 12, LABELS)])


@pytest.mark.parametrize(
    "make",
    [
        lambda x, y: BatchEncoding({"x": x, "labels": y, "text": ["a", "b", "c"], "none": None}),
        lambda x, y: SimpleNamespace(x=x, labels=y),
        lambda x, y: Record(x, y, torch.arange(3), ["a", "b", "c"]),
        lambda x, y: ({"x": x}, y),
    ],
    ids=["BatchEncoding", "namespace", "namedtuple", "pair with a dict"],
)
def test_a_training_is_the_same_whatever_the_batch_is(tmp_path, expected, make):
    assert_close(fitted(tmp_path, [make(X / 12, LABELS)]), expected)


def test_a_dataclass_works_where_the_inputs_are_overridden(tmp_path, expected):
    found = fitted(tmp_path, [Pixels(X / 12, LABELS)], cls=Own)
    assert_close(found, expected)
    assert "val/accuracy" in found[0]


def test_a_tuple_is_trained_on_by_the_names_of_the_forward(tmp_path, expected):
    found = fitted(tmp_path, [(X / 12, MASK, LABELS)], student=WithLabels, cls=Unmasked)
    assert_close(found, expected)


class Unmasked(DistillationModule):
    def teacher_inputs(self, batch):
        return batch[0]


@pytest.mark.parametrize("mask", ["batch.attention_mask", None], ids=["named", "left out"])
def test_a_mask_that_the_batch_does_not_have_may_be_left_out(mask):
    inputs = {"student": "student.layer:layer", "teacher": "teacher.layer:layer", "mask": mask}
    module = DistillationModule(Net(), Net(), Objective({"hint": Term(Hint(), inputs)}))
    batch = {"x": X, "labels": LABELS}
    if mask is None:
        module.prepare(batch)
        return
    with pytest.raises(ValueError) as info:
        module.prepare(batch)
    message = str(info.value)
    assert "batch.attention_mask is not there: the batch has no 'attention_mask'." in message
    assert "leave the input out, as in criteria.NAME.inputs.mask=null" in message


OF_SOME_BATCHES = {
    "alm": "another tokenizer.*token by token, as with criteria=.fused_linear_divergence.",
    "uld": "another tokenizer.*other models by their answers, as with criteria=.soft_target.",
    "pair_score": "several texts, as with data=embedding_files",
    "row_label": "data=token_files data.row_label=COLUMN",
}


@pytest.mark.parametrize("name", OF_SOME_BATCHES)
def test_an_entry_that_only_some_batches_have_says_what_brings_it(name):
    node = OmegaConf.load(Path(__file__).parents[2] / f"conf/criteria/{name}.yaml")[name]
    for source in map(Source.parse, node.inputs.values()):
        if source.role == "batch" and str(source) != "batch.labels":
            with pytest.raises(ValueError, match=OF_SOME_BATCHES[name]):
                read(source, {"x": X, "labels": LABELS}, {})


def test_the_configuration_of_hint_does_without_its_mask():
    node = OmegaConf.load(Path(__file__).parents[2] / "conf/criteria/hint.yaml").hint
    node.inputs.mask = None
    assert "mask" not in instantiate(node, _convert_="object").inputs


def test_each_row_is_the_one_after_it_in_whatever_holds_it():
    words = ["a", "b", "c"]
    inner = {"ids": X, "length": torch.tensor(3), "names": words}
    turned = next_rows({"x": X, "labels": LABELS, "row": ROW, "teacher": inner, "count": 7})
    assert turned["row"].tolist() == [6, -1, 5] and turned["count"] == 7
    assert turned["labels"].tolist() == [1, 2, 0]
    assert turned["teacher"]["names"] == ["b", "c", "a"] and turned["teacher"]["length"] == 3
    for x in (turned["x"], turned["teacher"]["ids"], next_rows((X, LABELS))[0]):
        assert_close(x, torch.stack([X[1], X[2], X[0]]))
    assert_close(next_rows({"x": X[:1]})["x"], X[:1])


def test_rows_come_again_until_there_are_enough():
    words = ["a", "b", "c"]
    inner = {"ids": X, "length": torch.tensor(3), "names": words}
    made = repeated_rows({"x": X, "labels": LABELS, "teacher": inner, "count": 7}, 5)
    assert made["count"] == 7 and made["teacher"]["length"] == 3
    assert made["teacher"]["names"] == ["a", "b", "c", "a", "b"]
    assert made["labels"].tolist() == [*LABELS.tolist(), *LABELS.tolist()[:2]]
    for x in (made["x"], made["teacher"]["ids"], repeated_rows((X, LABELS), 5)[0]):
        assert_close(x, torch.stack([X[0], X[1], X[2], X[0], X[1]]))
    assert_close(repeated_rows({"x": X}, 1)["x"], X[:1])
