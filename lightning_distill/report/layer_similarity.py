"""How alike the layers of student and teacher are, before the training and after it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ..objective.layer_similarity import SimilarLayers
from .trained_layers import TrainedLayers

NAME = "layer_similarity"
# What the file says of layers as they are after the training.
TRAINED = "after_training"


def save_layer_similarity(layers: Mapping[str, SimilarLayers], directory: Path) -> None:
    """Write `layer_similarity.json` and `layer_similarity.png` of terms with `mapping=auto`.

    Args:
        layers: by the names of terms, what paired their layers; nothing is written without one.
        directory: of the run, or of a stage.
    """
    found = {name: one for name, one in layers.items() if one.similarity is not None}
    if not found:
        return
    content = {
        name: {
            "students": [str(source) for source in one.students],
            "teachers": [str(source) for source in one.teachers],
            "cka": one.similarity.tolist(),  # type: ignore[union-attr]
            "pairs": one.pairs,
        }
        for name, one in found.items()
    }
    (directory / f"{NAME}.json").write_text(json.dumps(content, indent=2), encoding="utf-8")
    _draw(content, directory / f"{NAME}.png")


def save_trained_layers(layers: Mapping[str, TrainedLayers], directory: Path) -> None:
    """Add what the layers are like after the training to `layer_similarity.json`.

    Args:
        layers: as [`trained_layers`][] finds them; nothing is written without any.
        directory: of the run.
    """
    if not layers:
        return
    path = directory / f"{NAME}.json"
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for stack, one in layers.items():
        content[f"trained {stack}"] = {
            "students": one.students,
            "teachers": one.teachers,
            "cka": one.cka.tolist(),
            "pairs": one.pairs,
            TRAINED: True,
        }
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _draw(content: Mapping[str, Mapping[str, Any]], to: Path) -> None:
    rows = max(len(one["students"]) for one in content.values())
    columns = max(len(one["teachers"]) for one in content.values())
    size = 2.2 + 0.5 * columns, (1.6 + 0.5 * rows) * len(content)
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    for i, (name, one) in enumerate(content.items()):
        axes = figure.add_subplot(len(content), 1, i + 1)
        picture = axes.imshow(one["cka"], vmin=0, vmax=1, cmap="viridis", aspect="auto")
        for s, row in enumerate(one["cka"]):
            for t, value in enumerate(row):
                # Dark letters on light cells.
                color = "black" if value > 0.6 else "white"
                axes.text(t, s, f"{value:.2f}", ha="center", va="center", fontsize=7, color=color)
        for s, t in one["pairs"]:
            frame = Rectangle((t - 0.5, s - 0.5), 1, 1, fill=False, edgecolor="red", lw=2)
            axes.add_patch(frame)
        axes.set_xticks(range(len(one["teachers"])), one["teachers"], rotation=45, ha="right")
        axes.set_yticks(range(len(one["students"])), one["students"])
        axes.tick_params(labelsize=7)
        axes.set_title(f"{name}: similarity (CKA), compared layers framed", fontsize=9)
        figure.colorbar(picture, ax=axes)
    figure.savefig(to, dpi=120)
