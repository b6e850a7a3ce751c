"""Teachers of every kind answer through one interface, and none is ever touched."""

import copy
import inspect

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from tiny import bert, gpt2, loader, text_batches, trainer
from torch import nn
from torch.testing import assert_close

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import SoftTarget
from lightning_distill.models.fingerprint import fingerprint
from lightning_distill.models.source import Source
from lightning_distill.teachers import CachedTeacher, CachingTeacher, Teacher
from lightning_distill.teachers.keeper import KeepsTeachers

LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}
SOURCE = Source.parse("teacher.logits")


def module_of(teacher, kind=DistillationModule, **more):
    return kind(
        bert(1, 8, seed=2), teacher, Objective({"soft": Term(SoftTarget(), LOGITS)}), **more
    )


def alone() -> None:
    """The barrier of one rank."""


def every_kind(folder, model):
    """A live, a caching and a cached teacher of one model, after an epoch of four batches."""
    caching = CachingTeacher(model, folder)
    trainer(folder).fit(module_of(caching), loader(text_batches()))
    return {"live": Teacher(model), "caching": caching, "cached": CachedTeacher(folder)}


def test_every_kind_answers_alike_with_and_without_a_module(tmp_path):
    model, batch = bert(2, 16, seed=1).train(), text_batches()[0]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    right = copy.deepcopy(model).eval()(**inputs).logits
    for name, teacher in every_kind(tmp_path, model).items():
        for asker in (None, module_of(teacher)):
            outputs, values = teacher.answers(batch, [SOURCE], asker)
            assert_close(values[SOURCE], right, atol=1e-6, rtol=1e-5)
            assert_close(outputs["logits"], right, atol=1e-6, rtol=1e-5)
            assert not values[SOURCE].requires_grad
        assert not model.training or name == "cached"


def test_every_kind_answers_other_rows_in_training_alone(tmp_path):
    model, batch = bert(2, 16, seed=1), text_batches()[0]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    right = copy.deepcopy(model).eval()(**inputs).logits
    other = torch.stack([*right[1:], right[0]])
    assert not torch.allclose(right, other, atol=1e-3)
    for teacher in every_kind(tmp_path, model).values():
        teacher.answers_other_rows = True
        for training, expected in ((True, other), (False, right)):
            asker = module_of(teacher).train(training)
            outputs, values = teacher.answers(batch, [SOURCE], asker)
            assert_close(values[SOURCE], expected, atol=1e-6, rtol=1e-5)
            assert_close(outputs["logits"], expected, atol=1e-6, rtol=1e-5)


def test_every_kind_says_the_same_of_itself(tmp_path):
    model = bert(2, 16, seed=1)
    model.config.id2label = {0: "a", 1: "b", 2: "c"}
    found = every_kind(tmp_path, model)
    for teacher in found.values():
        assert teacher.fingerprint == fingerprint(model)
        assert teacher.module_names == ["", *(n for n, _ in model.named_modules() if n)]
        assert teacher.input_names == found["live"].input_names
        assert teacher.label_names == model.config.id2label
        about = teacher.about()
        assert about["parameters"] == sum(p.numel() for p in model.parameters())
        assert about["size_mb"] == found["live"].about()["size_mb"]
    assert [t.is_live for t in found.values()] == [True, False, False]
    assert [t.model is model for t in found.values()] == [True, True, False]
    assert found["cached"].model is None
    assert all(Teacher.of(teacher) is teacher for teacher in found.values())


def test_every_kind_refuses_what_it_does_not_have_before_the_first_step(tmp_path):
    sources = {"student": "student.layer:bert.pooler", "teacher": "teacher.layer:bert.poler"}
    for teacher in every_kind(tmp_path, bert(2, 16, seed=1)).values():
        made = DistillationModule(
            bert(1, 8), teacher, Objective({"hint": Term(SoftTarget(), sources)})
        )
        with pytest.raises(ValueError, match=r"bert.poler"):
            made.prepare(text_batches()[0])


def test_the_teacher_of_a_module_is_the_model_that_it_was_given():
    model = bert(2, 16, seed=1)
    made = module_of(model)
    assert made.teacher is model and made.taught_by.model is model
    given = Teacher(model)
    assert module_of(given).teacher is given is module_of(given).taught_by
    made.teacher = None
    assert made.taught_by is None and made.teacher is None


class WithAssistant(DistillationModule):
    """Keeps a second teacher, and lets it speak with the first."""

    def __init__(self, *args, assistant, **options):
        super().__init__(*args, **options)
        self.assistant = assistant

    def teacher_forward(self, batch, **options):
        outputs = super().teacher_forward(batch, **options)
        outputs["logits"] = (
            outputs["logits"] + self.assistant(**self.teacher_inputs(batch))[0]
        ) / 2
        return outputs


class CallsTrain(EMAWeightAveraging):
    """An average of the weights, and someone who puts everything into training mode."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        pl_module.train()
        pl_module.assistant.train()


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_second_teacher_is_as_safe_as_the_first(tmp_path, wrapped):
    second = bert(2, 16, seed=5, hidden_dropout_prob=0.5).train()
    before = {name: value.clone() for name, value in second.state_dict().items()}
    assistant = Teacher(second) if wrapped else second
    made = module_of(bert(2, 16, seed=1), WithAssistant, assistant=assistant)
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    loop = trainer(tmp_path, callbacks=[checkpoint, CallsTrain()], enable_checkpointing=True)
    loop.fit(made, loader(text_batches()), loader(text_batches()))
    assert made.assistant is assistant
    assert not any(p.requires_grad or p.grad is not None for p in second.parameters())
    assert all(torch.equal(v, before[n]) for n, v in second.state_dict().items())
    own = {id(p) for p in second.parameters()}
    assert not own & {id(p) for p in made.parameters()}
    assert not own & {id(p) for g in loop.optimizers[0].param_groups for p in g["params"]}
    saved = torch.load(checkpoint.last_model_path, weights_only=True)["state_dict"]
    assert all(name.startswith(("student.", "objective.")) for name in saved)
    made.double()
    assert {p.dtype for p in second.parameters()} == {torch.float64}
    made.to("meta")
    assert {p.device.type for p in second.parameters()} == {"meta"}


def test_a_second_teacher_runs_without_dropout(tmp_path):
    second = bert(2, 16, seed=5, hidden_dropout_prob=0.5).train()
    made = module_of(bert(2, 16, seed=1), WithAssistant, assistant=second)
    batch = text_batches()[0]
    made.train()
    found = [made.read_sources(batch)[0][SOURCE] for _ in range(2)]
    assert torch.equal(*found)


def test_what_a_subclass_trains_itself_is_no_teacher(student, teacher):
    class Own(DistillationModule):
        def __init__(self, *args, projection):
            super().__init__(*args)
            self.projection, self.frozen = projection, Teacher(nn.Linear(3, 3))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    made = Own(
        student,
        teacher,
        Objective({"soft": Term(SoftTarget(), LOGITS)}),
        projection=nn.Linear(2, 2),
    )
    assert [n for n, _ in made.named_parameters() if n.startswith("projection")]
    assert list(made.kept_teachers) == ["teacher", "frozen"]
    # Nor is a part of the student under another name.
    plain = module_of(teacher)
    plain.encoder = plain.student.bert
    assert "encoder" not in plain.kept_teachers
    assert all(p.requires_grad for p in plain.student.parameters())


def test_several_teachers_may_be_one_module_that_returns_several_outputs(tmp_path):
    class Several(nn.ModuleDict):
        def forward(self, input_ids, attention_mask):
            return {n: m(input_ids, attention_mask=attention_mask) for n, m in self.items()}

    models = {"one": bert(2, 16, seed=1), "two": bert(1, 8, seed=5)}
    terms = {
        "one": Term(SoftTarget(), LOGITS | {"teacher": "teacher.one.logits"}),
        "two": Term(SoftTarget(), LOGITS | {"teacher": "teacher.layer:two.classifier"}),
    }
    made = DistillationModule(bert(1, 8, seed=2), Several(models), Objective(terms))
    loop = trainer(tmp_path)
    loop.fit(made, loader(text_batches()))
    assert loop.global_step == 4
    batch = text_batches()[0]
    values, _, _ = made.read_sources(batch)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    for name, text in (("one", "teacher.one.logits"), ("two", "teacher.layer:two.classifier")):
        assert_close(values[Source.parse(text)], models[name](**inputs).logits)


def storages(model):
    return {p.untyped_storage().data_ptr() for p in model.parameters()}


def test_a_copy_of_a_module_shares_its_teachers(student, teacher):
    made = module_of(teacher, WithAssistant, assistant=bert(1, 8, seed=5))
    copied = copy.deepcopy(made)
    assert copied.teacher is made.teacher and copied.assistant is made.assistant
    assert copied.student is not made.student
    assert not storages(copied.student) & storages(made.student)
    assert copied.taught_by is made.taught_by
    # Moved nowhere it still does; in another type it has its own.
    assert copied.to("cpu").float().teacher is teacher
    copied.double()
    assert copied.teacher is not teacher and not storages(copied.teacher) & storages(teacher)
    assert {p.dtype for p in copied.teacher.parameters()} == {torch.float64}
    assert {p.dtype for p in teacher.parameters()} == {torch.float32}
    assert copied.taught_by.model is copied.teacher
    assert copied.teacher_fingerprint == made.teacher_fingerprint == fingerprint(teacher)


def test_an_average_of_the_weights_holds_no_second_teacher(tmp_path, teacher):
    seen = []

    class Watch(EMAWeightAveraging):
        def on_train_batch_end(self, *args, **options):
            super().on_train_batch_end(*args, **options)
            seen.append(storages(self._average_model.module.teacher))

    trainer(tmp_path, callbacks=[Watch(decay=0.5)]).fit(module_of(teacher), loader(text_batches()))
    assert seen and all(found == storages(teacher) for found in seen)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true"])
@pytest.mark.parametrize("first", ["fit", "test"])
def test_a_checkpoint_is_tested_again_and_again_in_another_type(
    tmp_path, teacher, precision, first
):
    before = fingerprint(teacher)
    data = loader(text_batches())
    made = module_of(teacher)
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)
    options = {"precision": precision, "callbacks": [checkpoint], "enable_checkpointing": True}
    trainer(tmp_path, **options).fit(made, data)
    path = checkpoint.last_model_path
    assert torch.load(path, weights_only=True)["teacher_fingerprint"] == before
    if first == "test":
        # A module that was converted before anyone asked who its teacher is.
        made = module_of(bert(3, 16, seed=1))
        trainer(tmp_path, precision=precision).test(made, data, verbose=False)
    for _ in range(2):
        loop = trainer(tmp_path, precision=precision)
        loop.test(made, data, ckpt_path=path, verbose=False)
    with pytest.raises(ValueError, match="trained with another teacher"):
        other = module_of(bert(3, 16, seed=9))
        trainer(tmp_path, precision=precision).test(other, data, ckpt_path=path, verbose=False)


def test_every_public_way_to_move_a_module_moves_its_teachers():
    """A new one of torch's would leave them behind."""
    ways = {
        name
        for name, method in inspect.getmembers(nn.Module, inspect.isfunction)
        if not name.startswith("_") and "self._apply(" in inspect.getsource(method)
    }
    # Of other hardware: there the teachers are put when a run begins.
    elsewhere = {"ipu", "xpu", "mtia", "to_empty", "share_memory"}
    assert ways - elsewhere == ways & vars(KeepsTeachers).keys()
    assert ways >= {"to", "cpu", "cuda", "half", "float", "double", "bfloat16", "type"}


def test_a_scripted_model_can_be_kept():
    scripted = torch.jit.script(nn.Linear(3, 2))
    kept = Teacher(scripted)
    kept.freeze()
    assert not any(p.requires_grad for p in scripted.parameters())
    assert not kept.answers(torch.ones(1, 3))[0].requires_grad


def test_whoever_asks_comes_to_the_same_place():
    class Doubled(Teacher):
        def run(self, inputs, options):
            return {"logits": 2 * super().run(inputs, options)["logits"]}

    model, batch = bert(1, 8).eval(), text_batches(1)[0]
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    expected = 2 * model(**inputs).logits
    teacher = Doubled(model)
    asked = (
        teacher(**inputs),
        teacher(*inputs.values()),
        teacher(batch["input_ids"], attention_mask=batch["attention_mask"]),
        teacher.answers(batch)[0],
    )
    for found in asked:
        torch.testing.assert_close(found["logits"], expected)


def test_what_is_given_by_name_is_not_given_twice():
    model = gpt2(1, 8).eval()
    ids = torch.arange(6)[None]
    assert Teacher(model)(input_ids=ids, use_cache=True).past_key_values is not None
    assert Teacher(model)(input_ids=ids).past_key_values is None
