"""The guide's detector: its own loss is a term, and its maps are another."""

import re
from pathlib import Path

import pytest
import torch
from tiny import loader, trainer

GUIDE = Path(__file__).parents[2] / "docs" / "tasks" / "pictures.md"


@pytest.fixture
def guide():
    (code,) = re.findall(r"```python\n(# mine/detector\.py\n.*?)```", GUIDE.read_text(), re.DOTALL)
    found: dict = {"__name__": "mine.detector"}
    exec(compile(code, "mine/detector.py", "exec"), found)
    return found


def batch(seed):
    generator = torch.Generator().manual_seed(seed)
    boxes = [torch.rand(things, 4, generator=generator) for things in (2, 0, 1)]
    images = torch.randn(3, 3, 16, 16, generator=generator)
    return {"images": images, "targets": [{"boxes": b} for b in boxes]}


def test_a_detector_learns_from_its_own_loss_and_from_maps(guide, tmp_path):
    torch.manual_seed(0)
    student, teacher = guide["Detector"](4), guide["Detector"](6)
    start = [p.detach().clone() for p in student.parameters()]
    before = [p.detach().clone() for p in teacher.parameters()]
    module = guide["DetectorDistillation"](student, teacher, guide["objective"]())
    data = loader([batch(1), batch(2)])
    loop = trainer(tmp_path)
    loop.fit(module, data, data)
    assert not any(map(torch.equal, start, student.parameters()))
    assert all(map(torch.equal, before, teacher.parameters()))
    measured = loop.validate(module, data, verbose=False)[0]
    with torch.no_grad():
        expected = sum(student.eval()(**batch(i))["loss"] for i in (1, 2)) / 2
    assert measured["val/own"] == pytest.approx(float(expected), rel=1e-5)
    assert measured["val/maps"] > 0
