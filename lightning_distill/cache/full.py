"""Every value, as it is or in fewer bits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

FLOATS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float8": torch.float8_e4m3fn,
}


def rounded(values: Float[Tensor, "..."], dtype: str) -> Float[Tensor, "..."]:
    """The values in this type, none of which may become infinite."""
    found = values.to(FLOATS[dtype])
    if (found.isinf() & ~values.isinf()).any():
        raise ValueError(
            f"A value of {values.abs().max():.4g} is too large for {dtype}; take bfloat16 or "
            "float32."
        )
    return found


@dataclass(frozen=True)
class Full:
    """All values of an answer.

    Attributes:
        dtype: `float32` keeps what the teacher said; `bfloat16`, `float16` and `float8` round it to
            8, 11 and 4 significant bits. `float8` (e4m3) keeps a scale for each vector beside it.
    """

    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in FLOATS:
            raise ValueError(f"`dtype` must be one of {', '.join(FLOATS)}, got {self.dtype!r}.")

    def encode(
        self, values: Float[Tensor, "count ..."], ids: Int64[Tensor, "count 2"]
    ) -> dict[str, Tensor]:
        """What is written for these values."""
        if self.dtype != "float8":
            return {"values": rounded(values, self.dtype)}
        values = values.float()
        largest = torch.finfo(torch.float8_e4m3fn).max
        # A row of one number is a vector of one.
        scale = values.abs() if values.dim() == 1 else values.abs().amax(dim=-1, keepdim=True)
        scale = scale / largest
        scale = scale.where(scale > 0, 1.0)
        if not scale.isfinite().all():
            raise ValueError("float8 holds no infinite value; take bfloat16 or float32.")
        return {"values": (values / scale).to(torch.float8_e4m3fn), "scale": scale}

    def decode(self, fields: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        """The values, in float32."""
        values = fields["values"].float()
        return values * fields["scale"] if "scale" in fields else values

    def settings(self) -> dict[str, Any]:
        """As a manifest keeps it."""
        return {"kind": "full", "dtype": self.dtype}
