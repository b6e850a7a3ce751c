"""What counts where tokens are hidden, against plain sums; and heads of many encoders."""

import copy

import pytest
import torch
import transformers as hf
from causal import module_of, step
from torch import nn
from torch.testing import assert_close

from lightning_distill import Agreement, DistillationModule, Objective, Term
from lightning_distill.criteria import FusedLinearDivergence, HardLabel, Hint, SoftTarget
from lightning_distill.metrics import Perplexity
from lightning_distill.models import linear_head
from lightning_distill.students import from_config, from_teacher
from lightning_distill.tasks import (
    infer_task,
    MaskedLanguageModelling,
    task_of_architecture,
)

TASK = MaskedLanguageModelling()
SMALL = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
# Some of all kinds: with a bias of its own, tied, narrower than the model, and after another norm.
SLOW = ["roberta", "electra", "albert", "modernbert", "mpnet"]
NAMES = [
    "bert",
    "distilbert",
    "deberta-v2",
    *(pytest.param(n, marks=pytest.mark.slow) for n in SLOW),
]
DISTILBERT = {"dim": 16, "n_heads": 2, "hidden_dim": 24}
LOGITS = {"student": "student.logits", "teacher": "teacher.logits"}


def encoder(name="bert", layers=1, seed=0, vocabulary=50, **changes):
    sizes = DISTILBERT | {"n_layers": layers} if name == "distilbert" else SMALL
    if name != "distilbert":
        sizes = sizes | {"num_hidden_layers": layers}
    if name in ("electra", "albert"):
        sizes = sizes | {"embedding_size": 8}
    task = {"task": TASK, "vocab_size": vocabulary, "pad_token_id": 0, "seed": seed}
    model = from_config(name, **sizes | task | changes).eval()
    with torch.no_grad():
        # A fresh bias is 0, and would not be missed.
        head = model.get_output_embeddings()
        if head.bias is not None:
            head.bias.normal_(generator=torch.Generator().manual_seed(seed))
    return model


def batch():
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 48, (3, 7), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    labels = torch.full_like(ids, -100)
    labels[0, 2], labels[1, 1], labels[1, 4], labels[2, 6] = 7, 8, 9, 10
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}


def fused_inputs(*models):
    inputs = {"labels": "batch.labels"}
    for role, model in zip(("student", "teacher"), models, strict=False):
        head = linear_head(model)
        inputs |= {role: f"{role}.layer_input:{head}", f"{role}_head": f"{role}.head:{head}"}
    return inputs


@pytest.mark.parametrize("name", NAMES)
def test_fused_losses_are_those_of_the_logits_for_every_encoder(name):
    student, teacher, given = encoder(name), encoder(name, 2, 1), batch()
    loss = FusedLinearDivergence(SoftTarget(temperature=2.0), label_weight=0.5)
    module = module_of(copy.deepcopy(student), teacher, Term(loss, fused_inputs(student, teacher)))
    value, gradients, *shapes = step(module, given)
    assert [tuple(shape) for shape in shapes] == [(3, 7, 0)] * 2
    labels = given.pop("labels")
    counted = labels != -100
    s = student(**given).logits[counted].double()
    with torch.no_grad():
        t = teacher(**given).logits[counted].double()
    log_p, q = (s / 2).log_softmax(-1), (t / 2).softmax(-1)
    divergence = 4 * (q * (q.log() - log_p)).sum(-1).mean()
    expected = divergence - 0.5 * s.log_softmax(-1)[range(4), labels[counted]].mean()
    expected.backward()
    assert_close(value.double(), expected, rtol=1e-5, atol=1e-7)
    for key, parameter in student.named_parameters():
        if parameter.grad is not None:
            assert_close(gradients[key], parameter.grad, rtol=1e-3, atol=1e-6)
    # What a teacher is trained with, and a student alone.
    own = TASK.label_term(student)
    assert str(own.inputs["student"]) == f"student.layer_input:{linear_head(student)}"
    assert TASK.label_term(student, 0.1).inputs["student"].name == "logits"


def test_a_head_of_two_weights_is_none_that_could_be_fused():
    mobile = encoder("mobilebert", **{k: 16 for k in ("embedding_size", "intra_bottleneck_size")})
    assert linear_head(mobile) is None
    assert isinstance(TASK.label_term(mobile).criterion, HardLabel)


def test_logits_count_masked_tokens_and_layers_all_that_are_no_padding():
    student, teacher, given = encoder(), encoder(layers=2, seed=1), batch()
    hidden = {k: f"{k}.hidden_states[-1]" for k in ("student", "teacher")}
    terms = {"soft": Term(SoftTarget(2.0), dict(LOGITS)), "hint": Term(Hint(), hidden)}
    module = DistillationModule(student, teacher, Objective(terms), {"ppl": Perplexity()})
    module.prepare(given)
    values = module.objective(module.read_sources(given)[0])
    assert module.task == TASK
    labels = given.pop("labels")
    counted, real = labels != -100, given["attention_mask"].bool()
    outputs = [m(**given, output_hidden_states=True) for m in (student, teacher)]
    s, t = (out.logits[counted].double() for out in outputs)
    q = (t / 2).softmax(-1)
    expected = 4 * (q * (q.log() - (s / 2).log_softmax(-1))).sum(-1).mean()
    assert_close(values["soft"].double(), expected, rtol=1e-5, atol=1e-8)
    states = [out.hidden_states[-1][real].double() for out in outputs]
    assert_close(values["hint"].double(), (states[0] - states[1]).square().mean(), rtol=1e-5,
                 atol=1e-8)  # fmt: skip


def test_perplexity_and_agreement_are_of_masked_tokens():
    student, teacher, given = encoder(), encoder(layers=2, seed=1), batch()
    labels = given.pop("labels")
    s, t = (m(**given).logits.detach() for m in (student, teacher))
    counted = TASK.counted({**given, "labels": labels}, s)
    assert torch.equal(counted, labels != -100)
    perplexity = Perplexity()
    perplexity.update(s[counted], labels[counted])
    loss = student(**given, labels=labels).loss.detach()
    assert_close(perplexity.compute().float(), loss.exp(), rtol=1e-5, atol=1e-6)
    agreement = Agreement(task=TASK)
    agreement.update(s[counted], t[counted])
    expected = (s.argmax(-1) == t.argmax(-1))[counted].float().mean()
    assert_close(agreement.compute().float(), expected)


def test_the_task_is_told_by_the_models_class():
    assert task_of_architecture("BertForMaskedLM") == TASK
    assert infer_task(encoder(), batch()) == TASK
    assert infer_task(encoder(), batch(), torch.zeros(3, 7, 50)) == TASK
    assert TASK.auto_class("RobertaForMaskedLM") == "AutoModelForMaskedLM"


@pytest.mark.parametrize("name", ["bert", "distilbert"])
def test_a_student_cut_from_the_teacher_has_its_head(name):
    teacher = encoder(name, 3)
    student = from_teacher(teacher, 1)
    heads = [m.get_submodule(linear_head(m)) for m in (student, teacher)]
    assert_close(heads[0].weight, heads[1].weight)
    assert_close(heads[0].bias, heads[1].bias)
    # Still tied to the embeddings, as the teacher's is.
    assert heads[0].weight is student.get_input_embeddings().weight
    assert isinstance(student, hf.PreTrainedModel) and isinstance(heads[0], nn.Linear)


def test_labels_stand_at_their_own_position(tmp_path):
    from tiny import loader, trainer

    student, teacher = encoder(), encoder(layers=2, seed=1)
    loss = FusedLinearDivergence(label_weight=0.5, shift_labels=True)
    module = module_of(student, teacher, Term(loss, fused_inputs(student, teacher)))
    module.optimizer = torch.optim.SGD(student.parameters(), 0.1)
    with pytest.raises(ValueError, match="those of masked_language_modelling stand at their own"):
        trainer(tmp_path).fit(module, loader([batch()]))
