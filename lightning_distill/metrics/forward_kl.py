"""How far the student is from the teacher, where the teacher has mass."""

from jaxtyping import Float
from torch import Tensor

from ._nats import check_same_ids, kl, Nats


class ForwardKL(Nats):
    r"""KL(teacher, student) at temperature 1, the mean over tokens, in nats.

    $$\frac1N\sum_i\sum_kp_{ik}\log\frac{p_{ik}}{q_{ik}}$$

    Large where the student finds unlikely what the teacher finds likely. "On information and
    sufficiency", Kullback and Leibler, 1951. Of heads that are padded to different sizes,
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
        self.add(kl(teacher, student).flatten())
