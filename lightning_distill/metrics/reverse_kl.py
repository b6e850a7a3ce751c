"""How far the student is from the teacher, where the student has mass."""

from jaxtyping import Float
from torch import Tensor

from ._nats import check_same_ids, kl, Nats


class ReverseKL(Nats):
    r"""KL(student, teacher) at temperature 1, the mean over tokens, in nats.

    $$\frac1N\sum_i\sum_kq_{ik}\log\frac{q_{ik}}{p_{ik}}$$

    Large where the student finds likely what the teacher finds unlikely: what it would say and the
    teacher would not. "MiniLLM", Gu et al., 2024. Of heads that are padded to different sizes,
    `DistillationModule` gives it the ids of both, as if the others were not there.
    """

    needs_teacher = True

    def update(
        self,
        student: Float[Tensor, "*tokens vocabulary"],
        teacher: Float[Tensor, "*tokens vocabulary"],
    ) -> None:
        """Add the tokens of one batch, all of which count.

        Raises:
            ValueError: if the shapes of the logits differ.
        """
        check_same_ids(student, teacher)
        self.add(kl(student, teacher).flatten())
