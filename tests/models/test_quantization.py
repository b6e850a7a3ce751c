"""A smaller teacher that answers nearly as before, and is treated like any other."""

import copy
import sys

import pytest
import torch
from tiny import bert, loader, text_batches, trainer

from lightning_distill import Agreement, DistillationModule, Objective, Term
from lightning_distill.criteria import Hint, SoftTarget
from lightning_distill.models import fingerprint
from lightning_distill.models.quantization import quantized
from lightning_distill.models.size import size_mb
from lightning_distill.students import from_teacher
from lightning_distill.teachers import pretrained

WITHOUT = "torchao is not installed: pip install 'lightning-distill[quantization]'"


def small(seed=3):
    return bert(2, 32, seed=seed).eval()


@pytest.fixture
def int8():
    pytest.importorskip("torchao", reason=WITHOUT)
    return quantized(small(), "int8")


def answers(model):
    batch = text_batches(1)[0]
    with torch.no_grad():
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def test_weights_are_rounded_to_steps_of_a_127th_of_the_largest_of_their_output(int8):
    weight = small().bert.encoder.layer[0].intermediate.dense.weight
    found = int8.bert.encoder.layer[0].intermediate.dense.weight
    assert found.qdata.dtype == torch.int8
    step = weight.detach().abs().amax(dim=1, keepdim=True) / 127
    # Half a step, and what scales of -128 to 127 make of it.
    assert ((found.dequantize() - weight).abs() <= 0.51 * step).all()


def test_its_answers_change_a_little_and_padding_changes_nothing(int8):
    plain = answers(small())
    found = answers(int8)
    assert 0 < (found - plain).abs().max() < 0.05 * plain.abs().max()
    ids = text_batches(1)[0]["input_ids"][:1, :5]
    longer = torch.cat([ids, torch.zeros(1, 9, dtype=torch.long)], dim=1)
    mask = (torch.arange(14) < 5).long()[None]
    with torch.no_grad():
        alone = int8(input_ids=ids).logits
        padded = int8(input_ids=longer, attention_mask=mask).logits
    torch.testing.assert_close(alone, padded)


def test_it_is_smaller_by_what_the_linear_layers_take(int8):
    linear = sum(m.weight.numel() for m in small().modules() if isinstance(m, torch.nn.Linear))
    saved = size_mb(small()) - size_mb(int8)
    assert 0.9 * 3 * linear / 1e6 < saved < 3 * linear / 1e6


def test_its_fingerprint_is_stable_and_sees_weights_and_scales(int8):
    expected = fingerprint(int8)
    assert fingerprint(quantized(small(), "int8")) == expected == fingerprint(copy.deepcopy(int8))
    assert expected not in (fingerprint(small()), fingerprint(quantized(small(4), "int8")))
    int8.classifier.weight.scale[0] *= 1.001
    assert fingerprint(int8) != expected
    int8.classifier.weight.scale[0] = quantized(small(), "int8").classifier.weight.scale[0]
    assert fingerprint(int8) == expected
    int8.classifier.weight.qdata[0, 0] ^= 1
    assert fingerprint(int8) != expected


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_student_learns_from_it_and_it_stays_as_it_is(int8, tmp_path, precision):
    objective = Objective(
        {
            "soft_target": Term(
                SoftTarget(), {"student": "student.logits", "teacher": "teacher.logits"}
            ),
            "hint": Term(
                Hint(),
                {
                    "student": "student.layer:bert.encoder.layer.0",
                    "teacher": "teacher.layer:bert.encoder.layer.1",
                },
                adapter="linear",
            ),
        }
    )
    before = fingerprint(int8)
    module = DistillationModule(bert(1, 8), int8, objective, {"agreement": Agreement()})
    run = trainer(tmp_path, precision=precision)
    run.fit(module, loader(text_batches()), loader(text_batches(2)))
    run.test(module, loader(text_batches(2)), verbose=False)
    assert fingerprint(int8) == before == module.teacher_fingerprint
    assert not any(p.requires_grad for p in int8.parameters())
    assert {p.dtype for p in module.student.parameters()} == {torch.float32}
    assert "test/agreement" in run.callback_metrics
    run.save_checkpoint(tmp_path / "x.ckpt")
    torch.load(tmp_path / "x.ckpt", weights_only=True)


def test_it_is_chosen_where_the_teacher_is_loaded(tmp_path, int8):
    small().save_pretrained(tmp_path)
    assert fingerprint(pretrained(str(tmp_path), quantization="int8")) == fingerprint(int8)


def test_its_weights_are_not_copied_into_a_student(int8):
    with pytest.raises(ValueError, match="copies the teacher's weights, and these are quantised"):
        from_teacher(int8, layers=1)


def test_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="int4_weights or null, got 'int2'. Did you mean int"):
        pretrained(str(tmp_path), quantization="int2")


def test_without_torchao_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install 'lightning-distill.quantization.'"):
        pretrained(str(tmp_path), quantization="int8")


def test_null_leaves_the_model_alone():
    model = small()
    assert quantized(model, None) is model and fingerprint(model) == fingerprint(small())
