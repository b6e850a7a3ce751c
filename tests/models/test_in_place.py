"""A layer's output is what the layer returned, also where the model changes it afterwards."""

import copy

import encoder_decoders
import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lightning_distill import DistillationModule, Objective, Term
from lightning_distill.criteria import AB, HardLabel, OFD, SoftTarget
from lightning_distill.models.capture import capture, read
from lightning_distill.models.compilation import compile_in_place
from lightning_distill.models.source import Source
from lightning_distill.tasks import SequenceToSequence


class BasicBlock(nn.Module):
    """The forward of torchvision's: the residual is added, and the ReLU applied, in place."""

    def __init__(self, channels, in_place=True):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=in_place)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.in_place = in_place

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.in_place:
            out += x
        else:
            out = out + x
        return self.relu(out)


class ResNet(nn.Module):
    """Parts are called as torchvision's, which the configurations of AB and OFD name."""

    def __init__(self, blocks=2, seed=0, in_place=True):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
            self.layer4 = nn.Sequential(*(BasicBlock(4, in_place) for _ in range(blocks)))
            self.fc = nn.Linear(4, 3)

    def forward(self, images):
        return self.fc(self.layer4(self.conv1(images)).mean((2, 3)))


def twins(**options):
    """A model that changes its tensors in place, and one of the same weights that does not."""
    return ResNet(in_place=True, **options), ResNet(in_place=False, **options)


def images(rows=4):
    return torch.randn(rows, 3, 5, 5, generator=torch.Generator().manual_seed(1))


def captured(model, path, x):
    source = Source.parse(f"student.{path}")
    with capture(model, [source]) as found:
        outputs = model(x)
    return read(source, outputs, found), outputs


PATHS = ["layer:layer4.1.bn2", "layer:layer4.0.bn1", "layer_input:layer4.1.relu"]
PATHS += ["layer:layer4.0", "layer_input:layer4.1"]


@pytest.mark.parametrize("path", PATHS)
def test_values_and_gradients_are_those_of_a_model_that_changes_nothing(path):
    results = []
    for model in twins():
        tensor, logits = captured(model, path, images())
        # Weighed by place, so that a gradient of the wrong sign or place is seen.
        weights = torch.linspace(-1, 2, tensor.numel()).view_as(tensor)
        loss = (weights * tensor.square()).sum() + logits.square().sum()
        results.append((tensor, torch.autograd.grad(loss, list(model.parameters()))))
    (found, gradients), (expected, expected_gradients) = results
    assert_close(found, expected, rtol=0, atol=0)
    assert_close(gradients, expected_gradients)
    if path == "layer:layer4.1.bn2":
        assert found.min() < -1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=lambda m: m.__name__)
def test_a_teacher_is_read_so_too(mode):
    with mode():
        found, expected = (captured(m.eval(), PATHS[0], images())[0] for m in twins())
    assert_close(found, expected, rtol=0, atol=0)
    assert found.min() < -0.1


class Views(nn.Module):
    """A layer returns a part of a tensor that is changed later, in several ways."""

    def __init__(self, in_place):
        super().__init__()
        self.first, self.part, self.pair = nn.Linear(4, 6), nn.Identity(), Pair()
        self.in_place = in_place

    def forward(self, x):
        hidden = self.first(x) * 1
        self.part(hidden[:, :3])
        self.pair(hidden)
        if self.in_place:
            hidden[:, :2].mul_(3)
            hidden += 1
        else:
            hidden = torch.cat([hidden[:, :2] * 3, hidden[:, 2:]], 1) + 1
        return hidden


class Pair(nn.Module):
    def forward(self, x):
        return {"left": (x[:, 0], x[:, 1]), "right": [x[:, 2], "a word", None]}


@pytest.mark.parametrize(
    "path",
    ["layer:part", "layer_input:part", "layer:first", "layer:pair[left]", "layer:pair[right]"],
)
def test_a_view_keeps_what_it_showed(path):
    torch.manual_seed(0)
    changing = Views(in_place=True)
    still = copy.deepcopy(changing)
    still.in_place = False
    results = []
    for model in (changing, still):
        tensor, outputs = captured(model, path, torch.randn(3, 4, generator=torch.manual_seed(2)))
        loss = tensor.square().sum() + outputs.square().sum()
        results.append((tensor, torch.autograd.grad(loss, list(model.parameters()))))
    assert_close(results[0], results[1])


def test_a_function_of_ones_own_is_given_what_the_layer_returned():
    model = Views(in_place=True)
    source = Source("student", "layer", "pair", process=lambda value: torch.stack(value["left"]))
    x = torch.randn(3, 4)
    with capture(model, [source]) as found:
        model(x)
    assert_close(read(source, None, found), model.first(x)[:, :2].T)


def test_a_compiled_model_is_read_so_too():
    torch._dynamo.reset()
    changing, still = twins()
    compile_in_place(changing, "eager")
    expected, _ = captured(still, PATHS[0], images())
    found, _ = captured(changing, PATHS[0], images())
    assert_close(found, expected)


@pytest.mark.parametrize("criterion", [AB, OFD])
def test_before_the_activation_means_before_it(criterion):
    inputs = {"student": "student.layer:layer4.1.bn2", "teacher": "teacher.layer:layer4.2.bn2"}
    results = []
    for in_place in (True, False):
        student = ResNet(2, seed=0, in_place=in_place)
        teacher = ResNet(3, seed=1, in_place=in_place)
        objective = Objective({"term": Term(criterion(), inputs)})
        module = DistillationModule(student, teacher, objective)
        batch = (images(), torch.tensor([0, 1, 2, 0]))
        module.prepare(batch)
        module.train()
        values, _, _ = module.read_sources(batch)
        loss = objective(values)["loss"]
        gradients = torch.autograd.grad(loss, list(student.parameters()), allow_unused=True)
        results.append((loss, gradients, dict(objective.named_buffers())))
    assert_close(results[0], results[1])
    if criterion is OFD:
        # Margins are means of negative responses, which a ReLU leaves none of.
        assert (results[0][2]["terms.term.criterion.floor"] < 0).all()


class ChangesItsInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.relu, self.layer = nn.ReLU(inplace=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(self.relu(x))


def test_a_model_that_changes_its_inputs_is_refused():
    inputs = {"student": "student.logits", "labels": "batch.labels"}
    objective = Objective({"hard_label": Term(HardLabel(), inputs)})
    module = DistillationModule(ChangesItsInput(), None, objective)
    with pytest.raises(ValueError, match="ChangesItsInput changes its inputs in place, so that"):
        module.prepare((torch.tensor([[-1.0, 2, 3, torch.nan]]), torch.tensor([1])))


class ChangesItsInputInTraining(ChangesItsInput):
    def forward(self, x):
        return super().forward(x if self.training else x.clone())


def test_a_model_that_does_so_in_training_only_is_refused_in_the_first_step():
    inputs = {"student": "student.logits", "labels": "batch.labels"}
    objective = Objective({"hard_label": Term(HardLabel(), inputs)})
    module = DistillationModule(ChangesItsInputInTraining(), None, objective)
    batch = (torch.randn(2, 4), torch.tensor([1, 0]))
    module.prepare(batch)
    module.train()
    with pytest.raises(ValueError, match="InTraining changes its inputs in place, so that"):
        module.losses(batch)


def test_the_teacher_hears_what_spec_augment_hides_from_the_student():
    teacher, student = (encoder_decoders.model("whisper", 1) for _ in range(2))
    student.config.apply_spec_augment = True
    student.config.mask_time_prob, student.config.mask_time_length = 0.5, 2
    inputs = {"student": "student.logits", "teacher": "teacher.logits"}
    objective = Objective({"soft_target": Term(SoftTarget(), inputs)})
    module = DistillationModule(student, teacher, objective, task=SequenceToSequence())
    batch = encoder_decoders.batch("whisper")
    before = batch["input_features"].clone()
    module.prepare(batch)
    module.train()
    np.random.seed(0)
    _, own, answers = module.read_sources(batch)
    assert torch.equal(batch["input_features"], before)
    with torch.no_grad():
        heard = teacher(**{**module.teacher_inputs(batch), "input_features": before})
    assert_close(answers.logits, heard.logits)
    # Part of the sound was hidden from the student.
    student.config.apply_spec_augment = False
    _, whole, _ = module.read_sources(batch)
    assert (own.logits - whole.logits).abs().max() > 1e-3
