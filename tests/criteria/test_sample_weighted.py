import copy
import inspect
import threading

import pytest
import torch
from processes import in_two_processes
from torch import multiprocessing as mp, nn
from torch.testing import assert_close

from lightning_distill import criteria, Objective, Term
from lightning_distill.criteria import (
    DKD,
    HardLabel,
    Hint,
    KnowledgeDistillation,
    LogitMSE,
    MiniLMRelation,
    sample_weighted,
    SampleWeighted,
    soft_target,
    SoftTarget,
    TAID,
)
from lightning_distill.criteria._check import mean_of
from lightning_distill.criteria._weighing import weighing
from lightning_distill.models.source import Source
from lightning_distill.weights import Focal, TeacherConfidence

BATCH = 6
ROWS = torch.arange(BATCH)
LOGITS, VECTORS, HIDDEN = (BATCH, 10), (BATCH, 5), (BATCH, 4, 8)
MAPS, ATTENTION = (BATCH, 3, 4, 4), (BATCH, 2, 4, 4)
LAYERS = [(BATCH, 3, 4, 4), (BATCH, 3, 4, 4)]
LABELS = {"labels": ROWS % 10}
# Two spans in every row, one of several tokens.
TOKENS = (BATCH, 4, 10)
SPANS = {
    f"{role}_spans": torch.tensor(row).expand(BATCH, 4)
    for role, row in (("student", [0, 0, 1, -1]), ("teacher", [-1, 0, 1, 1]))
}
TEXTS = {"student_labels": ROWS[:, None].expand(BATCH, 4)}
TEXTS["teacher_labels"] = 9 - TEXTS["student_labels"]
NUMBERS = torch.linspace(-1, 1, BATCH * 32, dtype=torch.float64).view(HIDDEN)
KEYS = {"student_key": NUMBERS, "teacher_key": NUMBERS.flip(0)}
# How each is built, the shape of what it compares, and what else it is given.
WEIGHED = {
    "AB": (criteria.AB, MAPS, {}),
    "ALM": (criteria.ALM, TOKENS, SPANS | TEXTS),
    "AttentionKL": (criteria.AttentionKL, ATTENTION, {}),
    "AttentionMSE": (criteria.AttentionMSE, ATTENTION, {}),
    "AttentionScores": (lambda: criteria.AttentionScores(2), HIDDEN, KEYS),
    "AttentionTransfer": (criteria.AttentionTransfer, MAPS, {}),
    "ClassSubset": (lambda: criteria.ClassSubset(classes=[1, 4, 7]), LOGITS, {}),
    "CosineHidden": (criteria.CosineHidden, HIDDEN, {}),
    "CRD": (lambda: criteria.CRD(samples=BATCH, negatives=9), VECTORS, {"rows": ROWS}),
    "CWD": (criteria.CWD, MAPS, {}),
    "DKD": (DKD, LOGITS, LABELS),
    "FSP": (criteria.FSP, LAYERS, {}),
    "FT": (criteria.FT, MAPS, {}),
    "HardLabel": (HardLabel, LOGITS, LABELS),
    "Hint": (Hint, HIDDEN, {}),
    "ICKD": (criteria.ICKD, MAPS, {}),
    "JSD": (criteria.JSD, LOGITS, {}),
    "KDSVD": (criteria.KDSVD, LAYERS, {}),
    "KnowledgeDistillation": (KnowledgeDistillation, LOGITS, LABELS),
    "ListwiseKL": (criteria.ListwiseKL, LOGITS, {}),
    "LogitMSE": (LogitMSE, LOGITS, {}),
    "LogitStandardization": (criteria.LogitStandardization, LOGITS, {}),
    "MarginMSE": (criteria.MarginMSE, LOGITS, {}),
    "MGD": (lambda: criteria.MGD(alpha=0.1, ratio=0.0), MAPS, {}),
    "MiniLMRelation": (lambda: MiniLMRelation(2), HIDDEN, {}),
    "NKD": (criteria.NKD, LOGITS, LABELS),
    "NST": (criteria.NST, MAPS, {}),
    "OFA": (criteria.OFA, LOGITS, LABELS),
    "OFD": (lambda: criteria.OFD(-0.5), MAPS, {}),
    "OneVersusAll": (criteria.OneVersusAll, LOGITS, {}),
    "PatientHidden": (criteria.PatientHidden, HIDDEN, {}),
    "QueueSimilarity": (lambda: criteria.QueueSimilarity(16, 0.5, 0.5), VECTORS, {}),
    "ReverseKL": (criteria.ReverseKL, LOGITS, {}),
    "ReviewKD": (lambda: criteria.ReviewKD(width=4), LAYERS, {}),
    "SkewKL": (criteria.SkewKL, LOGITS, {}),
    "SkewReverseKL": (criteria.SkewReverseKL, LOGITS, {}),
    "SoftCrossEntropy": (criteria.SoftCrossEntropy, LOGITS, {}),
    "SoftTarget": (SoftTarget, LOGITS, {}),
    "TAID": (lambda: TAID(step=0.0), LOGITS, {}),
    "TfKD": (criteria.TfKD, LOGITS, LABELS),
    "TotalVariation": (criteria.TotalVariation, LOGITS, {}),
    "ULD": (criteria.ULD, TOKENS, SPANS),
    "VID": (criteria.VID, MAPS, {}),
    "WSLD": (criteria.WSLD, LOGITS, LABELS),
}
# They compare samples with each other, and have no value for one of them.
REFUSED = {
    "CKA": (criteria.CKA, VECTORS, {}),
    "CorrelationCongruence": (criteria.CorrelationCongruence, VECTORS, {}),
    "DIST": (criteria.DIST, LOGITS, {}),
    "MLKD": (criteria.MLKD, LOGITS, {}),
    "PearsonFeature": (criteria.PearsonFeature, MAPS, {}),
    "PKT": (criteria.PKT, VECTORS, {}),
    "RKD": (criteria.RKD, VECTORS, {}),
    "SimilarityPreserving": (criteria.SimilarityPreserving, VECTORS, {}),
    "SRD": (criteria.SRD, VECTORS, {}),
}
# Of several texts in a row of the data, which weights of samples cannot name.
OF_SEVERAL = {"OfCandidates", "PairScore"}
EACH = pytest.mark.parametrize("name", WEIGHED)
WEIGHTS = torch.tensor([0.5, 2.0, 0.0, 1.0, 0.0, 3.0], dtype=torch.float64)
KEPT = WEIGHTS > 0


class Case:
    """A prepared criterion with what it is given; in evaluation, so that no statistic moves."""

    def __init__(self, name):
        self.build, shape, self.more = (WEIGHED | REFUSED)[name]
        self.many = isinstance(shape, list)
        generator = torch.Generator().manual_seed(0)
        draw = [
            [torch.randn(s, generator=generator, dtype=torch.float64) for s in shape_of]
            for shape_of in [shape if self.many else [shape]] * 2
        ]
        if name == "AttentionKL":
            draw = [[x.softmax(-1) for x in xs] for xs in draw]
        self.student, self.teacher = draw
        self.criterion = self.build()
        if hasattr(self.criterion, "prepare"):
            self.criterion.prepare(**self.arguments())
        if name in ("CRD", "QueueSimilarity"):
            # The first step fills the memory, which later ones are compared with.
            self.criterion(**self.arguments())
        self.criterion.eval()

    def arguments(self, rows=slice(None), **more):
        pick = {name: x[rows] for name, x in self.more.items()}
        pair = [[x[rows] for x in xs] for xs in (self.student, self.teacher)]
        student, teacher = pair if self.many else (x[0] for x in pair)
        found = {"student": student, "teacher": teacher, **pick, **more}
        taken = inspect.signature(self.build().forward).parameters
        if "teacher" not in taken and "named" not in taken:
            del found["teacher"]
        return found

    def watch(self):
        self.student = [x.detach().clone().requires_grad_() for x in self.student]
        return self

    def gradients(self, loss):
        return torch.autograd.grad(loss, self.student)


def test_every_criterion_is_here():
    modules = {n for n in criteria.__all__ if inspect.isclass(getattr(criteria, n))}
    # The fused ones have arguments of their own, and tests of their refusal there.
    fused = {name for name in modules if name.startswith("FusedLinear")}
    others = {"Criterion", "SampleWeighted"} | OF_SEVERAL | fused
    assert WEIGHED.keys() | REFUSED.keys() == modules - others
    assert not WEIGHED.keys() & REFUSED.keys()


@EACH
@pytest.mark.parametrize("normalize", [True, False])
def test_weights_of_one_change_nothing(name, normalize):
    case = Case(name).watch()
    expected = case.criterion(**case.arguments())
    found = SampleWeighted(case.criterion, normalize=normalize)(
        **case.arguments(), weight=torch.ones(BATCH)
    )
    assert_close(found, expected)
    assert_close(case.gradients(found), case.gradients(expected))
    assert expected != 0


@EACH
def test_it_is_the_weighted_mean_of_each_sample_alone(name):
    case = Case(name).watch()
    each = torch.stack([case.criterion(**case.arguments(slice(i, i + 1))) for i in range(BATCH)])
    for normalize, divisor in ((True, WEIGHTS.sum()), (False, BATCH)):
        wrapped = SampleWeighted(case.criterion, normalize=normalize)
        found = wrapped(**case.arguments(), weight=WEIGHTS)
        expected = (WEIGHTS * each).sum() / divisor
        assert_close(found, expected)
        gradients = case.gradients(found)
        assert_close(gradients, torch.autograd.grad(expected, case.student, retain_graph=True))
        assert all(g[KEPT].any() and not g[~KEPT].any() for g in gradients)


@EACH
def test_weight_zero_is_dropping_the_sample(name):
    case = Case(name).watch()
    expected = case.criterion(**case.arguments(KEPT))
    found = SampleWeighted(case.criterion)(**case.arguments(), weight=KEPT)
    assert_close(found, expected)
    assert_close(case.gradients(found), case.gradients(expected))


# What has no label, or no span, is masked by that.
@pytest.mark.parametrize("name", [n for n in WEIGHED if n not in ("HardLabel", "ALM", "ULD")])
def test_what_is_masked_may_have_any_weight(name):
    case = Case(name).watch()
    keep = torch.tensor([True, True, False, True, False, True])
    mask = keep
    if case.student[0].shape in (HIDDEN, ATTENTION):
        mask = keep[:, None].expand(BATCH, 4)
    weights = torch.tensor([0.5, 2.0, torch.nan, 1.0, -7.0, 3.0])
    wrapped = SampleWeighted(case.criterion)
    if name == "KnowledgeDistillation":  # its mask is for the teacher alone
        case.more = {"labels": case.more["labels"].masked_fill(~keep, -100)}
    extra = {"mask": mask[keep]} if mask.dim() == 2 else {}
    expected = wrapped(**case.arguments(keep, **extra), weight=weights[keep])
    found = wrapped(**case.arguments(mask=mask), weight=weights)
    assert_close(found, expected)
    assert_close(case.gradients(found), case.gradients(expected))


# A decomposition of NaN is an error of its own; the mask leaves such samples out.
@pytest.mark.parametrize("name", [name for name in WEIGHED if name != "KDSVD"])
def test_nan_under_weight_zero_does_no_harm(name):
    case = Case(name)
    expected = Case(name).watch()
    loss = SampleWeighted(expected.criterion)(**expected.arguments(), weight=WEIGHTS)
    wanted = expected.gradients(loss)
    case.criterion = expected.criterion
    for x in (*case.student, *case.teacher):
        x[~KEPT] = torch.nan
    found = SampleWeighted(case.criterion)(**case.watch().arguments(), weight=WEIGHTS)
    assert_close(found, loss)
    for g, w in zip(case.gradients(found), wanted, strict=True):
        assert_close(g[KEPT], w[KEPT])


@EACH
@pytest.mark.parametrize("normalize", [True, False])
def test_all_weights_zero_is_zero_with_a_connected_graph(name, normalize):
    case = Case(name).watch()
    wrapped = SampleWeighted(case.criterion, normalize=normalize)
    loss = wrapped(**case.arguments(), weight=torch.zeros(BATCH))
    assert loss == 0 and loss.requires_grad
    assert all(g.isfinite().all() and not g.any() for g in case.gradients(loss))


@pytest.mark.parametrize("name", REFUSED)
def test_criteria_that_compare_samples_are_refused(name):
    case = Case(name)
    words = f"{name} cannot be weighed by sample: it compares samples with each other, or takes a"
    with pytest.raises(ValueError, match=words):
        SampleWeighted(case.criterion)(**case.arguments(), weight=WEIGHTS)
    # What was refused leaves nothing behind.
    assert SoftTarget()(*torch.randn(2, 3, 4)).dim() == 0


class Takes(nn.Module):
    def __init__(self, mean):
        super().__init__()
        self.mean = mean

    def forward(self, student, teacher):
        return self.mean((student - teacher).square())


@pytest.mark.parametrize("criterion", [nn.MSELoss(), Takes(torch.mean)])
def test_criteria_with_a_mean_of_their_own_are_refused(criterion, logits):
    words = "cannot be weighed by sample: .* a mean of its own and not masked_mean"
    wrapped = SampleWeighted(criterion, Focal())
    with pytest.raises(ValueError, match=f"{type(criterion).__name__} {words}"):
        wrapped(*logits)


def test_a_mean_without_samples_and_a_sum_are_refused(logits):
    over_classes = Takes(lambda x: criteria.masked_mean(x.mean(0)))
    with pytest.raises(ValueError, match=r"shape \(16,\) do not fit .* values of shape \(10,\)"):
        SampleWeighted(over_classes, Focal())(*logits)
    of_sum = Takes(lambda x: mean_of(x.sum(), torch.tensor(x.numel())))
    with pytest.raises(ValueError, match="A sum over samples cannot be weighed; take masked_mean"):
        SampleWeighted(of_sum, Focal())(*logits)


def test_one_value_without_samples_among_several_is_refused(logits):
    both = Takes(lambda x: criteria.masked_mean(x.mean(1)) + criteria.masked_mean(x.mean()))
    with pytest.raises(ValueError, match=r"values of shape \(\)"):
        SampleWeighted(both, Focal())(*logits)


def by_loops(values, weights, mask, normalize):
    total = divisor = 0.0
    for place in torch.cartesian_prod(*(torch.arange(n) for n in values.shape)).tolist():
        place = tuple(place) if isinstance(place, list) else (place,)
        if mask[place]:
            w = float(weights[place[: weights.dim()]])
            total += w * float(values[place])
            divisor += w if normalize else 1
    return total / divisor


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("of_rows", [True, False])
def test_agrees_with_the_definition_written_as_loops(normalize, of_rows):
    generator = torch.Generator().manual_seed(0)
    values, weights = torch.rand(2, 5, 7, generator=generator, dtype=torch.float64)
    mask = torch.rand(5, 7, generator=generator) > 0.3
    weights = weights[:, 0] if of_rows else weights
    found = sample_weighted(values, weights, mask, normalize)
    assert found.item() == pytest.approx(by_loops(values, weights, mask, normalize), rel=1e-12)
    found = sample_weighted(values, weights, normalize=normalize)
    everything = torch.ones_like(mask)
    assert found.item() == pytest.approx(by_loops(values, weights, everything, normalize))


@pytest.mark.parametrize("normalize", [True, False])
def test_gradient(normalize):
    generator = torch.Generator().manual_seed(0)
    values, weights = torch.rand(2, 4, 3, generator=generator, dtype=torch.float64)
    mask = torch.tensor([[1, 0, 1], [1, 1, 1], [0, 0, 0], [1, 1, 0]])
    inputs = (values.requires_grad_(), weights.requires_grad_())
    for counted in (None, mask):
        assert torch.autograd.gradcheck(
            lambda v, w, m=counted: sample_weighted(v, w, m, normalize), inputs
        )


@pytest.mark.parametrize("normalize", [True, False])
def test_gradient_within_a_criterion(normalize, logits):
    student, teacher = logits[:, :4]
    weight = torch.tensor([1.0, 0.0, 0.3, 2.0])
    for criterion in (SoftTarget(), Hint("cosine"), KnowledgeDistillation()):
        more = {"labels": torch.arange(4)} if isinstance(criterion, KnowledgeDistillation) else {}
        wrapped = SampleWeighted(criterion, normalize=normalize)
        assert torch.autograd.gradcheck(
            lambda s, c=wrapped, m=more: c(s, teacher, weight=weight, **m),
            (student.requires_grad_(),),
        )


def test_a_learned_weight_has_its_gradient_where_it_is_zero(logits):
    values, weights = torch.tensor([1.0, 5.0, 3.0]), torch.tensor([1.0, 0.0, 1.0])
    weights.requires_grad_()
    sample_weighted(values, weights).backward()
    assert_close(weights.grad, (values - 2.0) / 2)
    weights.grad = None
    values[1] = torch.nan
    sample_weighted(values, weights).backward()
    assert weights.grad.isfinite().all()


class Learned(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, student, teacher, mask=None):
        return (self.scale * (student - teacher).abs().sum(-1)).exp()


def test_a_module_that_learns_does_so_and_its_weights_teach_the_student_nothing(logits):
    student, teacher = logits[0].clone().requires_grad_(), logits[1]
    module = Learned()
    SampleWeighted(SoftTarget(), module)(student, teacher).backward()
    assert module.scale.grad.isfinite() and module.scale.grad != 0
    fixed = logits[0].clone().requires_grad_()
    weight = module(student, teacher).detach()
    SampleWeighted(SoftTarget())(fixed, teacher, weight=weight).backward()
    assert_close(student.grad, fixed.grad)


def test_the_module_sees_logits_and_mask(logits):
    seen = []

    def weight(*given):
        seen.append(given)
        return torch.ones(16)

    mask = torch.ones(16, dtype=torch.bool)
    hidden = torch.randn(2, 16, 3)
    SampleWeighted(LogitMSE(), weight)(*logits, mask=mask)
    SampleWeighted(LogitMSE(), weight)(
        *hidden, weight_student=logits[0].requires_grad_(), weight_teacher=logits[1]
    )
    for student, teacher, _ in seen:
        assert torch.equal(student, logits[0]) and torch.equal(teacher, logits[1])
        assert not student.requires_grad
    assert seen[0][2] is mask and seen[1][2] is None


def test_hidden_states_of_tokens_are_weighed_by_the_logits_of_rows_or_tokens():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 3, 5, 8, generator=generator, dtype=torch.float64)
    tokens = torch.randn(2, 3, 5, 6, generator=generator, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([[5], [2], [3]])
    values = criteria.cosine_hidden(*hidden)
    for logits in (tokens, tokens[:, :, 0]):
        found = SampleWeighted(criteria.CosineHidden(), Focal())(
            *hidden, mask=mask, weight_student=logits[0], weight_teacher=logits[1]
        )
        w = (1 - torch.nn.functional.cosine_similarity(*logits, dim=-1)) ** 2
        w = (w if w.dim() == 2 else w[:, None].expand(3, 5))[mask]
        assert_close(found, (w * values[mask]).sum() / w.sum(), rtol=1e-5, atol=1e-6)


def test_attention_maps_are_weighed_by_row_or_query_and_never_by_head():
    case, weight = Case("AttentionMSE"), torch.rand(BATCH, 4, dtype=torch.float64)
    student, teacher = case.student[0], case.teacher[0]
    wrapped = SampleWeighted(case.criterion)
    values = criteria.attention_mse(student, teacher).mean(-1)
    expected = (weight * values).sum() / weight.sum()
    assert_close(wrapped(student, teacher, weight=weight), expected)
    with pytest.raises(ValueError, match=r"shape \(6, 2\) do not fit .* shape \(6, 4, 4\)"):
        wrapped(student, teacher, weight=torch.rand(BATCH, 2))


def test_an_adapter_goes_between_the_layers_and_not_the_logits(logits):
    inputs = {
        "weight_student": "student.logits",
        "weight_teacher": "teacher.logits",
        "student": "student.layer:a",
        "teacher": "teacher.layer:b",
    }
    term = Term(SampleWeighted(Hint(), Focal()), inputs, adapter="linear")
    logits = logits.float()
    layers = (torch.randn(16, 3), torch.randn(16, 7))
    values = dict(zip(map(Source.parse, inputs.values()), [*logits, *layers], strict=True))
    loss = term.prepare(values, {"student": ["a"], "teacher": ["b"]})
    w = Focal()(*logits)
    found = (term.adapters["0"](layers[0]) - layers[1]).square().mean(1)
    assert_close(loss, (w * found).sum() / w.sum())


def test_samples_without_a_label_need_no_weight(logits):
    student, labels = logits[0], torch.arange(16) % 10
    labels[::3] = -100
    weight = torch.rand(16).masked_fill(labels == -100, torch.nan)
    kept = labels != -100
    values = criteria.hard_label(student, labels)[kept]
    found = SampleWeighted(HardLabel())(student, labels=labels, weight=weight)
    assert_close(found, (weight[kept] * values).sum() / weight[kept].sum())


def test_each_part_of_a_criterion_is_weighed_over_what_counts_in_it(logits):
    student, teacher = logits
    labels = torch.arange(16) % 10
    labels[::3] = -100
    weight, kept = torch.rand(16, dtype=torch.float64), labels != -100
    of_labels = criteria.hard_label(student, labels)[kept]
    of_labels = (weight[kept] * of_labels).sum() / weight[kept].sum()
    of_teacher = (weight * soft_target(student, teacher, 2.0)).sum() / weight.sum()
    criterion = KnowledgeDistillation(2.0, ["CE", "KL"], [0.3, 0.7])
    found = SampleWeighted(criterion)(student, teacher, labels=labels, weight=weight)
    assert_close(found, 0.3 * of_labels + 0.7 * of_teacher)


def test_only_the_ratios_of_weights_matter_unless_they_are_not_normalized(logits):
    weight = torch.rand(16, dtype=torch.float64)
    for scale in (1e-6, 1e6):
        loss = SampleWeighted(SoftTarget())
        assert_close(loss(*logits, weight=scale * weight), loss(*logits, weight=weight))
        loss = SampleWeighted(SoftTarget(), normalize=False)
        assert_close(loss(*logits, weight=scale * weight), scale * loss(*logits, weight=weight))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("bad", "shown"), [(-0.5, "-0.5"), (torch.nan, "nan"), (torch.inf, "inf")])
def test_weights_that_cannot_be_are_refused(bad, shown, normalize, logits):
    weight = torch.ones(16)
    weight[3] = bad
    words = f"Weights of samples must be finite and not negative, got {shown}"
    for criterion in (SoftTarget(), LogitMSE()):
        with pytest.raises(ValueError, match=words):
            SampleWeighted(criterion, normalize=normalize)(*logits, weight=weight)


@pytest.mark.parametrize("shape", [(1,), (16, 1), (16, 10), (15,), (1, 16)])
def test_weights_that_would_broadcast_are_refused(shape, logits):
    words = r"do not fit the criterion's values of shape \(16,\): there must be one weight per samp"
    for criterion in (SoftTarget(), LogitMSE(), Hint()):
        with pytest.raises(ValueError, match=words):
            SampleWeighted(criterion)(*logits, weight=torch.ones(shape))


def test_weights_of_other_samples_than_are_masked_are_refused():
    case = Case("VID")
    mask = torch.ones(BATCH, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"one per sample, for 6 samples, got shape \(5,\)"):
        SampleWeighted(case.criterion)(**case.arguments(mask=mask), weight=torch.ones(5))


def test_one_number_is_refused(logits):
    with pytest.raises(ValueError, match="must be one per sample, got a single number; to weigh t"):
        SampleWeighted(SoftTarget())(*logits, weight=torch.tensor(2.0))
    with pytest.raises(ValueError, match="`weight` must be a module .* got 2.0. One number for"):
        SampleWeighted(SoftTarget(), 2.0)


def test_no_weight_and_two_weights_are_refused(logits):
    with pytest.raises(ValueError, match="SampleWeighted needs weights: a module of .*weights as"):
        SampleWeighted()(*logits)
    with pytest.raises(ValueError, match="two weights per sample, a module and a tensor from the"):
        SampleWeighted(weight=Focal())(*logits, weight=torch.ones(16))
    with pytest.raises(ValueError, match="Weights within weights: one SampleWeighted is inside"):
        SampleWeighted(SampleWeighted(weight=Focal()), Focal())(*logits)


def test_a_module_that_returns_no_tensor_and_layers_without_logits_are_refused(logits):
    with pytest.raises(ValueError, match="function must return a tensor of weights, .* got None"):
        SampleWeighted(weight=lambda *_: None)(*logits)
    case = Case("FSP")
    words = "layers of the student are given, .* add weight_student=student.logits to the term's"
    with pytest.raises(ValueError, match=words):
        SampleWeighted(case.criterion, Focal())(**case.arguments())


def test_an_empty_batch_is_zero():
    student = torch.zeros(0, 4, requires_grad=True)
    loss = SampleWeighted(weight=Focal())(student, torch.zeros(0, 4))
    loss.backward()
    assert loss == 0


def test_weights_in_force_are_those_of_their_thread():
    values, found = torch.tensor([1.0, 3.0]), []
    with weighing(torch.tensor([1.0, 0.0])):
        other = threading.Thread(target=lambda: found.append(criteria.masked_mean(values)))
        other.start()
        other.join()
        assert criteria.masked_mean(values) == 1.0
    assert found[0] == 2.0 and criteria.masked_mean(values) == 2.0


def test_sixteen_bits_are_weighed_in_thirty_two(logits):
    student, teacher = logits.bfloat16()
    weight = torch.rand(16).bfloat16()
    loss = SampleWeighted(SoftTarget())(student, teacher, weight=weight)
    assert loss.dtype == torch.float32
    exact = SampleWeighted(SoftTarget())(student.double(), teacher.double(), weight=weight.double())
    assert_close(loss.double(), exact, rtol=1e-4, atol=1e-5)


def test_trained_parts_are_built_for_each_pair_of_layers():
    generator = torch.Generator().manual_seed(0)
    wrapped = SampleWeighted(criteria.VID(), Focal())
    assert wrapped.builds_parts and not SampleWeighted().builds_parts
    inputs = {
        "student": "student.hidden_states[*]",
        "teacher": "teacher.hidden_states[*]",
        "weight_student": "student.logits",
        "weight_teacher": "teacher.logits",
    }
    term = Term(wrapped, inputs)
    maps = [[torch.randn(4, c, 3, 3, generator=generator) for _ in range(2)] for c in (2, 5)]
    logits = torch.randn(2, 4, 6, generator=generator)
    values = dict(zip(map(Source.parse, inputs.values()), [*maps, *logits], strict=True))
    loss = term.prepare(values, {"student": [], "teacher": []})
    parts = [term.criterion.criterion, term.copies["1"].criterion]
    assert all(part.mean is not None for part in parts) and parts[0].mean is not parts[1].mean
    weight = Focal()(*logits)
    plain = [
        SampleWeighted(copy.deepcopy(part))(s, t, weight=weight)
        for part, s, t in zip(parts, *maps, strict=True)
    ]
    assert_close(loss, torch.stack(plain).mean())


def test_a_column_of_the_batch_weighs_a_term(logits):
    inputs = {"student": "student.logits", "teacher": "teacher.logits", "weight": "batch.weight"}
    objective = Objective({"soft": Term(SampleWeighted(SoftTarget()), inputs)})
    weight = torch.tensor([0.0, 0.5, 1.0, 3.0] * 4, dtype=torch.float64)
    tensors = (logits[0].clone().requires_grad_(), logits[1], weight)
    values = dict(zip(map(Source.parse, inputs.values()), tensors, strict=True))
    objective.prepare(values, {"student": [], "teacher": []})
    expected = (weight * soft_target(*logits, 4.0)).sum() / weight.sum()
    assert_close(objective(values)["soft"], expected)
    # The logged mean over the epoch divides by the weights, as each batch does.
    assert objective.counts(values) == {"soft": 18}
    plain = Objective({"soft": Term(SampleWeighted(SoftTarget(), normalize=False), inputs)})
    assert plain.counts(values) == {"soft": 16}
    values[Source.parse("batch.weight")] = torch.zeros(16)
    losses = objective(values)
    assert losses["soft"] == 0 and objective.counts(values) == {"soft": 0}
    objective.check(losses, [tensors[0]], values)
    values[Source.parse("batch.weight")] = torch.ones(15)
    with pytest.raises(ValueError, match=r"'soft' .*on the first batch: Weights of shape \(15,\)"):
        objective.prepare(values, {"student": [], "teacher": []})


def test_rows_with_weights_and_tokens_with_a_mask_are_counted():
    inputs = {"student": "student.logits", "mask": "batch.mask", "weight": "batch.weight"}
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    term = Term(SampleWeighted(LogitMSE()), {**inputs, "teacher": "teacher.logits"})
    values = {
        Source.parse("batch.mask"): mask,
        Source.parse("batch.weight"): torch.tensor([0.5, 0.0]),
    }
    assert Objective({"one": term}).counts(values) == {"one": 1}
    term.criterion.normalize = False
    assert Objective({"one": term}).counts(values) == {"one": 5}


def _inputs():
    generator = torch.Generator().manual_seed(0)
    x, teacher = torch.randn(2, 7, 4, generator=generator, dtype=torch.float64)
    matrix = torch.randn(4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([True, False, True, True, True, True, False])
    return x, teacher, matrix, mask


# Unequal parts. Weights of a module are known when the models have run, so these means gather; of
# others the step is counted before.
PARTS = [slice(0, 4), slice(4, 7)]
DDP = ["module", "learned"]


def _loss(kind, rows):
    x, teacher, matrix, mask = _inputs()
    student, teacher, mask = x[rows] @ matrix, teacher[rows], mask[rows]
    learned = Learned() if kind == "learned" else None
    loss = SampleWeighted(SoftTarget(), learned or Focal())(student, teacher, mask=mask)
    loss.backward()
    return [matrix.grad, *([learned.scale.grad] if learned else [])]


def _worker(rank, store, results):
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    for kind in DDP:
        gradients = _loss(kind, PARTS[rank])
        for gradient in gradients:
            torch.distributed.all_reduce(gradient)
        results[rank, kind] = [(g / 2).tolist() for g in gradients]
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradient_of_one_with_the_whole_batch(tmp_path):
    with mp.Manager() as manager:
        results = manager.dict()
        in_two_processes(_worker, (str(tmp_path / "store"), results))
        found = dict(results)
    for kind in DDP:
        expected = _loss(kind, slice(None))
        for rank in range(2):
            for g, wanted in zip(found[rank, kind], expected, strict=True):
                assert_close(torch.tensor(g, dtype=torch.float64), wanted, rtol=1e-6, atol=1e-9)
                assert wanted.any()


@pytest.mark.parametrize("weight", [Focal(), TeacherConfidence()])
def test_a_term_with_a_module_learns(weight, logits):
    student = logits[0].clone().requires_grad_()
    loss = SampleWeighted(SoftTarget(), weight)
    before = loss(student, logits[1])
    (gradient,) = torch.autograd.grad(before, student)
    assert loss(student - gradient, logits[1]) < before
