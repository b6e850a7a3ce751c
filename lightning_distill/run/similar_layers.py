"""The layers of a trained student beside those of its teacher, on some test rows."""

from pathlib import Path
from typing import Any

from ..data.some_rows import some_batches
from ..report import save_trained_layers, trained_layers
from ..training.module import DistillationModule
from ..training.transfer import transferred
from .inference_costs import where_it_trained

# How alike layers are is known from so many, of which each has many tokens.
ROWS, AT_ONCE = 256, 32


def write_similar_layers(directory: Path, module: DistillationModule, data: Any) -> None:
    """Add how alike the layers are to `layer_similarity.json`; nothing where they are not there.

    Args:
        directory: of the run.
        module: with the student's best weights.
        data: the data module, set up for a test.
    """
    teacher = module.taught_by
    if teacher is None:
        return
    there = teacher.model if teacher.model is not None else module.student
    with where_it_trained(module, module.student) as device, where_it_trained(module, there):
        rows = some_batches(data, "test", ROWS, AT_ONCE)
        batches = (transferred(module, batch, data, device) for batch in rows)
        save_trained_layers(trained_layers(module, batches), directory)
