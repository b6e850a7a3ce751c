"""How a model wants its pictures: size, crop, mean and standard deviation."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from ...models.remote_code import remote_code_is_trusted

FILE = "preprocessor_config.json"
# By the numbers that Pillow, and so the files of transformers, give them.
MODES = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class ImageProcessor:
    """Resizes, crops and normalises one picture, in plain torch, so that it is the same anywhere.

    Args:
        height: of what the model is given, in pixels.
        width: the same.
        mean: of red, green and blue, after `scale`.
        std: the same.
        shortest_edge: the shorter side is made so long, and the middle cut out; `None` stretches
            the picture to height and width.
        resample: 2 is bilinear, 3 bicubic, 0 nearest, as Pillow counts them.
        scale: what pixels from 0 to 255 are multiplied with first.
    """

    height: int
    width: int
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    shortest_edge: int | None = None
    resample: int = 2
    scale: float = 1 / 255

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise ValueError(f"A picture's size must be at least 1, got {self.height}.")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) != 3:
                raise ValueError(
                    f"`{name}` needs a number for red, green and blue each, got {list(values)}."
                )
        if min(self.std) <= 0:
            raise ValueError(f"`std` must be above 0, got {list(self.std)}.")
        if self.resample not in MODES:
            raise ValueError(
                f"Pictures are resized with resample 0, 2 or 3, got {self.resample} in the "
                f"processor. Change it in its {FILE}."
            )

    def __call__(self, picture: UInt8[Tensor, "3 h w"]) -> Float[Tensor, "3 height width"]:
        """What the model is given of a picture, in float32."""
        values = self._resized(picture.float()) * self.scale
        mean, std = (torch.tensor(v)[:, None, None] for v in (self.mean, self.std))
        return (values - mean) / std

    def _resized(self, picture: Tensor) -> Tensor:
        height, width = self.height, self.width
        if self.shortest_edge is not None:
            sides = picture.shape[1:]
            height, width = (int(self.shortest_edge * side / min(sides)) for side in sides)
        if picture.shape[1:] != (height, width):
            mode = MODES[self.resample]
            smooth: dict[str, Any] = {} if self.resample == 0 else {"antialias": True}
            picture = F.interpolate(picture[None], (height, width), mode=mode, **smooth)[0]
            # Pillow's pixels are whole numbers.
            picture = picture.round().clamp(0, 255)
        if self.shortest_edge is None:
            return picture
        below, beside = max(self.height - height, 0), max(self.width - width, 0)
        # A picture that is smaller than what is cut out has black borders.
        picture = F.pad(
            picture, (beside // 2, beside - beside // 2, below // 2, below - below // 2)
        )
        top = (picture.shape[1] - self.height) // 2
        left = (picture.shape[2] - self.width) // 2
        return picture[:, top : top + self.height, left : left + self.width]

    def with_settings(
        self, size: Any = None, mean: Any = None, std: Any = None
    ) -> "ImageProcessor":
        """The same but for what is given; a size stretches the picture."""
        changes: dict[str, Any] = {}
        if size is not None:
            height, width = (size, size) if isinstance(size, int) else size
            changes |= {"height": height, "width": width, "shortest_edge": None}
        changes |= {n: tuple(map(float, v)) for n, v in (("mean", mean), ("std", std)) if v}
        return replace(self, **changes)

    def settings(self) -> dict[str, Any]:
        """All of it as plain values."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the file from which `AutoImageProcessor` makes a processor that does the same."""
        cut = self.shortest_edge is not None
        plain = {"height": self.height, "width": self.width}
        said = {
            # Of those that transformers has, this one does nothing else, whatever the model is.
            "image_processor_type": "CLIPImageProcessor" if cut else "ViTImageProcessor",
            "do_resize": True,
            "size": {"shortest_edge": self.shortest_edge} if cut else plain,
            "resample": self.resample,
            "do_rescale": True,
            "rescale_factor": self.scale,
            "do_normalize": True,
            "image_mean": list(self.mean),
            "image_std": list(self.std),
            "do_convert_rgb": True,
            "do_center_crop": cut,
            **({"crop_size": plain} if cut else {}),
        }
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / FILE).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def load_image_processor(given: Any) -> ImageProcessor:
    """One of ours, made of what another one says.

    Args:
        given: ours, or its settings; one of transformers, a folder that `save_pretrained` wrote,
            or a name on the Hugging Face hub.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: for one that does something else than resizing, cutting and normalising.
    """
    if isinstance(given, ImageProcessor):
        return given
    if isinstance(given, Mapping):
        return _of_settings(given)
    where = "the processor"
    if isinstance(given, str):
        where = str(given)
        from transformers import AutoImageProcessor

        try:
            given = AutoImageProcessor.from_pretrained(
                str(Path(given).expanduser()), trust_remote_code=remote_code_is_trusted()
            )
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"No image processor can be loaded from {where}: {str(error).splitlines()[0]} Name "
                "another one (data.image_processor=DIR), or set data.size, data.mean and data.std."
            ) from error
    says = {name: getattr(given, name, None) for name in ("size", "crop_size", "crop_pct")}
    height, width, edge = _sizes(says, bool(getattr(given, "do_center_crop", False)), where)
    normal = getattr(given, "do_normalize", True)
    return ImageProcessor(
        height,
        width,
        tuple(map(float, given.image_mean if normal else (0, 0, 0))),
        tuple(map(float, given.image_std if normal else (1, 1, 1))),
        edge,
        int(getattr(given, "resample", None) or 0),
        float(given.rescale_factor) if getattr(given, "do_rescale", True) else 1.0,
    )


def _of_settings(given: Mapping[Any, Any]) -> ImageProcessor:
    known = [field.name for field in fields(ImageProcessor)]
    unknown = [str(name) for name in given if name not in known]
    if unknown or not {"height", "width"} <= given.keys():
        raise ValueError(
            f"The settings of an image processor are {', '.join(known)}, of which height and width "
            f"are needed; got {', '.join(map(str, given)) or 'none'}."
        )
    plain: dict[str, Any] = {
        name: tuple(v) if name in ("mean", "std") else v for name, v in given.items()
    }
    return ImageProcessor(**plain)


def _sizes(says: dict[str, Any], cut: bool, where: str) -> tuple[int, int, int | None]:
    """Height, width, and the length of the shorter side before the middle is cut out."""

    def both(value: Any) -> tuple[int, int] | None:
        if isinstance(value, int):
            return value, value
        found = dict(value or {})
        return (found["height"], found["width"]) if {"height", "width"} <= found.keys() else None

    size = says["size"]
    edge = None if isinstance(size, int) else dict(size or {}).get("shortest_edge")
    crop = both(says["crop_size"]) if cut else None
    if edge is not None and says["crop_pct"] is not None:
        # ConvNeXT: small sizes are cut out of a larger picture, others stretched.
        return (edge, edge, int(edge / says["crop_pct"])) if edge < 384 else (edge, edge, None)
    if edge is not None and crop is not None:
        return *crop, edge
    if edge is None and crop is None and (plain := both(size)) is not None:
        return *plain, None
    raise ValueError(
        f"The image processor of {where} has size {size} and crop size {says['crop_size']}; known "
        "are a height and width, or a shortest edge with a middle that is cut out. Set data.size."
    )
