"""Pictures of a split: read as arrays, checked, and told apart by their bytes."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

ENDINGS = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"),
    *(".jfif", ".avif"),
)
# What the last bytes of a whole file hold; a file without is decoded to see what is wrong.
LAST_BYTES = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
TAIL = 64


@runtime_checkable
class Sources(Protocol):
    """The pictures of a split by number."""

    def __len__(self) -> int: ...

    def name(self, number: int) -> str:
        """What an error calls it."""

    def content(self, number: int) -> bytes:
        """All its bytes; those of equal pictures are equal."""

    def read(self, number: int) -> UInt8[Tensor, "3 h w"]:
        """The picture in red, green and blue."""

    def check(self, number: int, whole: bool) -> tuple[int, int]:
        """Height and width in pixels; `ValueError` with the reason for what cannot be read."""


class Files:
    """Pictures in files, or in the bytes that a data set holds.

    Args:
        found: paths, or the rows of a column of `datasets` with `path` and `bytes`.
        split: the data's, for names.
    """

    def __init__(self, found: Sequence[Any], split: str):
        self.found, self.split = found, split

    def __len__(self) -> int:
        return len(self.found)

    def name(self, number: int) -> str:
        """The path, where there is one, or the row of the split."""
        path, content = _parts(self.found[number])
        if content is None and path is not None:
            return path
        return f"row {number} of the {self.split} data" + (f" ({path})" if path else "")

    def content(self, number: int) -> bytes:
        """The bytes of the file."""
        path, content = _parts(self.found[number])
        if content is not None:
            return content
        if path is None:
            raise ValueError("there is no picture")
        try:
            return Path(path).expanduser().read_bytes()
        except OSError as error:
            reason = "there is no such file" if isinstance(error, FileNotFoundError) else error
            raise ValueError(str(reason)) from error

    def read(self, number: int) -> UInt8[Tensor, "3 h w"]:
        """The picture as it is to be looked at: turned as the camera says, in 8 bits."""
        try:
            return _decoded(self.content(number))
        except ValueError as error:
            raise ValueError(f"{self.name(number)} cannot be read: {error}.") from error

    def check(self, number: int, whole: bool) -> tuple[int, int]:
        """Height and width; `whole` decodes all of it, otherwise its header and end are read."""
        content = self.content(number)
        if not content:
            raise ValueError("the file is empty (0 bytes)")
        if whole:
            height, width = _decoded(content).shape[1:]
            return height, width
        with _opened(content) as picture:
            ending = LAST_BYTES.get(picture.format or "")
            width, height = picture.size
            turned = picture.getexif().get(0x0112, 1) > 4
        if ending is not None and ending not in content[-TAIL:]:
            height, width = _decoded(content).shape[1:]
            return height, width
        return (width, height) if turned else (height, width)


class Arrays:
    """Pictures that are held in memory.

    Args:
        arrays: uint8 `(pictures, 3, height, width)`.
        numbers: which of them these are.
        split: the data's, for names.
    """

    def __init__(self, arrays: UInt8[Tensor, "all 3 h w"], numbers: Sequence[int], split: str):
        self.arrays, self.numbers, self.split = arrays, list(numbers), split

    def __len__(self) -> int:
        return len(self.numbers)

    def name(self, number: int) -> str:
        """The row of the split."""
        return f"row {number} of the {self.split} data"

    def content(self, number: int) -> bytes:
        """The array's bytes."""
        return self.read(number).numpy().tobytes()

    def read(self, number: int) -> UInt8[Tensor, "3 h w"]:
        """The picture."""
        return self.arrays[self.numbers[number]]

    def check(self, number: int, whole: bool) -> tuple[int, int]:
        """Height and width."""
        height, width = self.arrays.shape[2:]
        return height, width


def _parts(found: Any) -> tuple[str | None, bytes | None]:
    if isinstance(found, dict):
        return found.get("path"), found.get("bytes")
    return found, None


def _opened(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(content))
    except Image.UnidentifiedImageError as error:
        raise ValueError("this is no picture in a format that Pillow knows") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(_reason(error)) from error


def _decoded(content: bytes) -> UInt8[Tensor, "3 h w"]:
    if not content:
        raise ValueError("the file is empty (0 bytes)")
    with _opened(content) as picture:
        try:
            picture.load()
            turned = ImageOps.exif_transpose(picture)
            if turned.mode.startswith("I"):
                # 16 bits of grey; converting cuts them off at 255.
                turned = Image.fromarray((np.asarray(turned) // 256).astype(np.uint8))
            array = np.array(turned.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(_reason(error)) from error
    if not array.size:
        raise ValueError(f"it has no pixels ({array.shape[1]} x {array.shape[0]})")
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
