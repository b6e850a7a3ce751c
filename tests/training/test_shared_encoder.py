"""An encoder that is a frozen copy of the teacher's runs once in a step, and changes no number."""

import logging

import pytest
import torch
import transformers as hf
from encoder_decoders import batch, FAMILIES, model
from tiny import loader, trainer

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import HardLabel, Hint, SoftTarget
from lightning_distill.models.encoder import encoder_of
from lightning_distill.models.freeze import freeze_parts
from lightning_distill.students import from_teacher, pretrained
from lightning_distill.tasks import SequenceToSequence

LABEL = {"student": "student.logits", "labels": "batch.labels"}
LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}


def module_of(family: str, frozen: str | None = "encoder", dropout: float = 0.3, **more):
    """A module, and a list that grows where the teacher's encoder runs."""
    teacher = model(family, 2)
    torch.manual_seed(3)
    student = from_teacher(teacher, {"decoder": 1}, "first", freeze=frozen)
    for part in student.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = dropout
        elif isinstance(getattr(part, "dropout", None), float):
            part.dropout = dropout
    ran: list[int] = []
    layers = encoder_of(teacher)
    first = layers.block[0] if family == "t5" else layers.layers[0]
    first.register_forward_hook(lambda *_: ran.append(1))
    terms = {"label": Term(HardLabel(), LABEL), "soft": Term(SoftTarget(temperature=2.0), LOGITS)}
    module = DistillationModule(
        student, teacher, Objective(terms | more), task=SequenceToSequence()
    )
    return module, ran


def step(module, given, shared=True):
    """Losses of a training step and the gradients that it leaves, dropout drawn by one seed."""
    if not module.is_checked:
        module.prepare(given)
    module.shared_encoder.is_copy &= shared
    module.zero_grad()
    torch.manual_seed(7)
    losses = module.losses(given)
    losses["loss"].backward()
    found = {n: float(v.detach()) for n, v in losses.items()}
    return found, {n: p.grad for n, p in module.student.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_that_of_two_encoders(family, caplog):
    given = batch(family)
    with caplog.at_level(logging.INFO, logger="lightning_distill"):
        module, ran = module_of(family)
        module.prepare(given)
    assert "it runs once for both" in caplog.text
    ran.clear()
    losses, gradients = step(module, given)
    assert not ran
    plain, of_plain = step(module, given, shared=False)
    assert len(ran) == 1
    assert losses == pytest.approx(plain, abs=1e-6)
    assert gradients.keys() == of_plain.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, of_plain[name], rtol=0, atol=1e-6)
    # Dropout of the decoder is drawn, and the encoder has no gradient.
    torch.manual_seed(8)
    assert float(module.losses(given)["loss"].detach()) != pytest.approx(losses["loss"], abs=1e-6)
    assert all(p.grad is None for p in encoder_of(module.student).parameters())
    # The teacher answers as it does alone.
    module.shared_encoder.look(module.student, module.teacher)
    assert module.shared_encoder.is_copy
    with torch.no_grad():
        _, _, answered = module.read_sources(given)
        alone = module.teacher(**module.teacher_inputs(given))
    torch.testing.assert_close(answered["logits"], alone["logits"], rtol=0, atol=1e-6)


def trained(module):
    encoder_of(module.student).requires_grad_(True)


def in_train_mode(module):
    encoder_of(module.student).train()


def of_other_weights(module):
    with torch.no_grad():
        next(iter(encoder_of(module.student).parameters()))[0] += 1e-4


def of_other_settings(module):
    encoder_of(module.student).config.activation_function = "relu"


@pytest.mark.parametrize("change", [trained, in_train_mode, of_other_weights, of_other_settings])
def test_another_encoder_is_not_shared(change, caplog):
    module, ran = module_of("bart")
    change(module)
    with caplog.at_level(logging.INFO, logger="lightning_distill"):
        step(module, batch("bart"))
    ran.clear()
    step(module, batch("bart"))
    assert len(ran) == 1
    assert ("dropout makes them differ" in caplog.text) == (change is in_train_mode)


def test_what_changes_later_is_seen():
    module, ran = module_of("t5")
    step(module, batch("t5"))
    ran.clear()
    encoder_of(module.student).train()
    step(module, batch("t5"))
    assert len(ran) == 1
    encoder_of(module.student).eval()
    step(module, batch("t5"))
    assert len(ran) == 1


def test_a_teacher_that_reads_other_tokens_reads_them():
    module, ran = module_of("t5")
    given = batch("t5")
    other = {**given, "input_ids": given["input_ids"].roll(1, dims=1)}
    own = {n: other[n] for n in ("input_ids", "attention_mask", "labels")}
    given["teacher"] = own
    step(module, given)
    ran.clear()
    with torch.no_grad():
        _, _, answered = module.read_sources(given)
        expected = module.teacher(**module.teacher_inputs({**other, "teacher": own}))
    assert len(ran) == 2
    torch.testing.assert_close(answered["logits"], expected["logits"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["encoder_hidden_states[1]", "layer:encoder.block.1"])
def test_a_term_within_the_encoder_lets_both_run(name):
    read = {"student": "student.decoder_hidden_states[1]", "teacher": f"teacher.{name}"}
    read["teacher"] += "[0]" if name.startswith("layer") else ""
    given = {n: v[:, :6] if v.dim() > 1 else v for n, v in batch("t5").items()}
    module, ran = module_of("t5", far=Term(Hint(), read))
    step(module, given)
    ran.clear()
    losses, _ = step(module, given)
    assert len(ran) == 1
    plain, _ = step(module, given, shared=False)
    assert losses == pytest.approx(plain, abs=1e-6)


def test_it_stays_shared_and_frozen_in_a_run_that_is_resumed(tmp_path):
    batches = [batch("t5"), batch("t5", rows=2)]
    found = []
    for shared in (True, False):
        module, ran = module_of("t5")
        before = {n: p.clone() for n, p in encoder_of(module.student).named_parameters()}
        if not shared:
            module.shared_encoder.look = lambda *_: None
        torch.manual_seed(5)
        run = trainer(tmp_path / str(shared), max_epochs=1)
        run.fit(module, loader(batches), loader(batches))
        run.save_checkpoint(tmp_path / f"{shared}.ckpt")
        again, counted = module_of("t5")
        if not shared:
            again.shared_encoder.look = lambda *_: None
        torch.manual_seed(6)
        run = trainer(tmp_path / f"{shared}2", max_epochs=2)
        run.fit(again, loader(batches), loader(batches), ckpt_path=tmp_path / f"{shared}.ckpt")
        assert bool(ran) is bool(counted) is not shared
        assert not any(part.training for part in encoder_of(again.student).modules())
        for name, weight in encoder_of(again.student).named_parameters():
            assert torch.equal(weight, before[name])
        found.append(again.student.state_dict())
    for name, weight in found[0].items():
        torch.testing.assert_close(weight, found[1][name], rtol=0, atol=1e-6)


def test_a_student_that_was_cut_before_shares_it_too(tmp_path):
    module, ran = module_of("bart", frozen=None)
    step(module, batch("bart"))
    assert ran
    module.student.save_pretrained(tmp_path)
    task = SequenceToSequence()
    student = pretrained(str(tmp_path), task=task, freeze=["encoder"])
    soft = Objective({"soft": Term(SoftTarget(), LOGITS)})
    again = DistillationModule(student, model("bart", 2), soft, task=task)
    again.prepare(batch("bart"))
    assert again.shared_encoder.is_copy and student.model.decoder.training


def test_parts_are_frozen_by_name_and_others_are_named(caplog):
    student = model("t5").train()
    with caplog.at_level(logging.INFO, logger="lightning_distill"):
        freeze_parts(student, ["encoder"])
    assert (
        "encoder is frozen, and so is what other parts share with it: shared.weight" in caplog.text
    )
    trains = {n.partition(".")[0] for n, p in student.named_parameters() if p.requires_grad}
    assert trains == {"decoder"} and student.decoder.training and not student.encoder.training
    with pytest.raises(ValueError, match=r"student.freeze names 'encoders'.*Nearest: .*encoder"):
        freeze_parts(student, ["encoders"])
    with pytest.raises(ValueError, match=r"several such parts: encoder.block, decoder.block"):
        freeze_parts(student, "block")
    assert isinstance(encoder_of(student), hf.models.t5.modeling_t5.T5Stack)
