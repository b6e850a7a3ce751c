"""A tokenizer comes with its model: where it is found, and ids of another one are refused."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn
from transformers import PreTrainedModel

from ..data.data import DataFacts
from ..data.load_tokenizer import load_tokenizer
from ..models.freshness import is_fresh
from ..tasks import task_of
from ..teachers import Teacher

FILES = ("tokenizer.json", "tokenizer_config.json")


def folder_of_arguments(cfg: DictConfig, role: str) -> str | None:
    """The first folder with a tokenizer that the class or function of a user is given.

    Args:
        cfg: the run's configuration.
        role: `student` or `teacher`.
    """
    if not _is_users(cfg, role):
        return None
    arguments: Any = OmegaConf.to_container(cfg[role], resolve=True)
    for name, value in arguments.items():
        for entry in value if isinstance(value, list) else [value]:
            if name != "_target_" and isinstance(entry, str) and _has_tokenizer(entry):
                return entry
    return None


def own_tokenizers(cfg: DictConfig) -> dict[str, str | None]:
    """Where the tokenizers of `student` and `teacher` lie that these were trained with.

    Args:
        cfg: the run's configuration.
    """
    found = {}
    for role in ("student", "teacher"):
        path = OmegaConf.select(cfg, f"{role}.path") or folder_of_arguments(cfg, role)
        found[role] = path if path is not None and brings_tokenizer(str(path)) else None
    return found


def brings_tokenizer(path: str) -> bool:
    """Whether a model brings a tokenizer: a name on the hub is taken to, a folder is looked at."""
    return not Path(path).expanduser().is_dir() or _has_tokenizer(path)


def check_tokenizer(cfg: DictConfig, data: Any, model: nn.Module, role: str) -> None:
    """Refuse a trained model that would be given ids of a foreign tokenizer.

    Fresh weights know no ids yet, and models without embeddings read none. Of language models it
    is told elsewhere which ids two of them share.

    Args:
        cfg: the run's configuration.
        data: the data module.
        model: the model, or a teacher around it.
        role: `student` or `teacher`.

    Raises:
        ValueError: naming the tokenizer that the model came with, or asking for it.
    """
    if role == "teacher" and Teacher.of(model).model is None:
        # Only its answers are there.
        return
    facts = DataFacts(data)
    given = (facts.teacher_tokenizer if role == "teacher" else None) or facts.tokenizer
    of_user = _is_users(cfg, role)
    elsewhere = not of_user and (role == "teacher" or task_of(data).predicts_ids)
    if given is None or elsewhere or not _reads_ids(model):
        return
    option = "teacher_tokenizer" if _is_beside_another(cfg, role) else "tokenizer"
    for path in _where_from(model):
        own = _tokenizer_in(path)
        if own is None:
            continue
        if own.get_vocab() != given.get_vocab():
            raise ValueError(
                f"The {role} was loaded from {path}, and the data has the ids of another tokenizer "
                f"than that folder's, which mean other words: set data.{option}={path}."
            )
        return
    if not of_user:
        return
    on_the_spot = cfg.data.get("tokenizer", given) is None
    if on_the_spot and given is facts.tokenizer and not is_fresh(model):
        raise ValueError(
            f"The {role} ({cfg[role]['_target_']}) has trained weights and comes with no tokenizer "
            "that can be found. The data has made one of its own, whose ids mean other words: name "
            f"the folder of the {role}'s tokenizer, as in data.{option}=DIR."
        )


def _is_users(cfg: DictConfig, role: str) -> bool:
    node = cfg.get(role)
    target = node.get("_target_") if OmegaConf.is_dict(node) else None
    return target is not None and not str(target).startswith("lightning_distill.")


def _is_beside_another(cfg: DictConfig, role: str) -> bool:
    """Whether the teacher's tokenizer is another one than that which the student brings."""
    return role == "teacher" and OmegaConf.select(cfg, "student.path") is not None


def _reads_ids(model: nn.Module) -> bool:
    return any(isinstance(part, nn.Embedding | nn.EmbeddingBag) for part in model.modules())


def _where_from(model: nn.Module) -> list[str]:
    """From where the models of transformers in it were loaded."""
    parts = (part for part in model.modules() if isinstance(part, PreTrainedModel))
    return [str(part.name_or_path) for part in parts if part.name_or_path]


def _tokenizer_in(path: str) -> Any:
    if Path(path).is_dir() and not _has_tokenizer(path):
        return None
    try:
        return load_tokenizer(path)
    except (FileNotFoundError, ValueError):
        return None


def _has_tokenizer(path: str) -> bool:
    folder = Path(path).expanduser()
    return any((folder / name).is_file() for name in FILES)
