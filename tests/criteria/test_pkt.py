import pytest
import torch
from torch.testing import assert_close

from lightning_distill.criteria import PKT, pkt


def cosine(a, b):
    return (a @ b) / (a @ a).sqrt() / (b @ b).sqrt()


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_agrees_with_the_definition(variant):
    models = torch.randn(5, 3).double(), torch.randn(5, 8).double()
    q, p = ([[(cosine(a, b) + 1) / 2 for b in x] for a in x] for x in models)
    total = 0.0
    for i in range(5):
        others = [j for j in range(5) if j != i or variant == "code"]
        for j in others:
            p_ij = p[i][j] / sum(p[i][k] for k in others)
            q_ij = q[i][j] / sum(q[i][k] for k in others)
            total += p_ij * (p_ij / q_ij).log()
    expected = total / (25 if variant == "code" else 5)
    assert_close(pkt(*models, variant), expected, rtol=1e-5, atol=1e-6)


def test_a_rotation_and_a_scale_change_nothing():
    x = torch.randn(6, 4).double()
    rotation, _ = torch.linalg.qr(torch.randn(4, 4).double())
    assert_close(PKT()(3 * x @ rotation, x), torch.zeros(()).double())


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="`variant` must be one of paper, code, got 'cod'"):
        PKT("cod")
