import torch
from torch.testing import assert_close

from lightning_distill.criteria import similarity_preserving, SimilarityPreserving


def test_agrees_with_the_definition():
    student, teacher = torch.randn(5, 3).double(), torch.randn(5, 8).double()
    total = 0.0
    grams = [x @ x.T for x in (student, teacher)]
    for i in range(5):
        rows = [g[i] / (g[i] ** 2).sum().sqrt() for g in grams]
        total += ((rows[0] - rows[1]) ** 2).sum()
    assert_close(similarity_preserving(student, teacher), total / 25)


def test_a_rotation_and_a_scale_change_nothing():
    x = torch.randn(6, 4).double()
    rotation, _ = torch.linalg.qr(torch.randn(4, 4).double())
    assert_close(SimilarityPreserving()(3 * x @ rotation, x), torch.zeros(()).double())


def test_feature_maps_are_flattened():
    student, teacher = torch.randn(4, 3, 2, 2), torch.randn(4, 5, 4, 4)
    expected = similarity_preserving(student.flatten(1), teacher.flatten(1))
    assert_close(SimilarityPreserving()(student, teacher), expected)
