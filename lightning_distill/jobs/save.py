"""Write a student so that it loads where this package is not installed."""

from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from safetensors.torch import save_model


def check_hugging_face(folder: Path) -> None:
    """Refuse a student's folder from which only the code that made the student can load it."""
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} holds the weights of a model that is none of transformers', which only its "
            f"own class can load: call its load_state_dict with what "
            "safetensors.torch.load_file gives of model.safetensors there."
        )


@rank_zero_only
def save_student(model: Any, data: Any, folder: Path, with_weights: bool = True) -> None:
    """Write a Hugging Face folder (weights, configuration, tokenizer), or plain safetensors.

    Args:
        model: a Hugging Face model, or any other module.
        data: whose tokenizer goes with it.
        folder: where to; made if missing.
        with_weights: false writes all but the weights, before training, so that a checkpoint
            of a run that was cut off can still be exported.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(model, "save_pretrained"):
        if with_weights:
            model.save_pretrained(folder)
        else:
            config = model.config
            config.architectures = [type(model).__name__]
            config.save_pretrained(folder)
    elif with_weights:
        save_model(model, str(folder / "model.safetensors"))
    tokenizer = getattr(data, "tokenizer", None)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
