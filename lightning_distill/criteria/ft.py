"""Factor transfer: the student follows a trained paraphrase of the teacher's features."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import nn, Tensor

from ._check import check_choice, check_positive, check_same_shape, in_full_precision, masked_mean
from ._maps import check_maps, same_places
from ._parts import apply, fitted, prepared
from ._samples import counted_samples, Mask
from .criterion import Criterion

VARIANTS = ("paper", "code")


def ft(
    student: Float[Tensor, "batch ..."],
    teacher: Float[Tensor, "batch ..."],
    p: float = 1.0,
    variant: str = "paper",
) -> Float[Tensor, " batch"]:
    r"""Distance of the factors, each scaled to length 1, per sample.

    $$\Big\lVert \frac{F_s}{\lVert F_s \rVert_2} - \frac{F_t}{\lVert F_t \rVert_2} \Big\rVert_p$$

    The authors' program, torchdistill and mmrazor take the mean of the absolute differences in
    place of the norm (weighed by 500 there); `variant="code"` is that, to the power `p`.
    RepDistiller first takes the mean square over the channels, which makes it
    [`attention_transfer`][] between factors.

    References:
        Kim, Park and Kwak, *Paraphrasing Complex Network: Network Compression via Factor Transfer*,
        2018, https://arxiv.org/abs/1802.04977, section 3.
    """
    check_choice("variant", variant, VARIANTS)
    check_positive("p", p)
    check_same_shape(student, teacher)
    factors = [F.normalize(x.flatten(1), dim=1) for x in in_full_precision(student, teacher)]
    difference = factors[0] - factors[1]
    if variant == "code":
        return difference.abs().pow(p).mean(dim=1)
    return torch.linalg.vector_norm(difference, ord=p, dim=1)


def _layers(kind: type[nn.Module], *channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [kind(before, after, kernel_size=3, padding=1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*layers)


class FT(Criterion):
    r"""Mean of [`ft`][] over the samples that count, with trained factors.

    The paraphraser, three 3x3 convolutions, makes the teacher's features $x$ into a factor of
    $k C_t$ channels; three transposed ones make $\hat x$ of it. The translator, of the same form,
    makes the student's factor. The paper trains the paraphraser first and then keeps it fixed.
    Here all are trained in one run: the value is the mean of

    $$L_\mathrm{factor} + \lambda \, \frac{1}{|x|} \lVert x - \hat x \rVert^2$$

    where no gradient of the first part reaches the paraphraser, and none of the second the student
    or the translator; the student's target moves while the paraphraser still learns. For the
    paper's two stages, train it on the second part alone, load it into `paraphraser` after
    `prepare`, and set `reconstruction` to 0, which freezes it. The authors' program takes the
    absolute difference in place of the square. The larger map is averaged down to the smaller.

    Args:
        rate: $k$, channels of a factor per channel of the teacher.
        p: of the norm; the paper uses 1 or 2.
        reconstruction: $\lambda$; 0 keeps the paraphraser as it is.
        variant: `paper`, or `code` for the mean over the numbers of a factor.
    """

    paraphraser: nn.Module | None
    restorer: nn.Module | None
    translator: nn.Module | None

    def __init__(
        self,
        rate: float = 0.5,
        p: float = 1.0,
        reconstruction: float = 1.0,
        variant: str = "paper",
    ):
        super().__init__()
        check_positive("rate", rate)
        check_positive("p", p)
        check_choice("variant", variant, VARIANTS)
        if not reconstruction >= 0:
            raise ValueError(f"`reconstruction` must not be negative, got {reconstruction}.")
        self.rate, self.p, self.reconstruction, self.variant = rate, p, reconstruction, variant
        for part in ("paraphraser", "restorer", "translator"):
            self.register_module(part, None)

    def prepare(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Mask = None,
    ) -> None:
        """Build the parts for the channels of these features."""
        if self.translator is not None:
            return
        check_maps("FT", student, teacher)
        s, t = student.shape[1], teacher.shape[1]
        k = max(round(self.rate * t), 1)
        self.paraphraser = fitted(self, _layers(nn.Conv2d, t, t, k, k), student)
        self.restorer = fitted(self, _layers(nn.ConvTranspose2d, k, k, t, t), student)
        self.translator = fitted(self, _layers(nn.Conv2d, s, s, k, k), student)
        if self.reconstruction == 0:
            self.paraphraser.requires_grad_(False)
            self.restorer.requires_grad_(False)

    def forward(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Mask = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples for which `mask` is true."""
        check_maps("FT", student, teacher)
        translator = prepared(self, self.translator)
        assert self.paraphraser is not None and self.restorer is not None
        student, teacher = same_places(*counted_samples(mask, student, teacher))
        teacher = teacher.detach()
        factor = apply(self.paraphraser, teacher)
        values = ft(apply(translator, student), factor.detach(), self.p, self.variant)
        if self.reconstruction:
            error = (apply(self.restorer, factor) - teacher).square().flatten(1).mean(dim=1)
            values = values + self.reconstruction * error
        return masked_mean(values)

    def extra_repr(self) -> str:  # noqa: D102
        return (
            f"rate={self.rate}, p={self.p}, reconstruction={self.reconstruction}, "
            f"variant={self.variant!r}"
        )
