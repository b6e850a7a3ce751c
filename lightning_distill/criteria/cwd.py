"""Channel-wise distillation: where each channel looks, as a distribution over the places."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ._check import check_positive, masked_mean, Number, positive
from ._log_probabilities import kl, log_probabilities
from ._maps import check_maps
from .criterion import Criterion


def cwd(
    student: Float[Tensor, "batch channels *places"],
    teacher: Float[Tensor, "batch channels *places"],
    temperature: float = 4.0,
) -> Float[Tensor, " batch"]:
    r"""KL between the softmax over the places of each channel, mean over the channels, in nats.

    $$\frac{\tau^2}{C} \sum_c
    \mathrm{KL}\big( \sigma(t_c / \tau) \,\Vert\, \sigma(s_c / \tau) \big)$$

    For dense prediction, on features or on maps of logits.

    References:
        Shu et al., *Channel-wise Knowledge Distillation for Dense Prediction*, 2021,
        https://arxiv.org/abs/2011.13256, eq. 3 and 4.
    """
    log_q, log_p = log_probabilities(student.flatten(2), teacher.flatten(2), temperature)
    return kl(log_p, log_q).mean(dim=1) * temperature**2


class CWD(Criterion):
    """Mean of [`cwd`][] over the samples that count.

    Args:
        temperature: flattens both distributions before they are compared; a positive number
            or a schedule.
    """

    def __init__(self, temperature: Number = 4.0):
        super().__init__()
        check_positive("temperature", temperature)
        self.temperature = temperature

    def forward(
        self,
        student: Float[Tensor, "batch ..."],
        teacher: Float[Tensor, "batch ..."],
        mask: Bool[Tensor, "..."] | Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, ""]:
        """The mean over the samples for which `mask` is true, in nats."""
        if student.dim() < 3:
            check_maps("CWD", student, teacher)
        return masked_mean(cwd(student, teacher, positive("temperature", self.temperature)), mask)

    def extra_repr(self) -> str:  # noqa: D102
        return f"temperature={self.temperature}"
