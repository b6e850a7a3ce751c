"""A model that is in eval mode for a while has every mode of its parts again."""

import pytest
from torch import nn

from lightning_distill.models.modes import in_eval_mode, modes_kept


def mixed() -> nn.Module:
    """A model that trains, but for one part."""
    model = nn.Sequential(nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)), nn.Dropout())
    model[0][1].eval()
    return model


def modes(model: nn.Module) -> list[bool]:
    return [part.training for part in model.modules()]


def test_each_part_has_its_own_mode_again():
    first, second = mixed(), mixed()
    before = modes(first)
    assert before == [True, True, True, False, True]
    with in_eval_mode(first, second):
        assert not any(modes(first) + modes(second))
    assert modes(first) == modes(second) == before
    with pytest.raises(ValueError, match="no"), modes_kept(first):
        first.eval()
        first.append(nn.Dropout().eval())
        raise ValueError("no")
    assert modes(first) == [*before, False]
