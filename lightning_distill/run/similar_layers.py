"""The layers of a trained student beside those of its teacher, on some test rows."""

import logging
from pathlib import Path
from typing import Any

from ..checks.first_lines import rows_to_look_at
from ..data.some_rows import are_numbered, some_batches
from ..report import save_trained_layers, trained_layers
from ..training.module import DistillationModule
from ..training.transfer import transferred
from .inference_costs import where_it_trained

log = logging.getLogger("lightning_distill")

# How alike layers are is known from so many, of which each has many tokens.
ROWS = 256
# All layers of a batch are held at once: of long rows there are fewer in it.
PARTS = 8


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
    rows = rows_to_look_at(data, "test") if are_numbered(data, "test") else ROWS
    try:
        with where_it_trained(module, module.student) as device, where_it_trained(module, there):
            seen = some_batches(data, "test", rows, max(rows // PARTS, 1))
            batches = (transferred(module, batch, data, device) for batch in seen)
            found = trained_layers(module, batches)
    except Exception as error:
        # Both may be too large for one device, and what the run has learnt shall not be lost.
        log.warning("Layers are not compared: %s: %s", type(error).__name__, error)
        return
    save_trained_layers(found, directory)
