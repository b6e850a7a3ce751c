"""Weights of a student become 0 during training, more and more of them, and stay so."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, WeightAveraging
from torch import nn, Tensor

from .matrices import Matrices
from .pattern import Pattern


class Sparsity(L.Callback):
    r"""Sets the least important weights to 0 after each step.

    The share of weights that are 0 follows Zhu and Gupta (2017, https://arxiv.org/abs/1710.01878):

    $$s_t = s_0 + (s - s_0) \Big(1 - \Big(1 - \frac{t - t_0}{t_1 - t_0}\Big)^3\Big)$$

    from `start` to `stop`, where $s_0$ is the share that was 0 before. That stays 0, also where
    a smaller share is asked for. The parameters themselves hold the zeros, so that what is saved at
    any time is what was trained. A checkpoint keeps the masks. The best checkpoint and early
    stopping look only at validations with all zeros in place.

    Args:
        amount: $s$, from 0 to below 1; `None` where the pattern says it, as 2:4 does.
        pattern: `single` weights, `2:4` (of 4 weights in a row of inputs 2 are kept) or blocks of
            `outputs x inputs` such as `16x16`.
        start: the fraction of the run at which the first weights become 0.
        stop: the fraction at which all have.
        updates: how many times between them the weights are chosen.
        scope: `layer` makes `amount` of each layer 0, `model` of all layers together.
        layers: see `Matrices`.

    Raises:
        ValueError: for settings that cannot be; in `check` for a student that they do not fit, and
            in `check_beside` for callbacks.
    """

    # Whether the weights of some steps can be averaged, and are as sparse then.
    can_be_averaged: ClassVar[bool] = False

    def __init__(
        self,
        amount: float | None = 0.5,
        pattern: str = "single",
        start: float = 0.1,
        stop: float = 0.6,
        updates: int = 20,
        scope: str = "layer",
        layers: Sequence[str] | None = None,
    ):
        self.pattern = Pattern.parse(pattern)
        self.amount = _amount(amount, self.pattern, pattern)
        if not 0 <= start <= stop <= 1:
            raise ValueError(
                "`sparsity.start` and `sparsity.stop` are fractions of the run, the first not "
                f"after the second, got {start} and {stop}."
            )
        if isinstance(updates, bool) or not isinstance(updates, int) or updates < 1:
            raise ValueError(f"`sparsity.updates` must be at least 1, got {updates!r}.")
        if scope not in ("layer", "model"):
            raise ValueError(f"`sparsity.scope` must be layer or model, got {scope!r}.")
        self.start, self.stop, self.updates, self.scope = start, stop, updates, scope
        self.layers = None if layers is None else [str(pattern) for pattern in layers]
        self.matrices: Matrices | None = None
        self.masks: dict[str, Tensor] = {}
        # Of layers that had zeros before, what was not 0.
        self._earlier: dict[str, Tensor] = {}
        # The share that was 0 at first, how many updates there were, and the last step seen.
        self._before, self._done, self._step = 0.0, 0, 0
        self._total: float = 1

    @property
    def in_place(self) -> bool:
        """Whether all weights that shall become 0 have done so; the run keeps none from before."""
        return self._done >= self.updates

    @abstractmethod
    def scores(self, path: str, weight: Tensor) -> Tensor:
        """How much each weight matters; the smallest become 0.

        Args:
            path: of the layer.
            weight: its values, as they would be without a mask.
        """

    def check(self, student: nn.Module) -> Matrices:
        """The student's weights, if the pattern fits them all.

        Raises:
            ValueError: naming the layers that it does not fit.
        """
        found = Matrices(student, self.layers)
        unfit = [
            f"{path} {tuple(found.matrix(path, weight).shape)}"
            for path, weight in found.weights.items()
            if not self.pattern.fits(found.matrix(path, weight))
        ]
        if unfit:
            raise ValueError(
                f"`sparsity.pattern` does not divide the weights of {', '.join(unfit[:3])}"
                f"{', ...' if unfit[3:] else ''} (outputs, inputs). Choose another, or name the "
                "layers that it fits in `sparsity.layers`."
            )
        return found

    def check_beside(self, callbacks: Sequence[L.Callback]) -> None:
        """Refuse other callbacks of the training that this one does not go together with.

        Raises:
            ValueError: for an average of weights.
        """
        if not self.can_be_averaged and any(isinstance(c, WeightAveraging) for c in callbacks):
            raise ValueError(
                "`sparsity` and callbacks.weight_average do not go together: an average of weights "
                "that were 0 at different times is not 0. Leave one of them out."
            )

    # Lightning's hooks.

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the weights, before a checkpoint is read."""
        if stage != "fit":
            return
        self.check_beside(trainer.callbacks)  # type: ignore[attr-defined]
        self.matrices = self.check(pl_module.student)  # type: ignore[arg-type]
        self._before = self.matrices.zeros
        self.masks = {path: weight != 0 for path, weight in self.matrices.weights.items()}
        if self._before < 0.01:
            # Some zeros by chance are no mask.
            self._before = 0.0
            self.masks = {path: torch.ones_like(mask) for path, mask in self.masks.items()}
        self._earlier = {path: mask for path, mask in self.masks.items() if not mask.all()}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """See how long the run will be."""
        self._total = trainer.estimated_stepping_batches
        if not 0 < self._total < float("inf"):
            raise ValueError(
                "`sparsity` needs to know how long the run will be, and this data does not say it: "
                "set trainer.max_steps."
            )

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Weights that are 0 have no gradient."""
        assert self.matrices is not None
        for path, weight in self.matrices.weights.items():
            if weight.grad is not None:
                self.see(path, weight)
                weight.grad.mul_(self._mask(path))

    def see(self, path: str, weight: nn.Parameter) -> None:
        """Look at the gradient of a step, where the scores need it; by default they do not."""

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Set weights to 0, where a step was made."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        wanted = self._updates_at(self._step / self._total)
        ends = wanted == self.updates and self._done < wanted
        if wanted > self._done:
            self._done = wanted
            self.update(self._share(wanted / self.updates))
        assert self.matrices is not None
        for path, weight in self.matrices.weights.items():
            weight.mul_(self._mask(path))
        if ends:
            _forget_best(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A run does not end before all zeros are in place."""
        if not self.in_place and trainer.state.fn == "fit":
            for callback in trainer.early_stopping_callbacks:
                _begin_anew(callback)

    def update(self, share: float) -> None:
        """Choose anew which weights are kept, when so many shall be 0; earlier zeros stay."""
        assert self.matrices is not None
        found = self.matrices
        scores = [
            found.matrix(path, self._scores(path, weight)) for path, weight in found.weights.items()
        ]
        masks = self.pattern.masks(scores, self._groups(share), self.scope == "model")
        for path, mask in zip(found.weights, masks, strict=True):
            kept = found.shaped(path, mask).contiguous()
            self.masks[path] = kept & self._earlier[path] if path in self._earlier else kept

    def _scores(self, path: str, weight: Tensor) -> Tensor:
        """Those of the class, and the least of all for what was 0 before."""
        scores = self.scores(path, weight)
        if path not in self._earlier:
            return scores
        self._earlier[path] = earlier = self._earlier[path].to(scores.device)
        # Of a block the mean is taken, which one weight alone must not decide.
        least = scores.min() if self.pattern.is_block else scores.new_tensor(-torch.inf)
        return torch.where(earlier, scores, least)

    def _groups(self, share: float) -> float:
        """Of the pattern's groups, how many; 2:4 has all of them when half of the weights are 0."""
        return share if self.pattern.share is None else min(share / self.pattern.share, 1.0)

    def _updates_at(self, progress: float) -> int:
        if progress >= self.stop:
            return self.updates
        if progress < self.start:
            return 0
        # The first at the start; fractions of steps are not exact.
        done = (progress - self.start) / (self.stop - self.start)
        return min(int(done * self.updates + 1e-6) + 1, self.updates - 1)

    def _share(self, done: float) -> float:
        return self._before + (self.amount - self._before) * (1 - (1 - done) ** 3)

    def _mask(self, path: str) -> Tensor:
        assert self.matrices is not None
        weight = self.matrices.weights[path]
        if self.masks[path].device != weight.device:
            self.masks[path] = self.masks[path].to(weight.device)
        return self.masks[path]

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on."""
        masks, earlier = (
            {path: mask.cpu() for path, mask in one.items()} for one in (self.masks, self._earlier)
        )
        rest = {"before": self._before, "done": self._done, "step": self._step}
        return {"masks": masks, "earlier": earlier, **rest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up again."""
        self.masks, self._before = dict(state_dict["masks"]), state_dict["before"]
        self._done, self._step = state_dict["done"], state_dict["step"]
        # A checkpoint that is older than this entry has none.
        self._earlier = dict(state_dict.get("earlier", self._earlier))


def _amount(amount: float | None, pattern: Pattern, name: str) -> float:
    said = pattern.share
    if said is not None and amount in (None, said):
        return said
    if said is not None:
        raise ValueError(
            f"`sparsity.pattern={name}` makes {said:g} of the weights 0, and sparsity.amount is "
            f"{amount}: write sparsity.amount=null."
        )
    if isinstance(amount, bool) or not isinstance(amount, int | float) or not 0 < amount < 1:
        raise ValueError(
            "`sparsity.amount` is the share of weights that become 0, above 0 and below 1, got "
            f"{amount!r}."
        )
    return float(amount)


def zeros_in_place(trainer: L.Trainer) -> bool:
    """Whether weights of now may be kept, as those of every run without sparsity may.

    Args:
        trainer: of the training.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return all(one.in_place for one in callbacks if isinstance(one, Sparsity))


def _forget_best(trainer: L.Trainer) -> None:
    """The best weights are chosen among those of the validations from now on."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor is not None:
            for path in callback.best_k_models:
                if trainer.is_global_zero:
                    trainer.strategy.remove_checkpoint(path)
            callback.best_k_models, callback.best_model_score = {}, None
            callback.best_model_path = callback.kth_best_model_path = ""
    for stopping in trainer.early_stopping_callbacks:
        _begin_anew(stopping)


def _begin_anew(callback: EarlyStopping) -> None:
    worst = float("inf") if callback.mode == "min" else -float("inf")
    callback.best_score, callback.wait_count = torch.tensor(worst), 0
