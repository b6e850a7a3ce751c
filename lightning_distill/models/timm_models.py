"""Models of timm by name, as transformers wraps them: they take `pixel_values`, return `logits`."""

import importlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from .hugging_face import quiet

NAME = "TimmWrapperForImageClassification"
# What transformers calls the model within, and so begins the names of its weights.
WITHIN = "timm_model."
INSTALL = "pip install 'lightning-distill[vision]'"


def find_timm() -> Any:
    """The package timm.

    Raises:
        ValueError: saying what to install, if it or torchvision is missing or does not fit torch.
    """
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ValueError(
            f"Models of timm need the packages timm and torchvision ({error}): {INSTALL}."
        ) from error
    except RuntimeError as error:
        # Wheels of torchvision are built for one build of torch.
        raise ValueError(
            f"timm cannot be imported: {str(error).splitlines()[0]}. Its torchvision was built for "
            f"another torch than {torch.__version__}: install both from one place, as in pip "
            "install torch torchvision --index-url https://download.pytorch.org/whl/cpu."
        ) from error


def what_timm_says(name: str) -> dict[str, Any]:
    """What timm knows of a model and its weights, by its name: size, mean, classes of the head.

    Raises:
        ValueError: for a name that timm does not have, with those that are near.
    """
    timm = find_timm()
    architecture, _, tag = str(name).partition(".")
    if not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), n=3)
        raise ValueError(
            f"`name` must be a model of timm, got {name!r}. Nearest: {', '.join(near) or '-'}; "
            "timm.list_models() has all."
        )
    tags = timm.list_pretrained(f"{architecture}.*") if tag else []
    if tag and name not in tags:
        known = ", ".join(tags[:4]) or "none"
        raise ValueError(f"`name` is {name!r}, but the weights that timm has are: {known}.")
    said: dict[str, Any] = timm.get_pretrained_cfg(str(name)).to_dict()
    return said


def read_weights(path: str | Path, name: str) -> dict[str, Tensor]:
    """The weights in a file, named as in the model of timm, whoever wrote them.

    Args:
        path: a file of safetensors, or one of torch that holds nothing but weights; also the
            `model.safetensors` of a folder that `save_pretrained` wrote.
        name: of the model, for an error.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: for a folder, and for a file that cannot be read.
    """
    file = Path(path).expanduser()
    if file.is_dir():
        raise ValueError(
            f"{path} is a folder, and the weights of {name} are a file, as weights.safetensors. A "
            "folder that save_pretrained wrote is loaded as teacher=pretrained or "
            f"student=pretrained with path={path}."
        )
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {path} with the weights of {name}.")
    try:
        timm = find_timm()
        with _quiet():
            found = timm.models.load_state_dict(str(file))
    except Exception as error:
        # Each format has errors of its own.
        raise ValueError(
            f"The weights of {name} cannot be read from {path}: {str(error).splitlines()[0]}"
        ) from error
    return {key.removeprefix(WITHIN): value for key, value in found.items()}


def classes_of(weights: Mapping[str, Tensor], said: Mapping[str, Any]) -> int | None:
    """How many classes the head in these weights knows; `None` if it is not told by its name.

    Args:
        weights: named as in the model of timm.
        said: what timm knows of the model.
    """
    head = said.get("classifier")
    names = [head] if isinstance(head, str) else list(head or ())
    biases = [weights.get(f"{name}.bias") for name in names]
    known = {len(bias) for bias in biases if bias is not None}
    return known.pop() if len(known) == 1 else None


def build(
    name: str,
    num_labels: int,
    seed: int = 0,
    weights: Mapping[str, Tensor] | None = None,
    pretrained: bool = False,
    **model_args: Any,
) -> Any:
    """A model of timm within `TimmWrapperForImageClassification`, in float32 and train mode.

    Args:
        name: as in `timm.list_models()`, with or without the tag of its weights.
        num_labels: size of the head. With weights of another size it is fresh.
        seed: of weights that are drawn, by timm's own rules.
        weights: named as in the model of timm; all but the head's must be there.
        pretrained: fetch timm's weights from the Hugging Face hub.
        model_args: further arguments of `timm.create_model`, such as `img_size`, `drop_rate`.

    Raises:
        ValueError: for weights and arguments that do not fit the model.
        FileNotFoundError: if weights cannot be fetched.
    """
    timm, said = find_timm(), what_timm_says(name)
    given: dict[str, Any] = {}
    if weights is not None:
        known = classes_of(weights, said)
        given = {"state_dict": dict(weights), "num_classes": known or num_labels}
    try:
        with torch.random.fork_rng(devices=[]), _quiet():
            # Weights are drawn on the CPU; torch.manual_seed would reset every GPU's generator.
            torch.default_generator.manual_seed(seed)
            made = timm.create_model(
                name,
                pretrained=pretrained or weights is not None,
                num_classes=num_labels,
                pretrained_cfg_overlay=given or None,
                **model_args,
            )
    except (RuntimeError, TypeError, KeyError) as error:
        reason = " ".join(str(error).split())[:400]
        raise ValueError(f"{name} of timm cannot be made so: {reason}") from error
    except Exception as error:
        if not pretrained:
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise FileNotFoundError(
            f"The weights of {name} cannot be fetched from the Hugging Face hub: {reason} Name a "
            "file that has them (path=weights.safetensors)."
        ) from error
    config = transformers.AutoConfig.for_model(
        "timm_wrapper", architecture=str(name), model_args=model_args or None
    )
    config.num_labels = num_labels
    with torch.random.fork_rng(devices=[]), _quiet():
        wrapped = getattr(transformers, NAME)(config)
    # transformers draws weights by rules of its own, with which deep convolutions hardly learn.
    wrapped.timm_model.load_state_dict(made.state_dict())
    return wrapped.float().train()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what timm and transformers say of loading: what matters is an error here."""
    log = logging.getLogger("timm")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with quiet():
            yield
    finally:
        log.setLevel(level)


def image_size_argument(name: str, image_size: Any) -> dict[str, Any]:
    """What `build` is told of the size of pictures, by models that are made for one size."""
    said = what_timm_says(name)
    if image_size is None or not said.get("fixed_input_size"):
        return {}
    both = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
    return {} if list(said["input_size"][1:]) == both else {"img_size": image_size}


def check_task(task: Any, name: str) -> None:
    """Refuse a task that gives something else than a label to each picture."""
    if not task.serves(NAME):
        raise ValueError(f"Models of timm such as {name} classify pictures, not {task.name}.")
