"""A model without dropout computes the same in training as in evaluation, whatever its family."""

import pytest
import torch
from students.families import batch_for, FAMILIES
from tiny import bert
from torch import nn
from torch.testing import assert_close
from transformers import PreTrainedConfig

from lightning_distill.models.dropout import NAMES, without_dropout
from lightning_distill.models.row_head import give_row_head, RowHead


def names_of(config):
    """The probabilities of a configuration, with those of its parts."""
    found = {n for n in vars(config) if NAMES.fullmatch(n)}
    return found.union(*(names_of(c) for c in vars(config).values() if is_config(c)))


def is_config(value):
    return isinstance(value, PreTrainedConfig)


def with_dropout(family):
    """As the family builds it, with a lot of dropout of every kind that its configuration has."""
    fields = {n: 0.4 for n in names_of(family.build().config)}
    towers = {n: v | fields for n, v in family.config.items() if n.endswith("_config")}
    made = type(family)(**{**vars(family), "config": {**family.config, **fields, **towers}})
    return made.build(), bool(fields)


def answer(family, model, batch, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        return model(**batch)[family.answer]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name)
def test_it_computes_the_same_in_training(family):
    model, has = with_dropout(family)
    batch = batch_for(family)
    expected = answer(family, model.eval(), batch, 0)
    # What is drawn for other ends, and what follows the batch.
    model.config.apply_spec_augment = False
    model.train()
    for module in model.modules():
        module.train(not isinstance(module, nn.modules.batchnorm._BatchNorm))
    if has:
        assert not torch.equal(answer(family, model, batch, 1), expected)
    assert without_dropout(model) is has
    for seed in (1, 2, 3):
        assert_close(answer(family, model, batch, seed), expected, rtol=1e-5, atol=1e-5)
    assert not without_dropout(model)


def test_a_configuration_says_so_and_a_second_head_has_none():
    model = bert(2, 16)
    give_row_head(model, RowHead(16, ["a", "b"], dropout=0.3))
    assert without_dropout(model)
    assert model.config.hidden_dropout_prob == model.config.attention_probs_dropout_prob == 0.0
    assert all(m.p == 0 for m in model.modules() if isinstance(m, nn.Dropout))


def test_modules_of_ones_own():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.AlphaDropout(0.1))
    x = torch.ones(8, 4)
    assert without_dropout(model)
    assert_close(model.train()(x), model.eval()(x))
    assert not without_dropout(nn.Linear(4, 4))
