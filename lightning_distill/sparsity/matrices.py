"""The weights of a student that can become 0."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn, Tensor
from transformers.pytorch_utils import Conv1D

from ..models.source import nearest
from ..models.submodules import submodules

LINEAR = nn.Linear | nn.Conv1d | nn.Conv2d | Conv1D


def linear_layers(student: nn.Module, layers: Sequence[str] | None = None) -> dict[str, nn.Module]:
    """Linear layers and convolutions by their paths, whether they are trained or not.

    Args:
        student: whose layers they are.
        layers: see [`Matrices`][].

    Raises:
        ValueError: if there are none.
    """
    there = {path: m for path, m in submodules(student).items() if isinstance(m, LINEAR)}
    for pattern in layers or ():
        if not any(fnmatchcase(path, pattern) for path in there):
            raise ValueError(
                f"`sparsity.layers` names {pattern!r}, and no linear layer or convolution of "
                f"the student is called so. {nearest(pattern, there)}"
            )
    if layers is None:
        chosen = [p for p in there if any(part.isdigit() for part in p.split("."))]
    else:
        chosen = [p for p in there if any(fnmatchcase(p, one) for one in layers)]
    if not chosen:
        names = ", ".join(list(there)[:4]) or "none"
        raise ValueError(
            "No linear layer of the student lies in a list of layers. Name those whose weights "
            f"shall become 0, as in sparsity.layers=['encoder*']. There are: {names}."
        )
    return {path: there[path] for path in chosen}


class Matrices:
    """Weights of linear layers and convolutions, each as a matrix of outputs and inputs.

    Args:
        student: whose weights they are.
        layers: patterns of the paths of layers, with `*` for any letters; `None` takes all that lie
            in a list of layers, so that embeddings and heads stay as they are.
        may_be_none: whether it is fine that none of them is trained.

    Raises:
        ValueError: if there are none, or none that is trained.
    """

    def __init__(
        self, student: nn.Module, layers: Sequence[str] | None = None, may_be_none: bool = False
    ):
        self.weights: dict[str, nn.Parameter] = {}
        self._transposed: set[str] = set()
        seen: set[int] = set()
        for path, layer in linear_layers(student, layers).items():
            weight: nn.Parameter = layer.weight  # type: ignore[assignment]
            if weight.requires_grad and id(weight) not in seen:
                seen.add(id(weight))
                self.weights[path] = weight
                if isinstance(layer, Conv1D):
                    self._transposed.add(path)
        if not self.weights and not may_be_none:
            raise ValueError(
                "None of the student's layers that could become sparse is trained (student.freeze, "
                "`trainable` of a stage, or adapters beside frozen weights)."
            )

    def matrix(self, path: str, tensor: Tensor) -> Tensor:
        """A tensor of a weight's shape as `(outputs, inputs)`."""
        return tensor.T if path in self._transposed else tensor.flatten(1)

    def shaped(self, path: str, matrix: Tensor) -> Tensor:
        """The other way round."""
        return matrix.T if path in self._transposed else matrix.view(self.weights[path].shape)

    @property
    def count(self) -> int:
        """Of all weights."""
        return sum(weight.numel() for weight in self.weights.values())

    @property
    def zeros(self) -> float:
        """The share of weights that are 0."""
        zeros = sum(int((weight == 0).sum()) for weight in self.weights.values())
        return zeros / max(self.count, 1)

    def describe(self) -> str:
        """In words, for a report."""
        return f"{self.zeros:.1%} of {self.count:,} weights in {len(self.weights)} layers"
