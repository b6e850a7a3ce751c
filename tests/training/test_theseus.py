"""Blocks of the teacher stand in for the student's: which, how often, and what is trained of it."""

import copy

import pytest
import torch
from tiny import bert, loader, text_batches, trainer
from torch.testing import assert_close

from lightning_distill import Objective, Term, TheseusModule
from lightning_distill.criteria import HardLabel
from lightning_distill.schedules import Linear
from lightning_distill.students import from_teacher

LABELS = {"student": "student.logits", "labels": "batch.labels"}


def module_of(teacher, layers=2, **options):
    student = from_teacher(teacher, layers, keep="first")
    objective = Objective({"hard": Term(HardLabel(), LABELS)})
    return TheseusModule(student, teacher, objective, **options)


STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def by_hand(module, batch, own):
    """The forward of a model whose layers are put together one by one."""
    mixed = copy.deepcopy(module.student)
    layers = torch.nn.ModuleList()
    per_block = 4 // len(own)
    for i, is_own in enumerate(own):
        teachers = module.teacher.bert.encoder.layer[i * per_block : (i + 1) * per_block]
        layers.extend([module.student.bert.encoder.layer[i]] if is_own else teachers)
    mixed.bert.encoder.layer = layers
    return mixed(**{n: batch[n] for n in ("input_ids", "attention_mask")}).logits


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_the_model_of_a_step_is_put_together_of_both(layers):
    module, (batch,) = module_of(bert(4, 16, seed=1, **STILL), layers), text_batches(1)
    with torch.no_grad():
        for weight in module.student.bert.encoder.parameters():
            weight.add_(0.05)
    seen = set()
    for step in range(12):
        own = module.drawn(step)
        seen.add(tuple(own))
        module.drawn = lambda _, own=own: own
        module.student.train()
        found = module.student_forward(batch).logits
        assert_close(found, by_hand(module, batch, own))
        del module.drawn
    assert len(seen) > 1 or layers == 1
    module.student.eval()
    alone = module.student(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    assert_close(module.student_forward(batch).logits, alone.logits)


def test_the_gradient_goes_through_the_teacher_to_the_blocks_below_and_leaves_it_as_it_is():
    module, (batch,) = module_of(bert(4, 16, seed=1)), text_batches(1)
    module.drawn = lambda step: [True, False]
    module.student.train()
    loss = torch.nn.functional.cross_entropy(module.student_forward(batch).logits, batch["labels"])
    loss.backward()
    lower, upper = module.student.bert.encoder.layer
    assert all(p.grad is not None for p in lower.parameters())
    assert all(p.grad is None for p in upper.parameters())
    assert all(p.grad is None for p in module.teacher.parameters())
    assert not any("teacher" in n for n in module.state_dict())
    # Nothing is left of it.
    assert all("forward" not in vars(block) for block in (lower, upper))


def test_a_block_is_drawn_as_often_as_the_rate_says_and_one_always_is():
    module = module_of(bert(4, 16), 4, rate=0.6, seed=3)
    drawn = torch.tensor([module.drawn(step) for step in range(4000)]).double()
    assert drawn.any(dim=1).all()
    # Where none would be, one of four is: 0.4 ** 4 of the steps.
    assert_close(drawn.mean(0), torch.full((4,), 0.6 + 0.4**4 / 4).double(), atol=0.03, rtol=0)
    assert module.drawn(7) == module_of(bert(4, 16), 4, rate=0.6, seed=3).drawn(7)
    rising = module_of(bert(4, 16), 4, rate=Linear(0.01, 1.0))
    rising._total_steps = 101
    assert sum(rising.drawn(0)) == 1 and all(rising.drawn(100))


def test_it_trains_and_the_teacher_stays(tmp_path):
    teacher = bert(4, 16, seed=1)
    before = copy.deepcopy(teacher.state_dict())
    module = module_of(teacher, rate=Linear(0.3, 1.0))
    first = copy.deepcopy(module.student.state_dict())
    trainer(tmp_path, max_epochs=2).fit(module, loader(text_batches()))
    assert all(torch.equal(v, before[n]) for n, v in teacher.state_dict().items())
    changed = [n for n, v in module.student.state_dict().items() if not torch.equal(v, first[n])]
    assert any("layer.0" in n for n in changed) and any("layer.1" in n for n in changed)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"student_blocks": "*.layers.*"}, "`student_blocks` is .*no such parts. Nearest"),
        ({"teacher_blocks": "bert.encoder.layer.0"}, "2 blocks .* and the teacher 1 "),
        ({"rate": 0}, "`rate` must be a probability above 0"),
    ],
)
def test_what_cannot_be_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        module_of(bert(4, 16), **options)


@pytest.mark.parametrize(
    ("student", "blocks", "words"),
    [
        (bert(2, 8), "*.encoder.layer.*", "same width: the student's have 8 and the teacher's 16"),
        # Of the same width, and it is given other things.
        (bert(2, 16), "*.encoder.layer.*.output", "cannot run there: .* Take a student of the"),
    ],
)
def test_blocks_that_do_not_fit_are_refused_before_the_first_step(student, blocks, words, tmp_path):
    objective = Objective({"hard": Term(HardLabel(), LABELS)})
    first = copy.deepcopy(student.state_dict())

    def module():
        # A rate at which the teacher's blocks would hardly ever run.
        return TheseusModule(student, bert(4, 16), objective, rate=0.999, teacher_blocks=blocks)

    with pytest.raises(ValueError, match=words):
        module().prepare(text_batches(1)[0])
    with pytest.raises(ValueError, match=words):
        trainer(tmp_path, max_epochs=1).fit(module(), loader(text_batches()))
    assert all(torch.equal(v, first[n]) for n, v in student.state_dict().items())
    assert all("forward" not in vars(block) for block in student.bert.encoder.layer)


def test_without_a_live_teacher_it_says_which():
    objective = Objective({"hard": Term(HardLabel(), LABELS)})
    with pytest.raises(ValueError, match="this teacher is not live: take teacher=trained"):
        TheseusModule(bert(2, 16), None, objective)
