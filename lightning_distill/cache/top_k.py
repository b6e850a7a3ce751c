"""The largest logits, and how much the others weigh together."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor

from .full import FLOATS, rounded


@dataclass(frozen=True)
class TopK:
    r"""The `k` largest logits with their classes, and the tail as one number.

    What is left of the others is $r = \tau\log\sum_{c \notin top} e^{z_c/\tau}$; they are read as
    equal, $r - \tau\log(C - k)$ each. So at temperature $\tau$ the probabilities of the $k$
    classes, and of all others together, are exact; at another they are not. A distribution
    that is cut off without its tail would be wrong for the $k$ classes too.

    Attributes:
        k: how many.
        temperature: at which the tail is exact.
        dtype: of the logits.
    """

    k: int
    temperature: float = 1.0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise ValueError(f"`k` must be a whole number of at least 1, got {self.k!r}.")
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(f"`temperature` must be positive, got {self.temperature}.")
        if self.dtype not in FLOATS or self.dtype == "float8":
            raise ValueError(
                f"`dtype` of top-k logits must be float32, bfloat16 or float16, got {self.dtype!r}."
            )

    def encode(
        self, values: Float[Tensor, "count ..."], ids: Int64[Tensor, "count 2"]
    ) -> dict[str, Tensor]:
        """What is written for these logits."""
        classes = values.shape[-1] if values.dim() > 1 else 1
        if self.k >= classes:
            raise ValueError(
                f"top_k={self.k} leaves no tail of {classes} classes; write them all, with "
                "logits=full."
            )
        top, places = values.float().topk(self.k, dim=-1)
        kept = rounded(top, self.dtype)
        others = values.float().scatter(-1, places, -math.inf)
        rest = self.temperature * (others / self.temperature).logsumexp(dim=-1, keepdim=True)
        return {"values": kept, "classes": places.int(), "rest": rest}

    def decode(self, fields: Mapping[str, Tensor], shape: tuple[int, ...]) -> Tensor:
        """Logits of all classes, in float32."""
        top, places = fields["values"].float(), fields["classes"].long()
        others = fields["rest"] - self.temperature * math.log(shape[-1] - self.k)
        logits = others.expand(*top.shape[:-1], shape[-1]).clone()
        return logits.scatter_(-1, places, top)

    def settings(self) -> dict[str, Any]:
        """As a manifest keeps it."""
        return {
            "kind": "top_k",
            "k": self.k,
            "temperature": self.temperature,
            "dtype": self.dtype,
        }
