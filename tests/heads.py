"""Heads of language models, and what tests of fused criteria look at."""

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Head(nn.Linear):
    """A head with whatever the models have: scale and softcap beside weight and bias."""

    def __init__(self, width, vocabulary, bias=False, scale=None, softcap=None):
        super().__init__(width, vocabulary, bias, dtype=torch.float64)
        self.scale, self.softcap = scale, softcap
        nn.init.normal_(self.weight)

    def forward(self, hidden):
        z = super().forward(hidden) * (self.scale or 1.0)
        return self.softcap * (z / self.softcap).tanh() if self.softcap else z


def gradients(loss, *inputs):
    return torch.autograd.grad(loss, [x for x in inputs if x is not None])


def encoded(codec, logits):
    """What a source `teacher.sparse:logits` reads of a cache with this encoding."""
    flat = logits.detach().flatten(0, -2)
    ids = torch.arange(2 * len(flat)).reshape(-1, 2)
    fields = codec.encode(flat, ids).items()
    fields = {name: value.reshape(*logits.shape[:-1], -1) for name, value in fields}
    return {**codec.settings(), "vocabulary": logits.shape[-1], **fields}


class Allocations(TorchDispatchMode):
    """The sizes of all tensors that operations return, and how many rows products take."""

    def __init__(self):
        super().__init__()
        self.largest, self.rows = 0, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(found) if isinstance(x, torch.Tensor)]
        self.largest = max([self.largest, *sizes])
        if function.overloadpacket.__name__ in ("mm", "addmm", "addmm_"):
            self.rows += [len(args[-2])]
        return found
