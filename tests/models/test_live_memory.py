import torch

from lightning_distill.models.live_memory import LiveMemory


def test_live_memory_follows_what_comes_and_goes():
    weight = torch.zeros(10)
    with LiveMemory([weight]) as live:
        assert live.live == 40
        view = weight.view(2, 5)
        assert live.live == 40
        first = view + 1
        second = first * 2
        assert live.live == 120
        del first
        assert (live.live, live.peak) == (80, 120)
        del second, view
    assert live.live == 40
