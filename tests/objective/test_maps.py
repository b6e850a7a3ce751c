"""Maps of convolutions and tokens of transformers, against a naive writing in float64."""

import numpy as np
import pytest
import torch
from tiny import loader, trainer
from torch.testing import assert_close
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from lightning_distill import distill, Term
from lightning_distill.criteria import AttentionTransfer, Hint
from lightning_distill.models.source import Source
from lightning_distill.objective import Maps
from lightning_distill.teachers import CachedTeacher, CachingTeacher

SOURCES = {"student": "student.layer:a", "teacher": "teacher.layer:b"}


def prepared(student, teacher, adapter="map", criterion=None):
    term = Term(criterion or Hint(), SOURCES, adapter=adapter)
    values = {Source.parse(SOURCES["student"]): student, Source.parse(SOURCES["teacher"]): teacher}
    return term, term.prepare(values, {"student": [], "teacher": []})


def naive_map(tokens, extra, height, width):
    made = np.zeros((tokens.shape[0], tokens.shape[2], height, width))
    for i in range(height):
        for j in range(width):
            made[:, :, i, j] = tokens[:, extra + i * width + j]
    return made


def naive_pooled(values, size):
    """Each value the mean of all pixels that its part of the picture touches, as torch cuts it."""
    (height, width), (to_height, to_width) = values.shape[2:], size
    made = np.zeros((*values.shape[:2], *size))
    for i in range(to_height):
        rows = slice(i * height // to_height, -(-(i + 1) * height // to_height))
        for j in range(to_width):
            columns = slice(j * width // to_width, -(-(j + 1) * width // to_width))
            made[:, :, i, j] = values[:, :, rows, columns].mean(axis=(2, 3))
    return made


def naive_stretched(values, size):
    """Between the middles of the pixels; at the borders as the outermost ones."""
    for axis, wanted in ((2, size[0]), (3, size[1])):
        there = values.shape[axis]
        made = []
        for i in range(wanted):
            place = min(max((i + 0.5) * there / wanted - 0.5, 0), there - 1)
            below = int(place)
            above, share = min(below + 1, there - 1), place - below
            made.append((1 - share) * values.take(below, axis) + share * values.take(above, axis))
        values = np.stack(made, axis)
    return values


def naive_projected(values, term):
    (convolution,) = [m for m in term.adapters.modules() if isinstance(m, torch.nn.Conv2d)]
    weight, bias = (p.detach().numpy() for p in (convolution.weight, convolution.bias))
    return np.einsum("rchw,oc->rohw", values, weight[:, :, 0, 0]) + bias[:, None, None]


def draw(*shape):
    random = np.random.default_rng(sum(shape))
    return torch.from_numpy(random.standard_normal(shape))


def test_a_convolution_learns_from_tokens():
    # A map of 8 x 8 is pooled to the 3 x 3 patches behind a class token.
    student, teacher = draw(2, 5, 8, 8), draw(2, 1 + 9, 7)
    term, loss = prepared(student, teacher)
    made = naive_projected(naive_pooled(student.numpy(), (3, 3)), term)
    expected = ((made - naive_map(teacher.numpy(), 1, 3, 3)) ** 2).mean()
    assert_close(loss.item(), expected)


def test_tokens_learn_from_a_convolution():
    # The 2 x 4 patches behind a class token and 4 registers are stretched to a map of 4 x 8.
    student, teacher = draw(2, 5 + 8, 5), draw(2, 7, 4, 8)
    term, loss = prepared(student, teacher)
    patches = naive_map(student.numpy(), 5, 2, 4)
    made = naive_projected(naive_stretched(patches, (4, 8)), term)
    assert_close(loss.item(), ((made - teacher.numpy()) ** 2).mean())


def test_one_side_may_shrink_while_the_other_grows():
    student, teacher = draw(2, 3, 9, 2), draw(2, 3, 4, 5)
    term, loss = prepared(student, teacher)
    made = naive_stretched(naive_pooled(student.numpy(), (4, 2)), (4, 5))
    assert_close(loss.item(), ((made - teacher.numpy()) ** 2).mean())
    # As many channels: nothing is trained.
    assert not list(term.parameters())


def test_tokens_of_two_patch_sizes_and_the_channels_of_a_map():
    student, teacher = draw(2, 1 + 16, 4), draw(2, 2 + 4, 4)
    _, loss = prepared(student, teacher, criterion=AttentionTransfer())
    pooled = naive_pooled(naive_map(student.numpy(), 1, 4, 4), (2, 2))
    maps = (pooled, naive_map(teacher.numpy(), 2, 2, 2))
    assert_close(loss, AttentionTransfer()(*map(torch.from_numpy, maps)))


def test_how_many_tokens_are_no_patches_may_be_said():
    # 9 tokens are 3 x 3 patches, or 5 others and 2 x 2.
    student, teacher = draw(2, 3, 2, 2), draw(2, 9, 3)
    term, _ = prepared(student, teacher)
    assert term.views["0"].extra == 0
    term, loss = prepared(student, teacher, Maps(teacher_extra=5))
    assert_close(loss.item(), ((student.numpy() - naive_map(teacher.numpy(), 5, 2, 2)) ** 2).mean())


@pytest.mark.parametrize(
    ("student", "teacher", "adapter", "said"),
    [
        ((2, 3), (2, 3, 4, 4), "map", r"compares maps \(rows, channels.*shapes \(2, 3\) and"),
        (
            (2, 31, 3),
            (2, 3, 4, 5),
            "map",
            r"student has 31 tokens .* as 4 to 5.*student_extra",
        ),
        (
            (2, 3, 4, 4),
            (2, 17, 3),
            Maps(teacher_extra=2),
            r"teacher has 17 .* first 2 they fill",
        ),
        ((2, 3, 4, 4), (2, 17, 3), "linear", r"cannot change the number .*adapter=map"),
        ((2, 3, 8, 8), (2, 3, 4, 4), "linear", r"one dimension .*resized by adapter=map"),
        ((2, 3, 8, 8), (2, 4, 8, 8), "none", r"'linear', 'map', null or a module, got 'none'"),
    ],
)
def test_what_cannot_be_matched_is_refused(student, teacher, adapter, said):
    with pytest.raises(ValueError, match=said):
        prepared(draw(*student), draw(*teacher), adapter)


def models():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"embedding_size": 4, "hidden_sizes": [4, 6], "depths": [1, 1], "num_labels": 3}
        student = ResNetForImageClassification(ResNetConfig(**sizes, layer_type="basic"))
        more = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 3}
        vit = ViTConfig(**more, intermediate_size=8, image_size=32, patch_size=8)
        return student, ViTForImageClassification(vit).eval()


@pytest.mark.parametrize("swapped", [False, True])
def test_both_directions_train_by_name_and_leave_no_adapter_behind(swapped, tmp_path):
    student, teacher = reversed(models()) if swapped else models()
    student.train()
    names = {"student": "resnet.encoder.stages.1", "teacher": "vit.layers.1"}
    if swapped:
        names = {"student": names["teacher"], "teacher": names["student"]}
    inputs = {role: f"{role}.layer:{path}" for role, path in names.items()}
    before, keys = [p.detach().clone() for p in teacher.parameters()], {*student.state_dict()}
    start = {n: p.detach().clone() for n, p in student.named_parameters()}
    batches = [
        {"pixel_values": draw(4, 3, 32, 32).float() + i, "row": torch.arange(4) + 4 * i}
        for i in range(2)
    ]
    terms = {"maps": Term(Hint(), inputs, adapter="map")}
    trained = distill(student, teacher, loader(batches), terms, trainer(tmp_path))
    changed = [n for n, p in trained.named_parameters() if not torch.equal(p, start[n])]
    assert changed and {*trained.state_dict()} == keys
    assert all(map(torch.equal, before, teacher.parameters()))

    # The same from kept answers, while they are made and afterwards.
    keeping = CachingTeacher(teacher, tmp_path / "kept", hidden_dtype="float32")
    for other in (lambda: keeping, lambda: CachedTeacher(tmp_path / "kept")):
        fresh = (tuple(reversed(models())) if swapped else models())[0].train()
        terms = {"maps": Term(Hint(), inputs, adapter="map")}
        again = distill(fresh, other(), loader(batches), terms, trainer(tmp_path))
        assert_close(again.state_dict(), trained.state_dict(), atol=1e-6, rtol=0)
