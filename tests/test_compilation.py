"""A compiled model is read, trained and saved like any other."""

import copy
import shutil

import pytest
import torch
from tiny import bert, loader, text_batches, trainer
from torch import nn

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.compilation import compile_in_place
from lightning_distill.criteria import Hint, SoftTarget
from lightning_distill.features import capture, Source

# Trace and guard as the default does, and need no C++ compiler.
TRACED, DIFFERENTIATED = "eager", "aot_eager"


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
        return {"logits": self.head(hidden.mean(1))}


def trained(tmp_path, fast):
    torch.manual_seed(0)
    student, teacher = Net(4), Net(6)
    for model in (student, teacher) if fast else ():
        compiled(model, DIFFERENTIATED)
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


def test_it_learns_the_same_and_its_weights_keep_their_names(tmp_path):
    plain, expected = trained(tmp_path, False)
    fast, found = trained(tmp_path, True)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert list(fast.state_dict()) == list(plain.state_dict())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[name], value)


@pytest.mark.skipif(not shutil.which("g++"), reason="there is no g++ to compile with")
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
