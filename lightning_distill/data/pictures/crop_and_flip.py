"""Crops and mirrored pictures: what training pictures are commonly varied with."""

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor


class CropAndFlip:
    """Shifts a picture by up to `shift` of its sides, fills up with black, and mirrors every other.

    It changes the picture before it is resized, so that both models see the same part of it.

    Args:
        shift: share of height and width; 0.125 are 4 pixels of 32, as is usual for CIFAR.
        flip: the probability that left and right are exchanged.

    References:
        He et al., *Deep Residual Learning for Image Recognition*, 2016,
        https://arxiv.org/abs/1512.03385, section 4.2.
    """

    def __init__(self, shift: float = 0.125, flip: float = 0.5):
        for name, value in (("shift", shift), ("flip", flip)):
            if not 0 <= value <= 1:
                raise ValueError(f"`{name}` lies between 0 and 1, got {value!r}.")
        self.shift, self.flip = shift, flip

    def __call__(
        self, picture: UInt8[Tensor, "3 h w"], generator: torch.Generator
    ) -> UInt8[Tensor, "3 h w"]:
        """A picture of the same size."""
        most = [int(side * self.shift) for side in picture.shape[1:]]
        down, right = (
            int(torch.randint(-most_, most_ + 1, (), generator=generator)) for most_ in most
        )
        mirrored = bool(torch.rand((), generator=generator) < self.flip)
        if down or right:
            # Negative padding cuts off.
            picture = F.pad(picture, (right, -right, down, -down))
        return picture.flip(-1) if mirrored else picture

    def __repr__(self) -> str:
        return f"CropAndFlip(shift={self.shift}, flip={self.flip})"
