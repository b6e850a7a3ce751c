"""Language models are compared by hidden states and heads, and their logits are not made."""

import copy

import pytest
import torch
import transformers as hf
from tiny import loader, trainer
from torch import nn
from torch.testing import assert_close
from torchmetrics import MeanMetric

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import FusedLinearDivergence, JSD, SoftTarget
from lightning_distill.models.head import head_of
from lightning_distill.models.source import Source

SMALL = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 8}
SMALL |= {"intermediate_size": 24, "max_position_embeddings": 32, "pad_token_id": 0}
MODELS = {
    "gpt2": (hf.GPT2LMHeadModel, hf.GPT2Config, {"n_embd": 16, "n_head": 2, "n_positions": 32}),
    "llama": (hf.LlamaForCausalLM, hf.LlamaConfig, SMALL),
    "qwen2, tied": (hf.Qwen2ForCausalLM, hf.Qwen2Config, SMALL | {"tie_word_embeddings": True}),
    # So low that it bends the small logits of models that were never trained.
    "gemma2": (
        hf.Gemma2ForCausalLM,
        hf.Gemma2Config,
        SMALL | {"final_logit_softcapping": 0.05, "query_pre_attn_scalar": 8},
    ),
    "cohere": (hf.CohereForCausalLM, hf.CohereConfig, SMALL | {"logit_scale": 3.0}),
    "granite": (hf.GraniteForCausalLM, hf.GraniteConfig, SMALL | {"logits_scaling": 0.25}),
}


def model(name, vocabulary=50, layers=1, seed=0):
    kind, config, options = MODELS[name]
    depth = {"n_layer": layers} if name == "gpt2" else {"num_hidden_layers": layers}
    torch.manual_seed(seed)
    return kind(config(vocab_size=vocabulary, **depth, **options)).eval()


def batch(rows=3, tokens=7):
    ids = torch.randint(1, 48, (rows, tokens), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def fused(criterion=None, **options):
    inputs = {
        "student": "student.layer_input:lm_head",
        "teacher": "teacher.layer_input:lm_head",
        "student_head": "student.head:lm_head",
        "teacher_head": "teacher.head:lm_head",
        "labels": "batch.labels",
    }
    return Term(FusedLinearDivergence(criterion, shift_labels=True, **options), inputs)


def module_of(student, teacher, *terms, metrics=None):
    named = {f"term_{i}": term for i, term in enumerate(terms)}
    return DistillationModule(student, teacher, Objective(named), metrics)


def step(module, batch):
    """Loss and gradients of one batch, and the shapes of the logits that the models returned."""
    module.prepare(batch)
    values, student, teacher = module._values(batch, heads="skipped")
    loss = module.objective(values)["loss"]
    learned = {n: p for n, p in module.student.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(learned.values()), allow_unused=True)
    return loss, dict(zip(learned, found, strict=True)), student.logits.shape, teacher.logits.shape


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
