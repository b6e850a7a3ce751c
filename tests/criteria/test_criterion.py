"""What the house may ask of a criterion: of ours, of those around others, and of anyone's."""

from functools import partial

import every
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from lightning_distill import criteria, Objective, Term
from lightning_distill.criteria import (
    AttentionMSE,
    ClassSubset,
    CRD,
    Criterion,
    FT,
    HardLabel,
    KnowledgeDistillation,
    LogitStandardization,
    OneVersusAll,
    RKD,
    SampleWeighted,
    SoftTarget,
    VID,
)
from lightning_distill.criteria._plain import as_criterion
from lightning_distill.models.source import Source
from lightning_distill.schedules import Linear
from lightning_distill.weights import Focal

LABELS = torch.tensor([0, 2, -100, 1])
MASK = torch.tensor([1, 0, 1, 1])
WRAPPERS = (ClassSubset, LogitStandardization, OneVersusAll, SampleWeighted)


def test_a_criterion_has_an_answer_to_every_question():
    criterion = Criterion()
    assert criterion.counted() is None and criterion.counted_labels() is None
    assert criterion.counted(labels=LABELS).tolist() == [True, True, False, True]
    assert criterion.counted(mask=MASK).tolist() == [True, False, True, True]
    assert criterion.counted(labels=LABELS, mask=MASK).tolist() == [True, False, False, True]
    assert criterion.logged() == {} and criterion.parts() == {}
    assert criterion.with_gradient() is None and not criterion.builds_parts
    assert not (criterion.across_samples or criterion.gather or criterion.needs_classes)


@pytest.mark.parametrize("name", sorted(every.CASES))
def test_every_case_counts_what_it_is_the_mean_of(name):
    case = every.CASES[name]
    batch = every.batch(5, 3)
    term = case.term(name)
    for _, part in term.expanded().values():
        read = {n: batch[s.name] for n, s in part.inputs.items() if s.role == "batch"}
        counted = part.criterion.counted(**read)
        assert counted is None or counted.sum() < counted.numel()


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_passes_on_what_it_wraps(wrapper):
    class Inner(SoftTarget):
        across_samples = gather = any_classes = True

        def counted(self, **inputs):
            return inputs["mask"] == 7

        def logged(self):
            return {"inner": torch.tensor(1.0)}

        def observe(self, value):
            heard.append(value)

        def prepare(self, student, teacher, mask=None):
            heard.append((student.shape, teacher.shape))

    heard = []
    outer = wrapper(Inner())
    assert outer.across_samples and outer.gather and outer.any_classes and outer.takes_mask
    assert outer.counted(mask=torch.tensor([7, 1])).tolist() == [True, False]
    assert outer.logged() == {"inner": 1.0}
    outer.observe(torch.tensor(2.0))
    assert outer.builds_parts
    outer.prepare(torch.zeros(4, 3), torch.zeros(4, 3), mask=MASK)
    assert heard[0] == 2.0 and heard[1][0][0] == 4
    assert not wrapper(HardLabel()).takes_mask and not wrapper(SoftTarget()).builds_parts


def test_a_softmax_over_classes_is_said():
    assert SoftTarget().needs_classes and ClassSubset(SoftTarget()).needs_classes
    assert LogitStandardization().needs_classes and not HardLabel().needs_classes
    # Each label has two classes of its own.
    assert not OneVersusAll(SoftTarget()).needs_classes


def test_labels_of_classes_that_are_left_out_do_not_count():
    criterion = ClassSubset(criteria.DKD(), [0, 2])
    assert criterion.counted(labels=LABELS).tolist() == [True, True, False, False]
    many = torch.tensor([[0.0, 1.0], [torch.nan, 1.0]])
    counted = OneVersusAll(criteria.DKD()).counted(labels=many, mask=torch.tensor([1, 1]))
    assert counted.tolist() == [[True, True], [False, True]]


def test_pairs_of_tokens_samples_of_the_training_data_and_weights_count():
    mask = torch.tensor([[1, 1, 0]])
    assert AttentionMSE().counted(mask=mask).sum() == 4
    rows = torch.tensor([3, -1, 5])
    assert CRD(9).counted(rows=rows, labels=torch.full((3,), -100)).tolist() == [True, False, True]
    weighted = SampleWeighted(SoftTarget())
    found = weighted.counted(mask=mask, weight=torch.tensor([0.5]))
    assert found.tolist() == [[0.5, 0.5, 0.0]]
    assert SampleWeighted(SoftTarget(), normalize=False).counted(mask=mask, weight=MASK).sum() == 2
    # Of weights that are made of logits nothing is known before the models have run.
    assert SampleWeighted(weight=Focal()).gather and not weighted.gather


# Anyone's.

LOGITS = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
WEIGHT = torch.tensor([0.1, 2.0, 3.0], dtype=torch.float64)


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(WEIGHT),
        nn.CrossEntropyLoss(WEIGHT, label_smoothing=0.2),
        nn.CrossEntropyLoss(ignore_index=1),
        F.cross_entropy,
        partial(F.cross_entropy, weight=WEIGHT, ignore_index=2),
    ],
)
def test_losses_of_torch_are_the_sum_of_their_parts(loss):
    criterion = as_criterion(loss)
    target = LABELS.clamp(min=0) if "1" in str(loss) or "2" in str(loss) else LABELS
    target = target if getattr(loss, "ignore_index", -100) == -100 else LABELS.clamp(min=0)
    assert_close(criterion(LOGITS, target), loss(LOGITS, target))
    parts = [slice(0, 1), slice(1, 4)]
    counts = [criterion.counted(target=target[p]).sum() for p in parts]
    values = [criterion(LOGITS[p], target[p]) for p in parts]
    whole = sum(n * v for n, v in zip(counts, values, strict=True)) / sum(counts)
    assert_close(whole, loss(LOGITS, target))


def test_a_loss_of_torch_without_targets_is_zero_with_a_graph():
    logits = LOGITS.clone().requires_grad_()
    loss = as_criterion(nn.CrossEntropyLoss(WEIGHT))(logits, torch.full((4,), -100))
    loss.backward()
    assert loss == 0 and logits.grad.count_nonzero() == 0


def test_probabilities_as_targets_and_other_losses_count_by_rows():
    target = LOGITS.softmax(-1)
    criterion = as_criterion(nn.CrossEntropyLoss())
    assert criterion.counted(target=target) is None
    assert_close(criterion(LOGITS, target), nn.CrossEntropyLoss()(LOGITS, target))
    assert as_criterion(nn.MSELoss()).counted(target=target) is None


def test_a_function_may_return_one_value_per_sample():
    def squares(student, teacher, mask=None):
        return (student - teacher).square().sum(-1)

    criterion = as_criterion(squares)
    values = squares(LOGITS, 2 * LOGITS)
    assert_close(criterion(LOGITS, 2 * LOGITS), values.mean())
    masked = criterion(LOGITS, 2 * LOGITS, mask=MASK)
    assert_close(masked, values[MASK.bool()].mean())
    assert criterion.takes_mask and criterion.counted(mask=MASK).sum() == 3


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_sum_is_no_mean(reduction):
    words = f"MSELoss has reduction='{reduction}', and a term is one mean.*reduction='mean'"
    with pytest.raises(ValueError, match=words):
        Term(nn.MSELoss(reduction=reduction), {"input": "student.logits", "target": "batch.y"})


def test_what_cannot_be_called_or_says_no_arguments_is_refused():
    with pytest.raises(ValueError, match="a module or a function that returns a scalar, got int"):
        as_criterion(3)
    with pytest.raises(ValueError, match="mse_loss takes no argument 'student'"):
        Term(F.mse_loss, {"student": "student.logits", "target": "teacher.logits"})


def test_a_module_that_has_a_member_of_a_criterion_is_asked_for_it():
    class Mine(nn.Module):
        shift_labels = True

        def counted(self, **inputs):
            return inputs["x"] > 2

        def logged(self):
            return {"mine": torch.ones(())}

        def forward(self, student, x):
            return student.mean()

    criterion = as_criterion(Mine())
    assert criterion.shift_labels and criterion.logged() == {"mine": 1.0}
    assert criterion.counted(x=torch.tensor([1, 3])).tolist() == [False, True]


# Several means.


def test_each_mean_of_knowledge_distillation_is_a_term():
    inputs = {
        "student": "student.logits",
        "teacher": "teacher.logits",
        "labels": "batch.labels",
    }
    criterion = KnowledgeDistillation(2.0, ["CE", "KL"], [0.3, 0.7])
    term = Term(criterion, inputs, weight=Linear(0.0, 2.0))
    objective = Objective({"kd": term})
    assert list(objective.terms) == ["kd_label", "kd_teacher"]
    objective.advance(0.5)
    assert objective.weights() == pytest.approx({"kd_label": 0.3, "kd_teacher": 0.7})
    tensors = (LOGITS, 2 * LOGITS.flip(0), LABELS)
    values = dict(zip(map(Source.parse, inputs.values()), tensors, strict=True))
    losses = objective(values)
    assert_close(losses["kd"], criterion(*tensors))
    assert_close(losses["loss"], criterion(*tensors))
    assert objective.counts(values) == {"kd_label": 3, "kd_teacher": 4}


def test_weights_go_with_each_mean():
    criterion = SampleWeighted(KnowledgeDistillation(), Focal())
    inputs = {"student": "student.logits", "teacher": "teacher.logits", "labels": "batch.labels"}
    objective = Objective({"kd": Term(criterion, inputs)})
    tensors = (LOGITS, LOGITS.flip(0), LABELS)
    values = dict(zip(map(Source.parse, inputs.values()), tensors, strict=True))
    expected = criterion(*tensors[:2], labels=LABELS)
    assert_close(objective(values)["kd"], expected)


def test_names_that_two_terms_would_have_are_refused():
    logits = {"student": "student.logits", "teacher": "teacher.logits"}
    both = Term(KnowledgeDistillation(), {**logits, "labels": "batch.labels"})
    with pytest.raises(ValueError, match="kd_teacher is the name of two terms, one of them a part"):
        Objective({"kd": both, "kd_teacher": Term(SoftTarget(), logits)})


@pytest.mark.parametrize("name", ["keys", "type", "values", "f1.macro", "loss", ""])
def test_names_that_cannot_be_are_refused(name):
    term = Term(SoftTarget(), {"student": "student.logits", "teacher": "teacher.logits"})
    with pytest.raises(ValueError, match=r"cannot be called|must be a plain word"):
        Objective({name: term})


OF_MAPS = [
    "AttentionTransfer",
    "CWD",
    "FT",
    "ICKD",
    "MGD",
    "NST",
    "OFD",
    "PearsonFeature",
    "VID",
    "AB",
]


@pytest.mark.parametrize(
    ("name", "shape"),
    # The places that CWD compares may be in a row.
    [(n, s) for n in OF_MAPS for s in [(4, 6), (4, 5, 6)] if (n, len(s)) != ("CWD", 3)],
)
def test_what_compares_maps_says_so_of_vectors(name, shape):
    criterion = getattr(criteria, name)()
    student, teacher = torch.randn(shape), torch.randn(*shape[:1], 8, *shape[2:])
    teacher = torch.randn(shape[0], shape[1] + 2, *shape[2:])
    words = rf"{name} compares .* the student's features have shape \({shape[0]}, {shape[1]}"
    with pytest.raises(ValueError, match=words):
        criterion.prepare(student, teacher)
        criterion(student, teacher)


def test_lists_of_vectors_are_refused_by_name():
    for criterion in (criteria.FSP(), criteria.KDSVD()):
        layers = [torch.randn(4, 6)] * 2
        with pytest.raises(ValueError, match=f"{type(criterion).__name__} compares feature maps"):
            criterion(layers, layers)


def test_trained_parts_are_said():
    assert FT().builds_parts and VID().builds_parts and not RKD().builds_parts
