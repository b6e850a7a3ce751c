"""Language models are compared by hidden states and heads, and their logits are not made."""

import copy

import pytest
import torch
from causal import batch, fused, model, MODELS, module_of, step
from tiny import loader, trainer
from torch import nn
from torch.testing import assert_close
from torchmetrics import MeanMetric

from lightning_distill import Term
from lightning_distill.criteria import JSD, SoftTarget
from lightning_distill.models.head import head_of
from lightning_distill.models.source import Source


@pytest.mark.parametrize("name", MODELS)
def test_any_causal_model_is_distilled_without_its_logits(name):
    student, teacher = model(name, 50), model(name, 53, layers=2, seed=1)
    found = {}
    for way in (True, False):
        module = module_of(copy.deepcopy(student), teacher, fused(JSD(0.3, 2.0), fused=way))
        loss, gradients, *shapes = step(module, batch())
        assert [tuple(s) for s in shapes] == [(3, 7, 0), (3, 7, 0)]
        found[way] = loss, gradients
    # From the models' own logits, by the definition of a mean over the tokens with a next one.
    given = batch()
    labels = given.pop("labels")
    s = student(**given).logits[:, :-1]
    with torch.no_grad():
        t = teacher(**given).logits[:, :-1, :50]
    counted = labels[:, 1:] != -100
    expected = JSD(0.3, 2.0)(s, t, counted)
    expected.backward()
    for loss, gradients in found.values():
        assert_close(loss, expected, rtol=1e-4, atol=1e-7)
        for key, parameter in student.named_parameters():
            assert_close(gradients[key], parameter.grad, rtol=1e-3, atol=1e-6)


def test_models_of_different_families_and_padded_heads_are_compared():
    student, teacher = model("llama", 50), model("gpt2", 64, layers=2)
    loss, gradients, *_ = step(module_of(student, teacher, fused(shared_vocab=48)), batch())
    assert loss > 0 and gradients["lm_head.weight"][:48].any()
    assert not gradients["lm_head.weight"][48:].any()


def test_it_trains_with_and_without_metrics_and_leaves_the_models_as_they_were(tmp_path):
    teacher = model("gpt2", layers=2, seed=1)
    data = loader([batch(), batch()])

    class Perplexity(MeanMetric):
        def update(self, predictions, labels):
            assert predictions.shape == (16, 50)  # of the tokens that have one to follow
            super().update(predictions.mean())

    for metrics in (None, {"seen": Perplexity()}):
        module = module_of(model("gpt2"), teacher, fused(label_weight=0.5), metrics=metrics)
        runner = trainer(tmp_path)
        runner.fit(module, data, data)
        assert runner.callback_metrics["val/term_0"].isfinite()
        for own in (module.student, teacher):
            assert "forward" not in vars(own.lm_head)
            assert own(batch()["input_ids"]).logits.shape == (3, 7, 50)


def test_logits_are_made_where_another_term_reads_them():
    plain = Term(SoftTarget(1.0), {"student": "student.logits", "teacher": "teacher.logits"})
    module = module_of(model("gpt2"), model("gpt2", layers=2, seed=1), fused(), plain)
    *_, of_student, of_teacher = step(module, batch())
    assert of_student == of_teacher == (3, 7, 50)


def test_a_frozen_head_gets_no_gradient_and_the_body_does():
    student = model("llama")
    student.lm_head.requires_grad_(False)
    _, gradients, *_ = step(module_of(student, model("llama", seed=1), fused()), batch())
    assert "lm_head.weight" not in gradients and any(g.any() for g in gradients.values())


class Adapted(nn.Linear):
    def forward(self, hidden):
        return 2 * super().forward(hidden)


def test_a_head_that_is_more_than_linear_is_refused():
    student = model("llama")
    student.lm_head = Adapted(16, 50, bias=False)
    with pytest.raises(ValueError, match="'lm_head' of LlamaForCausalLM is a Adapted and not a pl"):
        head_of(student, "lm_head")


class Shifted(nn.Module):
    """Does to its logits what no config says."""

    def __init__(self):
        super().__init__()
        self.body, self.lm_head = nn.Embedding(50, 8), nn.Linear(8, 50)

    def forward(self, input_ids):
        return {"logits": self.lm_head(self.body(input_ids)) * 1.1}


def test_logits_that_do_not_follow_from_the_head_are_refused():
    module = module_of(Shifted(), model("gpt2"), fused())
    with pytest.raises(ValueError, match=r"other logits than follow from student.head:lm_head"):
        module.prepare(batch())


@pytest.mark.parametrize("text", ["student.head:", "student.head:a,b", "teacher.head:h[0]"])
def test_a_source_of_a_head_names_one(text):
    with pytest.raises(ValueError, match=r"must name one head, as in (student|teacher).head:lm_h"):
        Source.parse(text)


def test_a_head_that_is_not_there_is_refused():
    term = fused()
    term.inputs["student_head"] = Source.parse("student.head:lm_heed")
    term.pairs = [term.inputs]
    with pytest.raises(ValueError, match=r"no submodule 'lm_heed'. Its head is 'lm_head'. "):
        module_of(model("gpt2"), model("gpt2", seed=1), term).prepare(batch())
