"""Wide residual networks for pictures of 32 x 32 pixels.

Zagoruyko and Komodakis, *Wide Residual Networks*, 2016, https://arxiv.org/abs/1605.07146, table 1.
"""

import torch
from safetensors.torch import load_model
from torch import nn


class Block(nn.Module):
    """Two convolutions of 3 x 3, each behind batch norm and ReLU, added to what came in."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        # Where the size changes, a convolution of 1 x 1 takes the place of the identity.
        changes = stride > 1 or before != after
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if changes else None

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        active = self.norm1(values).relu()
        found = self.conv2(self.norm2(self.conv1(active)).relu())
        return found + (values if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """WRN-`depth`-`width`: three stages of (depth - 4) / 6 blocks, 16, 32, 64 times `width` wide.

    Args:
        num_labels: how many classes there are.
        depth: 6 n + 4 convolutions.
        width: k of the paper.
        seed: of the weights.
    """

    def __init__(self, num_labels: int = 10, depth: int = 40, width: int = 2, seed: int = 0):
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"`depth` must be 6 n + 4, as 16 or 40, got {depth}.")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
            blocks, before = [], 16
            for stage in range(3):
                after = 16 * 2**stage * width
                for i in range((depth - 4) // 6):
                    blocks.append(Block(before, after, 2 if stage and not i else 1))
                    before = after
            self.blocks = nn.Sequential(*blocks)
            self.norm = nn.BatchNorm2d(before)
            self.classifier = nn.Linear(before, num_labels)
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        found = self.norm(self.blocks(self.stem(pixel_values))).relu()
        return {"logits": self.classifier(found.mean(dim=(2, 3)))}


def trained(weights: str, num_labels: int = 10, depth: int = 40, width: int = 2) -> WideResNet:
    """A teacher with the weights that job=finetune has written."""
    model = WideResNet(num_labels, depth, width)
    load_model(model, weights)
    return model.eval()
