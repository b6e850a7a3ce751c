"""What is said where timm cannot be imported; the rest is in the tests that have timm."""

import importlib
import sys

import pytest
import torch

from lightning_distill.models.timm_models import classes_of
from lightning_distill.students import timm as student
from lightning_distill.teachers import timm as teacher


@pytest.mark.parametrize("make", [student, teacher])
def test_without_timm_is_said_what_to_install(make, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"timm and torchvision .* 'lightning-distill\[vision\]'"):
        make("resnet18", num_labels=3)


def test_a_torchvision_for_another_torch_is_named(monkeypatch):
    def fails(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", fails)
    with pytest.raises(ValueError, match=r"nms does not exist\. Its torchvision was built for"):
        student("resnet18", num_labels=3)


def test_the_head_says_how_many_classes_there_are():
    weights = {n: torch.zeros(k) for n, k in (("fc.bias", 5), ("bn.bias", 7), ("other.bias", 4))}
    assert classes_of(weights, {"classifier": "fc"}) == 5
    assert classes_of(weights, {"classifier": ("fc", "fc")}) == 5
    # Two heads that differ, and none, say nothing.
    assert classes_of(weights, {"classifier": ("fc", "other")}) is None
    assert classes_of(weights, {"classifier": "head"}) is None
