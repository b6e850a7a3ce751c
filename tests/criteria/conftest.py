import pytest
import torch


@pytest.fixture
def logits():
    """Student and teacher, shape (2, 16, 10), float64."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 16, 10, generator=generator, dtype=torch.float64)
