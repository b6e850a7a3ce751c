"""What the models of a run cost where they are used, measured when the run is over."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn, Tensor

from ..data.some_rows import typical_batches
from ..models.batch import entries
from ..report import Costs, measure_costs
from ..report.measure import ROWS
from ..training.module import DistillationModule
from ..training.transfer import transferred, working_device

# Of a teacher whose answers are read from disk or had elsewhere.
NOT_THERE = "no model in memory"


class Measuring:
    """Measures the models of a run, all on the same rows and on the device of the training.

    Args:
        data: whose test rows are taken, of about the median length.
    """

    def __init__(self, data: Any):
        data.setup("test")
        self.data, self.batches = data, typical_batches(data, "test", (1, ROWS))
        self.about: dict[str, str] = {}

    def costs(
        self,
        module: DistillationModule,
        model: nn.Module | None,
        forward: Callable[[Any], Any] | None,
    ) -> Costs:
        """Of one model.

        Args:
            module: that the model belongs to.
            model: with the weights that are used; `None` if there is none here.
            forward: runs it on a batch.
        """
        if model is None or forward is None:
            return Costs.unknown(NOT_THERE)
        with where_it_trained(module, model) as device:
            one, many = (transferred(module, b, self.data, device) for b in self.batches)
            shapes = f"{_shape(one)}, {_shape(many)}"
            self.about = {"times and memory": f"on {_named(device)}; {shapes}"}
            return measure_costs(model, forward, one, many)


@contextmanager
def where_it_trained(module: DistillationModule, model: nn.Module) -> Iterator[torch.device]:
    """While it lasts, a model is on the device of the training, where Lightning took it from."""
    before = module.device
    device = working_device(module) if module.is_attached else before
    model.to(device)
    try:
        yield device
    finally:
        if before != device:
            module.to(before)
            model.to(before)


def _named(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    # What else the machine does makes times longer.
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{device.type}, {threads} of {os.cpu_count()} cores{load}"


def _shape(batch: Any) -> str:
    """How large a batch is, by its first entry that has more than a number for each row."""
    held: Mapping[str, Any] = entries(batch)
    for name, value in held.items():
        if isinstance(value, Tensor) and value.dim() > 1:
            return f"{name} {' × '.join(map(str, value.shape))}"
    return "batches of one row"
