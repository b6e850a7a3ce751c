"""Fresh weights are told from trained ones by the weights themselves."""

import pytest
import torch
from tiny import bert
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from lightning_distill.models.freshness import is_fresh
from lightning_distill.students import from_teacher


class Stages(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).mean((-1, -2)))


class Xavier(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 2)
        nn.init.normal_(self.fc.weight, std=3.0)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x):
        return self.fc(x)


def llama():
    config = LlamaConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


IDS, PIXELS = torch.randint(5, 60, (4, 7)), torch.randn(4, 3, 8, 8)
MODELS = {
    "bert": (lambda: bert(1, 8), IDS),
    "llama": (llama, IDS),
    "batch norm that begins at zero": (Stages, PIXELS),
    "no normalisation, as torch draws": (
        lambda: nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 2)),
        torch.randn(4, 6),
    ),
    "no normalisation, biases at zero": (Xavier, torch.randn(4, 6)),
}


@pytest.mark.parametrize(("make", "inputs"), MODELS.values(), ids=MODELS)
def test_a_few_steps_of_training_make_the_difference(make, inputs):
    model = make()
    assert is_fresh(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    for _ in range(4):
        found = model(inputs)
        logits = found if isinstance(found, torch.Tensor) else found.logits
        logits.log_softmax(-1)[..., 0].mean().neg().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not is_fresh(model)


def test_layers_cut_from_a_trained_model_are_trained():
    teacher = bert(2, 8)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    assert not is_fresh(from_teacher(teacher, layers=1))


def test_a_fresh_head_on_a_trained_encoder_does_not_make_it_fresh():
    model = bert(1, 8)
    with torch.no_grad():
        model.bert.encoder.layer[0].output.LayerNorm.weight[0] += 0.1
    model.classifier.reset_parameters()
    assert not is_fresh(model)


def test_what_has_nothing_to_judge_by_is_fresh():
    assert is_fresh(nn.EmbeddingBag(20, 3))
    assert is_fresh(nn.ReLU())
