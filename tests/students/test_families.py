import copy

import pytest
import torch
from students.families import batch_for, ENCODER_DECODER, FAMILIES, halved, TABLE, table
from tiny import loader, trainer
from torch import nn

from lightning_distill import distill, Term
from lightning_distill.criteria import Hint, LogitMSE, SoftTarget
from lightning_distill.models.inputs import call_model, model_inputs
from lightning_distill.students import from_teacher

each_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)


def answer(family, model, batch):
    with torch.no_grad():
        return getattr(call_model(model.eval(), model_inputs(batch, model), {}), family.answer)


@each_family
def test_a_student_has_the_weights_of_the_layers_that_it_keeps(family):
    teacher = family.build()
    student = halved(family, teacher)
    ours, theirs = student.state_dict(), teacher.state_dict()
    in_layers = tuple(f"{path}." for path in family.kept)
    for path, numbers in family.kept.items():
        assert len(student.get_submodule(path)) == len(numbers)
        for new, old in enumerate(numbers):
            layer = student.get_submodule(path)[new].state_dict()
            for name, value in layer.items():
                # Only the first layer of T5 holds the bias of relative positions.
                old_one = 0 if "relative_attention_bias" in name else old
                assert torch.equal(value, theirs[f"{path}.{old_one}.{name}"])
    outside = [name for name in theirs if not name.startswith(in_layers)]
    assert outside == [name for name in ours if not name.startswith(in_layers)]
    assert all(torch.equal(ours[name], theirs[name]) for name in outside)
    tied = getattr(teacher, "all_tied_weights_keys", None) or {}
    for name, of in tied.items():
        assert student.get_parameter(name) is student.get_parameter(of)


@each_family
def test_a_student_with_all_layers_answers_as_its_teacher(family):
    teacher, batch = family.build(), batch_for(family)
    counts = {"rows": 4, "tokens": 4, "pairs": 4, "sounds": 4, "both": 4, "pictures": 4}
    layers = family.config.get("depths", counts[family.batch])
    # The gradient's bookkeeping alone lets torch choose another convolution for Mamba.
    student = from_teacher(teacher, layers).requires_grad_(False)
    found, expected = answer(family, student, batch), answer(family, teacher, batch)
    assert torch.equal(found, expected)
    # Two layers fewer are seen.
    assert not torch.allclose(answer(family, halved(family, teacher), batch), expected, atol=1e-4)


@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if f.states == ENCODER_DECODER], ids=lambda f: f.name
)
def test_an_encoder_and_a_decoder_answer_as_the_teacher_without_the_other_layers(family):
    teacher, batch = family.build(), batch_for(family)
    without = copy.deepcopy(teacher)
    for path, numbers in family.kept.items():
        parent, _, name = path.rpartition(".")
        layers = getattr(without.get_submodule(parent), name)
        if family.name == "T5":
            first, new = (layers[i].layer[0].SelfAttention for i in (0, numbers[0]))
            new.relative_attention_bias = first.relative_attention_bias
            new.has_relative_attention_bias = True
        setattr(without.get_submodule(parent), name, nn.ModuleList(layers[i] for i in numbers))
    found = answer(family, halved(family, teacher), batch)
    torch.testing.assert_close(found, answer(family, without, batch))


@each_family
def test_two_steps_change_the_student_alone_and_it_is_loaded_again(family, tmp_path):
    teacher = family.build()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student = halved(family, teacher)
    start = {name: value.clone() for name, value in student.named_parameters()}
    answers = {role: f"{role}.{family.answer}" for role in ("student", "teacher")}
    criterion = SoftTarget(2.0) if family.answer.startswith("logits") else LogitMSE()
    terms = {"answers": Term(criterion, answers)}
    for i, states in enumerate(family.states):
        layers = {role: f"{role}.{states}[*]" for role in ("student", "teacher")}
        terms[f"layers_{i}"] = Term(Hint(), layers, adapter="linear")
    batches = [batch_for(family, seed) for seed in (1, 2)]
    trained = distill(student, teacher, loader(batches), terms, trainer(tmp_path))
    changed = [n for n, p in trained.named_parameters() if not torch.equal(p, start[n])]
    for path in family.kept:
        for i in range(len(student.get_submodule(path))):
            assert any(name.startswith(f"{path}.{i}.") for name in changed)
    assert changed
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    trained.save_pretrained(tmp_path / "student")
    again = type(teacher).from_pretrained(tmp_path / "student")
    batch = batch_for(family)
    assert torch.equal(answer(family, again, batch), answer(family, trained, batch))


def test_the_table_of_the_docs_is_made_of_these_models():
    wanted = "is out of date: run python tests/students/families.py"
    assert TABLE.read_text(encoding="utf-8") == table(), f"{TABLE.name} {wanted}"
