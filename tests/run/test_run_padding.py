"""Each model is told what its data is padded with, where it knows of no padding or of another."""

from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from tiny import gpt2
from transformers import GPT2ForSequenceClassification

from lightning_distill.models.configuration import pad_token
from lightning_distill.run import targets
from lightning_distill.run.call import known
from lightning_distill.run.models import build_student, build_teacher

PAD = 3


def data(pad=PAD, **more):
    tokenizer = type(
        "Tokenizer", (), {"pad_token_id": pad, "eos_token_id": pad, "__len__": lambda _: 40}
    )
    return SimpleNamespace(tokenizer=tokenizer(), num_labels=2, task="classification", **more)


@pytest.fixture(params=[None, 5], ids=["no padding", "another"])
def folder(request, tmp_path):
    model = GPT2ForSequenceClassification(gpt2(1, 8).config)
    model.config.pad_token_id = request.param
    model.save_pretrained(tmp_path)
    return str(tmp_path)


def config(**nodes):
    return OmegaConf.create(nodes)


def logits_at_the_end(model, ids):
    """Of each row, by a forward of its own: there is no padding in it."""
    rows = [row[row != PAD][None] for row in ids]
    return torch.cat([model(input_ids=row).logits for row in rows])


def of_a_user(path):
    return GPT2ForSequenceClassification.from_pretrained(path)


def test_teacher_and_students_are_told(folder, monkeypatch):
    monkeypatch.setattr(targets, "_trust", targets.Trust((__name__,)))
    node = {"_target_": "lightning_distill.teachers.pretrained", "path": folder}
    teacher = build_teacher(config(teacher=node), data())
    node = {"_target_": "lightning_distill.students.pretrained", "path": folder}
    student = build_student(config(student=node), data(), None)
    node = {"_target_": "lightning_distill.students.from_teacher", "layers": 1}
    teacher.config.pad_token_id = None
    cut = build_student(config(student=node), data(), teacher)
    node = {"_target_": f"{__name__}.of_a_user", "path": folder}
    loaded = build_student(config(student=node, data={"tokenizer": "given"}), data(), None)
    ids = torch.tensor([[7, 8, 9, PAD, PAD], [5, 6, 7, 8, 9], [4, PAD, PAD, PAD, PAD]])
    for model in (student, cut, loaded):
        assert pad_token(model) == PAD
        model = model.eval()
        torch.testing.assert_close(model(input_ids=ids).logits, logits_at_the_end(model, ids))


def test_a_teacher_with_a_tokenizer_of_its_own_pads_with_that(folder):
    own = SimpleNamespace(pad_token_id=9)
    node = {"_target_": "lightning_distill.teachers.pretrained", "path": folder}
    assert pad_token(build_teacher(config(teacher=node), data(teacher_tokenizer=own))) == 9
    assert known(data(teacher_tokenizer=own))["pad_token_id"] == PAD
