"""Lightning's strategies under which a student can be distilled."""

from typing import Any

from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

SHARDED = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)


def check_strategy(strategy: Any) -> None:
    """Refuse strategies that cut weights into pieces.

    They cut what is inside the student; adapters and criteria with weights of their own would be
    left out, and drift apart from process to process, in silence.

    Raises:
        ValueError: naming those that can be used.
    """
    if isinstance(strategy, SHARDED):
        raise ValueError(
            f"{type(strategy).__name__} shards the student's weights, and the adapters and "
            "criteria that are trained with it would differ from process to process. Use "
            "trainer.strategy=ddp (Trainer(strategy='ddp')); for less memory "
            "gradient_checkpointing=true, accumulate_grad_batches, or student=lora."
        )
