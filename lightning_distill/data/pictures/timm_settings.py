"""How a model of timm wants its pictures, in the words of our image processor."""

import math
from collections.abc import Mapping
from typing import Any

RESAMPLE = {"nearest": 0, "bilinear": 2, "bicubic": 3}
# What timm does where a model says nothing.
CROP, MEAN, STD = 0.875, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def timm_settings(name: str, said: Mapping[str, Any], size: Any = None) -> dict[str, Any]:
    """Settings of an [`ImageProcessor`][] that does what timm does in evaluation.

    Where one pixel more is cut off on one side than on the other, it is the one that transformers
    cuts, and torchvision the other.

    Args:
        name: of the model, for an error.
        said: what timm knows of it, its `pretrained_cfg`.
        size: pixels of a side, or height and width, of a model that was made for another size.

    Raises:
        ValueError: for a model that wants something else than resizing, cutting and normalising.
    """
    height, width = said.get("input_size", (3, 224, 224))[1:]
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
    crop, mode = said.get("crop_pct") or CROP, said.get("crop_mode") or "center"
    resample = RESAMPLE.get(said.get("interpolation") or "bicubic")
    stretched = mode == "squash" and crop == 1
    if resample is None or (not stretched and (mode != "center" or height != width)):
        raise ValueError(
            f"{name} of timm wants its pictures resized by {said.get('interpolation')}, to "
            f"{height} x {width} pixels and cut in mode {mode!r}, which is not known here. Name a "
            "processor (data.image_processor or data.teacher_image_processor), as in "
            "{height: 224, width: 224}."
        )
    return {
        "height": int(height),
        "width": int(width),
        "mean": [float(value) for value in said.get("mean") or MEAN],
        "std": [float(value) for value in said.get("std") or STD],
        "shortest_edge": None if stretched else math.floor(height / crop),
        "resample": resample,
    }
