"""A compiled model is read, trained and saved like any other."""

import copy
import shutil

import pytest
import torch
from causal import batch, fused, model as causal, module_of
from tiny import bert, loader, text_batches, trainer
from torch import nn

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.balance._gradients import gradients
from lightning_distill.criteria import Hint, SoftTarget
from lightning_distill.models.capture import capture
from lightning_distill.models.compilation import compile_in_place
from lightning_distill.models.inputs import call_model
from lightning_distill.models.source import Source
from lightning_distill.students import lora

# Traces and guards as the default does, and needs no C++ compiler.
TRACED = "eager"
with_compiler = pytest.mark.skipif(
    not shutil.which("g++"), reason="there is no g++ to compile with"
)


def compiled(model, backend=TRACED):
    compile_in_place(model, backend)
    return model


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def tensor(value):
    return value[0] if isinstance(value, tuple) else value


@pytest.mark.slow
def test_the_layers_that_are_asked_for_are_read_whatever_was_asked_for_before():
    plain = bert(2, 16, seed=1).eval()
    fast = compiled(copy.deepcopy(plain))
    asked = [
        ["student.layer:bert.encoder.layer.0"],
        ["student.layer:bert.encoder.layer.*"],
        [],
        ["student.layer_input:classifier", "student.layer:bert.pooler"],
        ["student.layer:bert.encoder.layer.1"],
    ]
    generator = torch.Generator().manual_seed(0)
    graphs = []
    for turn in range(3):
        for names in asked:
            ids = torch.randint(5, 60, (3 + 2 * turn, 7 + 4 * turn), generator=generator)
            sources = [Source.parse(name) for name in names]
            with capture(plain, sources) as expected:
                logits = plain(input_ids=ids).logits
            with capture(fast, sources) as found:
                torch.testing.assert_close(fast(input_ids=ids).logits, logits)
            assert list(found) == list(expected)
            for key in expected:
                torch.testing.assert_close(tensor(found[key]), tensor(expected[key]))
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[2] - graphs[1] < len(asked), "each batch is compiled anew"


@pytest.mark.slow
def test_a_language_model_with_adapters_is_compared_without_its_logits(unchecked_types):
    pytest.importorskip("peft", reason="pip install 'lightning-distill[lora]'")
    plain, teacher = (
        lora(causal("llama"), rank=2, target_modules=["v_proj"]),
        causal("llama", seed=1),
    )
    found, graphs = [], []
    for fast in (False, True):
        student = copy.deepcopy(plain).eval()
        module = module_of(compiled(student) if fast else student, teacher, fused())
        module.prepare(batch())
        losses = []
        for rows, tokens in ((3, 7), (4, 9), (2, 11)):
            values, answer, _ = module.read_sources(batch(rows, tokens), heads="skipped")
            assert tuple(answer.logits.shape) == (rows, tokens, 0)
            losses.append(module.objective(values)["loss"])
            losses[-1].backward()
            graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        found.append((losses, {n: p.grad for n, p in module.student.named_parameters()}))
    for a, b in zip(found[1][0], found[0][0], strict=True):
        torch.testing.assert_close(a, b)
    for key, gradient in found[0][1].items():
        assert (gradient is None) == (found[1][1][key] is None)
        if gradient is not None:
            torch.testing.assert_close(found[1][1][key], gradient, rtol=1e-4, atol=1e-7)
    assert graphs[0] == graphs[2] < graphs[3]
    assert graphs[4] == graphs[5], "each batch is compiled anew"


class Net(nn.Module):
    """Reads batches as text models do, and takes little time to compile."""

    def __init__(self, width):
        super().__init__()
        self.words = nn.Embedding(60, width)
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.head = nn.Linear(width, 3)

    def forward(self, input_ids):
        hidden = self.words(input_ids)
        for layer in self.layers:
            hidden = torch.tanh(layer(hidden))
        # Something that is kept for the backward pass and that nobody reads.
        kept = nn.functional.layer_norm(hidden.exp(), hidden.shape[-1:]).sigmoid()
        return {"logits": self.head(kept.mean(1))}


def trained(tmp_path, fast):
    torch.manual_seed(0)
    student, teacher = Net(4), Net(6)
    for model in (student, teacher) if fast else ():
        compiled(model, "inductor")
    hidden = {"student": "student.layer:layers.*", "teacher": "teacher.layer:layers.*"}
    logits = {"student": "student.logits", "teacher": "teacher.logits"}
    objective = Objective(
        {
            "soft_target": Term(SoftTarget(), logits),
            "hint": Term(Hint(), hidden, adapter="linear", mapping="uniform"),
        }
    )
    module = DistillationModule(student, teacher, objective)
    batches = [text_batches(1, rows, tokens)[0] for rows, tokens in ((4, 7), (3, 9), (5, 6))]
    run = trainer(tmp_path)
    run.fit(module, loader(batches), loader(text_batches(1)))
    return module, {name: float(value) for name, value in run.callback_metrics.items()}


@pytest.mark.slow
@with_compiler
def test_it_learns_the_same_and_its_weights_keep_their_names(tmp_path):
    plain, expected = trained(tmp_path, False)
    fast, found = trained(tmp_path, True)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert list(fast.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[name], value)


@with_compiler
def test_gradients_of_single_terms_are_taken_before_the_step():
    torch.manual_seed(0)
    plain = Net(4)
    fast = compiled(copy.deepcopy(plain), "inductor")
    found = {}
    for name, net in (("plain", plain), ("fast", fast)):
        logits = call_model(net, text_batches(1)[0]["input_ids"], {})["logits"]
        losses = [logits.logsumexp(1).mean(), logits.square().mean()]
        each = gradients(torch.stack(losses), list(net.parameters()))
        sum(losses).backward()
        summed = torch.cat([p.grad.flatten() for p in net.parameters()])
        torch.testing.assert_close(each.sum(0), summed)
        found[name] = each
    torch.testing.assert_close(found["fast"], found["plain"])


@with_compiler
def test_the_default_backend_compiles_it():
    layer = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    fast = compiled(copy.deepcopy(layer), "inductor")
    for rows in (2, 5):
        x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(rows))
        torch.testing.assert_close(fast(x), layer(x))
    assert list(fast.state_dict()) == list(layer.state_dict())


def test_a_second_call_does_nothing():
    model = compiled(nn.Linear(2, 2))
    made = model._compiled_call_impl
    assert compiled(model)._compiled_call_impl is made
    assert copy.deepcopy(model)(torch.ones(1, 2)).shape == (1, 2)


def test_without_a_compiler_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ValueError, match="compile=true needs a C.. compiler .* install g"):
        compile_in_place(nn.Linear(2, 2))
