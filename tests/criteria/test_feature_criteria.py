"""What every criterion between features must do, whatever its formula."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_distill.criteria import (
    AB,
    AttentionKL,
    AttentionMSE,
    AttentionTransfer,
    CKA,
    CosineHidden,
    CWD,
    FSP,
    FT,
    Hint,
    ICKD,
    KDSVD,
    MiniLMRelation,
    NST,
    OFD,
    PatientHidden,
    PearsonFeature,
    VID,
)


class Layers(nn.Module):
    """A criterion between lists of maps, given two of each."""

    def __init__(self, criterion):
        super().__init__()
        self.criterion = criterion

    def forward(self, student, teacher, mask=None):
        return self.criterion(*([x, x.roll(1, 2)] for x in (student, teacher)), mask)


HIDDEN, MAPS, ATTENTION = (6, 4, 8), (6, 3, 4, 4), (6, 2, 4, 4)
CASES = {
    "Hint": (Hint, HIDDEN),
    "Hint l1": (lambda: Hint("l1"), HIDDEN),
    "CosineHidden": (CosineHidden, HIDDEN),
    "PatientHidden": (PatientHidden, HIDDEN),
    "MiniLMRelation": (lambda: MiniLMRelation(2), HIDDEN),
    "CKA": (CKA, HIDDEN),
    "AttentionMSE": (AttentionMSE, ATTENTION),
    "AttentionKL": (AttentionKL, ATTENTION),
    "AttentionTransfer": (AttentionTransfer, MAPS),
    "AttentionTransfer code": (lambda: AttentionTransfer(variant="code"), MAPS),
    "NST": (NST, MAPS),
    "CWD": (CWD, MAPS),
    "FSP": (lambda: Layers(FSP()), MAPS),
    "FSP repdistiller": (lambda: Layers(FSP("repdistiller")), MAPS),
    "FSP torchdistill": (lambda: Layers(FSP("torchdistill")), MAPS),
    "KDSVD": (lambda: Layers(KDSVD()), MAPS),
    "KDSVD 2": (lambda: Layers(KDSVD(2)), MAPS),
    "ICKD": (ICKD, MAPS),
    "PearsonFeature": (PearsonFeature, MAPS),
    "VID": (VID, MAPS),
    "FT": (FT, MAPS),
    "FT code": (lambda: FT(variant="code", p=2.0), MAPS),
    "AB": (AB, MAPS),
    "OFD": (lambda: OFD(-0.5), MAPS),
}
# Those with parts of their own between student and teacher, and AB, which wants a margin.
APART = ("VID", "FT", "FT code", "AB", "OFD")
EACH = pytest.mark.parametrize("name", CASES)


def given(name, scale=1.0, dtype=torch.float64):
    build, shape = CASES[name]
    generator = torch.Generator().manual_seed(0)
    pair = scale * torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    if name == "AttentionKL":
        pair = pair.softmax(-1)
    student, teacher = pair.to(dtype)
    criterion = build()
    if hasattr(criterion, "prepare"):
        torch.manual_seed(0)
        criterion.prepare(student, teacher)
    return criterion, student, teacher


@EACH
def test_gradient(name):
    criterion, student, teacher = given(name)
    student, teacher = student[:3], teacher[:3]
    check = torch.autograd.gradcheck
    assert check(lambda s: criterion(s, teacher), (student.requires_grad_(),), atol=1e-4)


@EACH
def test_the_order_of_the_batch_does_not_matter(name):
    criterion, student, teacher = given(name)
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    assert_close(criterion(student[order], teacher[order]), criterion(student, teacher))


@pytest.mark.parametrize("name", [name for name in CASES if name not in APART])
def test_equal_features_are_zero(name):
    criterion, student, _ = given(name)
    found = criterion(student, student.clone())
    assert_close(found, torch.zeros((), dtype=torch.float64), atol=1e-10, rtol=0.0)


@EACH
def test_a_mask_of_samples_or_tokens_is_dropping_them(name):
    criterion, student, teacher = given(name)
    keep = torch.tensor([True, False, True, True, False, True])
    mask = keep if CASES[name][1] == MAPS else keep[:, None].expand(6, 4)
    # With a mask, tokens are the samples of CKA.
    expected = criterion(student[keep], teacher[keep], mask[keep])
    student[~keep] = torch.nan
    assert_close(criterion(student, teacher, mask), expected)


@EACH
def test_all_masked_is_zero_with_a_finite_gradient(name):
    criterion, student, teacher = given(name)
    mask = torch.zeros(CASES[name][1][:1] if CASES[name][1] == MAPS else (6, 4), dtype=torch.bool)
    loss = criterion(student.requires_grad_(), teacher, mask)
    loss.backward()
    assert loss == 0 and student.grad.isfinite().all()


@EACH
@pytest.mark.parametrize("scale", [0.0, 1e-10, 1e4])
def test_extreme_features_give_finite_gradients(name, scale):
    criterion, student, teacher = given(name, scale, torch.float32)
    loss = criterion(student.requires_grad_(), teacher)
    loss.backward()
    assert loss.isfinite() and student.grad.isfinite().all()


@EACH
def test_one_sample_gives_a_finite_gradient(name):
    criterion, student, teacher = given(name, dtype=torch.float32)
    for context in (torch.enable_grad(), torch.autocast("cpu", torch.bfloat16)):
        first = student[:1].clone().requires_grad_()
        with context:
            loss = criterion(first, teacher[:1])
        loss.backward()
        assert loss.isfinite() and first.grad.isfinite().all()


@EACH
def test_a_mask_of_all_is_none(name):
    criterion, student, teacher = given(name)
    mask = torch.ones(CASES[name][1][:1] if CASES[name][1] == MAPS else (6, 4), dtype=torch.long)
    # With a mask, tokens are the samples of CKA.
    if name != "CKA":
        assert_close(criterion(student, teacher, mask), criterion(student, teacher))


# The gradient of a distance by absolute values has length 1 up to the end, on either side.
@pytest.mark.parametrize("name", [name for name in CASES if name not in (*APART, "Hint l1")])
def test_an_equal_student_has_no_gradient(name):
    criterion, student, _ = given(name)
    criterion(student.requires_grad_(), student.detach().clone()).backward()
    if name == "AttentionKL":  # Up to a shift of a row, which the softmax before it takes away.
        student.grad -= student.grad.mean(-1, keepdim=True)
    assert_close(student.grad, torch.zeros_like(student), atol=1e-9, rtol=0.0)


@EACH
def test_sixteen_bits_are_computed_in_thirty_two(name):
    criterion, student, teacher = given(name, dtype=torch.bfloat16)
    expected = criterion(student.double(), teacher.double())
    with torch.autocast("cpu", torch.bfloat16):
        loss = criterion(student, teacher)
    assert loss.dtype == torch.float32
    assert_close(loss.double(), expected, rtol=1e-4, atol=1e-6)
