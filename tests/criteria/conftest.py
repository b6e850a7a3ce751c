import pytest
import torch
from hypothesis import register_random


class TorchRandom:
    """Torch's generator, which hypothesis seeds before each example."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


RANDOM = TorchRandom()
register_random(RANDOM)


@pytest.fixture(autouse=True)
def seed():
    """Every test draws the same numbers, whichever others run before it."""
    torch.manual_seed(0)


@pytest.fixture
def logits():
    """Student and teacher, shape (2, 16, 10), float64."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 16, 10, generator=generator, dtype=torch.float64)
