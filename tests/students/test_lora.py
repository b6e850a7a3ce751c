"""A student with adapters is read, trained, resumed and saved like the model within."""

import copy
import json

import pytest
import torch
from causal import batch, fused, model, module_of, step
from lightning.pytorch.callbacks import ModelCheckpoint
from tiny import bert, loader, text_batches, trainer
from torch import nn
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import Hint, SoftTarget
from lightning_distill.models.capture import capture, check_layers
from lightning_distill.models.configuration import longest_input
from lightning_distill.models.head import head_of
from lightning_distill.models.inputs import input_names, model_inputs
from lightning_distill.models.signature import accepts
from lightning_distill.models.source import Source
from lightning_distill.run.save import save_student
from lightning_distill.students import lora

WITHOUT = "peft is not installed: pip install 'lightning-distill[lora]'"
peft = pytest.importorskip("peft", reason=WITHOUT)


def moved(student, seed=0):
    """With adapters that say something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return student


def trainable(student):
    return [name for name, p in student.named_parameters() if p.requires_grad]


def test_it_answers_as_before_and_adds_the_product_of_its_adapters():
    plain = model("llama", layers=2)
    student = lora(copy.deepcopy(plain), rank=2, alpha=6).eval()
    ids = batch()["input_ids"]
    assert_close(student(ids).logits, plain(ids).logits)
    layer = moved(student).get_submodule("base_model.model.model.layers.1.mlp.up_proj")
    x = torch.randn(3, 16)
    weight = plain.model.layers[1].mlp.up_proj.weight
    low = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    assert low.any() and torch.linalg.matrix_rank(low) == 2
    assert_close(layer(x), x @ (weight + 3 * low).T)


def test_only_adapters_are_trained_and_a_seed_makes_the_same():
    first, second = (lora(model("llama"), seed=s) for s in (1, 1))
    assert trainable(first) and all("lora_" in name for name in trainable(first))
    assert not any("lm_head" in name or "embed" in name for name in trainable(first))
    states = [s.state_dict() for s in (first, second, lora(model("llama"), seed=2))]
    assert all(torch.equal(v, states[1][n]) for n, v in states[0].items())
    assert any(not torch.equal(v, states[2][n]) for n, v in states[0].items())
    assert all(m.training for m in first.modules())


def test_the_head_of_a_classifier_is_trained_too():
    names = trainable(lora(bert(1, 8), target_modules=["query"]))
    assert [n.split(".")[2] for n in names].count("classifier") == 2 and len(names) == 4


def test_it_is_given_all_that_the_model_within_takes():
    plain = bert(1, 8)
    student = lora(bert(1, 8))
    assert input_names(student) == input_names(plain)
    rows = {"input_ids": torch.ones(2, 3), "position_ids": torch.zeros(2, 3), "labels": 1, "x": 2}
    assert list(model_inputs(rows, student)) == ["input_ids", "position_ids"]
    assert longest_input(student) == longest_input(plain) == 32
    assert accepts(student, "output_hidden_states") and not accepts(
        lora(Net(), target_modules="up"), "use_cache"
    )


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(4, 4)

    def forward(self, x, **more):
        return self.up(x)


def test_its_parts_have_the_paths_that_they_had_before():
    plain = model("llama", layers=2)
    student = lora(copy.deepcopy(plain)).eval()
    names = ["student.layer:model.layers.*", "student.layer_input:lm_head", "student.layer:model"]
    sources = [Source.parse(name) for name in names]
    check_layers(student, sources)
    found = []
    for one in (plain, student):
        with capture(one, sources) as captured:
            one(batch()["input_ids"])
        found.append(captured)
    assert list(found[0]) == list(found[1]) and len(found[0]) == 4
    for key in ("layer_input:lm_head", "layer:model.layers.1"):
        assert_close(found[1][key], found[0][key])


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("base_model.model.lm_head", "no submodule 'base_model.model.lm_head'. It is 'lm_head' he"),
        ("lm_heed", r"\(LlamaForCausalLM\) has no submodule 'lm_heed'. Nearest: lm_head"),
    ],
)
def test_a_path_that_is_not_there_is_refused_with_the_nearest(path, words):
    with pytest.raises(ValueError, match=words):
        check_layers(lora(model("llama")), [Source.parse(f"student.layer:{path}")])


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2, tied", "gemma2"])
def test_the_fused_term_gives_the_gradient_of_the_plain_way_to_adapters_alone(name):
    student, teacher = (
        moved(lora(model(name, 50), rank=2)).eval(),
        model(name, 53, layers=2, seed=1),
    )
    found = [
        step(module_of(copy.deepcopy(student), teacher, fused(fused=way)), batch())
        for way in (True, False)
    ]
    assert_close(found[0][0], found[1][0])
    assert list(found[0][1]) == trainable(student)
    assert_close(found[0][1], found[1][1], rtol=1e-3, atol=1e-6)
    assert all(g.any() for g in found[0][1].values())


def test_a_head_that_is_trained_whole_is_the_copy_that_peft_trains():
    student = moved(lora(model("llama"), modules_to_save=["lm_head"]))
    copied = student.base_model.model.lm_head.modules_to_save["default"]
    with torch.no_grad():
        copied.weight.mul_(2)
    assert head_of(student, "lm_head").weight is copied.weight
    teacher = model("llama", seed=1)
    found = [
        step(module_of(copy.deepcopy(student), teacher, fused(fused=way)), batch())
        for way in (True, False)
    ]
    assert_close(found[0][:2], found[1][:2], rtol=1e-3, atol=1e-6)
    name = "base_model.model.lm_head.modules_to_save.default.weight"
    assert found[0][1][name].any()
    with student.disable_adapter():
        assert head_of(student, "lm_head").weight is not copied.weight


def test_adapters_on_the_head_are_refused():
    student = lora(model("llama"), target_modules=["q_proj", "lm_head"])
    with pytest.raises(
        ValueError, match=r"'lm_head' of LlamaForCausalLM has adapters.*Leave it ou"
    ):
        head_of(student, "lm_head")


def test_a_teacher_that_wears_the_students_adapters_is_refused():
    teacher = model("llama")
    student = lora(teacher)
    with pytest.raises(
        ValueError, match=r"share \d+ parameters .*: peft puts adapters into the mod"
    ):
        module_of(student, teacher, fused())
    module_of(lora(copy.deepcopy(teacher)), model("llama"), fused())


STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def objective():
    logits = {"student": "student.logits", "teacher": "teacher.logits"}
    layers = {r: f"{r}.layer:bert.encoder.layer.0" for r in ("student", "teacher")}
    return Objective(
        {"soft": Term(SoftTarget(), logits), "hint": Term(Hint(), layers, adapter="linear")}
    )


def trained(tmp_path, epochs, checkpoint=None):
    student = lora(bert(2, 8, seed=1, **STILL), rank=2)
    before = {n: p.clone() for n, p in student.named_parameters()}
    keep = ModelCheckpoint(tmp_path / f"of_{epochs}", save_last=True)
    run = trainer(tmp_path, max_epochs=epochs, callbacks=[keep], enable_checkpointing=True)
    module = DistillationModule(student, bert(2, 16), objective())
    run.fit(module, loader(text_batches()), ckpt_path=checkpoint)
    return module, before, run, keep.last_model_path


def test_the_optimizer_has_adapters_only_and_a_stopped_run_goes_on_as_if_it_had_not(tmp_path):
    whole, before, run, _ = trained(tmp_path, 2)
    updated = [p for group in run.optimizers[0].param_groups for p in group["params"]]
    assert len(updated) == len(trainable(whole.student)) + 2  # and the adapter of the term
    for name, parameter in whole.student.named_parameters():
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
    *_, last = trained(tmp_path, 1)
    resumed, *_ = trained(tmp_path, 2, last)
    for name, value in whole.state_dict().items():
        assert_close(resumed.state_dict()[name], value)


class Data:
    tokenizer = None


def test_its_folder_loads_without_adapters_and_adapters_lie_apart(tmp_path):
    plain = model("llama", layers=2)
    student = moved(lora(copy.deepcopy(plain))).eval()
    save_student(student, Data(), tmp_path, with_weights=False)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == [
        "LlamaForCausalLM"
    ]
    assert not list(tmp_path.rglob("*.safetensors"))
    save_student(student, Data(), tmp_path)
    ids = batch()["input_ids"]
    expected = student(ids).logits
    assert not torch.allclose(expected, plain(ids).logits, atol=1e-2)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(loaded).__name__ == "LlamaForCausalLM"
    assert_close(loaded(ids).logits, expected)
    apart = peft.PeftModel.from_pretrained(copy.deepcopy(plain), tmp_path / "adapter")
    assert_close(apart(ids).logits, expected)
    # It can be trained on.
    assert trainable(student) and "lora" in trainable(student)[0]


def test_a_head_that_was_tied_and_is_trained_apart_stays_apart(tmp_path):
    student = moved(lora(model("qwen2, tied"), modules_to_save=["lm_head"])).eval()
    with torch.no_grad():
        student.base_model.model.lm_head.modules_to_save["default"].weight.mul_(1.5)
    save_student(student, Data(), tmp_path)
    ids = batch()["input_ids"]
    assert_close(AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits, student(ids).logits)


def test_a_classifier_is_saved_with_its_head(tmp_path):
    student = moved(lora(bert(1, 8))).eval()
    with torch.no_grad():
        student.base_model.model.classifier.modules_to_save["default"].weight.mul_(3)
    save_student(student, Data(), tmp_path)
    ids = text_batches(1)[0]["input_ids"]
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert_close(loaded(ids).logits, student(ids).logits)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank": 0}, "`rank` must be at least 1, got 0"),
        ({"dropout": 1.0}, "`dropout` must lie from 0 to below 1, got 1.0"),
        (
            {"target_modules": ["qproj"]},
            r"at target_modules=\['qproj'\]: .* end in: q_proj, k_proj",
        ),
    ],
)
def test_what_it_cannot_be_is_refused_with_words(options, words):
    with pytest.raises(ValueError, match=words):
        lora(model("llama"), **options)


def test_without_peft_it_says_what_to_install(monkeypatch):
    # The name of the file is that of the function too.
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(
        ValueError, match=r"needs the package peft, .*pip install 'lightning-distill\[lora\]'"
    ):
        lora(model("llama"))
