"""LoRA: a student that stays as it is, but for adapters of low rank."""

from collections.abc import Sequence

import torch
from torch import nn

from ..extras import check_extra
from ..tasks import task_of_model


def lora(
    of: nn.Module,
    rank: int = 8,
    alpha: int = 16,
    dropout: float = 0.0,
    target_modules: str | Sequence[str] = "all-linear",
    modules_to_save: Sequence[str] | None = None,
    seed: int = 0,
) -> nn.Module:
    r"""The model with adapters in its linear layers, which alone are trained, by peft.

    $$W h + b + \frac{\alpha}{r} B A h$$

    with $A$ random and $B$ zero, so that it answers at first as before. What the model read by
    path before it does now: `student.layer_input:lm_head`.

    Args:
        of: the model; changed in place. One that shares weights with the teacher is refused later.
        rank: $r$, of $A$ and $B$.
        alpha: $\alpha$.
        dropout: of what goes into the adapters.
        target_modules: the layers that get adapters, by the ends of their paths, or a regular
            expression; `all-linear` is all but the head.
        modules_to_save: parts that are trained whole; the head of a classifier always is.
        seed: of the weights of $A$.

    Returns:
        A `peft.PeftModel` in train mode.

    Raises:
        ValueError: if peft is not installed, or no layer is as named.

    References:
        Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, 2022,
        https://arxiv.org/abs/2106.09685, section 4.1.
    """
    check_peft()
    if rank < 1:
        raise ValueError(f"`rank` must be at least 1, got {rank}.")
    if not 0 <= dropout < 1:
        raise ValueError(f"`dropout` must lie from 0 to below 1, got {dropout}.")
    import peft

    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=target_modules if isinstance(target_modules, str) else list(target_modules),
        modules_to_save=None if modules_to_save is None else list(modules_to_save),
        task_type=task_of_model(of).peft_task,
    )
    with torch.random.fork_rng(devices=[]):
        # Weights are drawn on the CPU; torch.manual_seed would also reset every GPU's generator.
        torch.default_generator.manual_seed(seed)
        try:
            model = peft.get_peft_model(of, config)
        except ValueError as error:
            linear = {
                name.rpartition(".")[2]: None
                for name, part in of.named_modules()
                if isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D"
            }
            raise ValueError(
                f"No adapters can be put into {type(of).__name__} at target_modules="
                f"{target_modules!r}: {str(error).splitlines()[0]} Its linear layers end in: "
                f"{', '.join(list(linear)[:8])}{', ...' if len(linear) > 8 else ''}."
            ) from error
    return model.train()  # type: ignore[no-any-return]


def check_peft() -> None:
    """Refuse at once what would fail when a teacher is trained already."""
    check_extra("student=lora", "lora", "peft", otherwise="choose another student")
