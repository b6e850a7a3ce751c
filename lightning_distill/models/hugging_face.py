"""Loading models of Hugging Face's transformers, with errors that say what to do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from ..sealed import check_folder
from .files import check_model_files
from .memory import check_memory, check_sizes
from .remote_code import remote_code_is_trusted
from .row_head import with_row_head
from .sentence_folder import with_sentence_parts

TRUST = " Such code is run where trust_remote_code=true is typed; do so if you trust it."
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def check_complete(what: str, info: Mapping[str, Any]) -> None:
    """Refuse a model of which weights were not in its file, given what `load` says of it."""
    missing = sorted(info["missing_keys"])
    if missing:
        raise ValueError(
            f"The {what} lacks {', '.join(missing[:4])}"
            f"{', ...' if len(missing) > 4 else ''}: these would be random numbers. Train it for "
            "the task first (lightning-distill job=finetune student=pretrained student.path=...), "
            "or name another auto_class."
        )


def saves_itself(model: Any) -> bool:
    """Whether it can write a folder that transformers loads, as its models and tokenizers do."""
    return hasattr(model, "save_pretrained")


def check_dtype(dtype: str | None) -> torch.dtype:
    """The torch type of this name; float32 for `None`, whatever type the file has."""
    name = str(dtype or "float32").removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"`dtype` must be one of {', '.join(DTYPES)}, got {dtype!r}.")
    return DTYPES[name]


def load(path: str, auto_class: str | None, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A model and what transformers says of its loading; used for teachers and students.

    Raises:
        FileNotFoundError: if there is no such folder or model.
        ValueError: if it cannot be read, or its weights do not fit its configuration.
    """
    path = str(path)
    cls = find_auto_class(auto_class)
    check_path(path)
    given = {k: v for k, v in options.items() if v is not None}
    options = {"trust_remote_code": remote_code_is_trusted(), **given}
    if Path(path).is_dir():
        check_model_files(Path(path))
        check_folder(Path(path))
    try:
        with quiet():
            _check_size(path, cls, options)
            # Without this flag transformers raises, but says only in its log which sizes differ.
            model, info = cls.from_pretrained(
                path, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    except OSError as error:
        raise FileNotFoundError(
            f"No model could be loaded from {path!r}: {str(error).splitlines()[0]} "
            "Name a folder that holds config.json and weights, or a model on the Hugging Face hub."
        ) from error
    except (ValueError, SafetensorError, RecursionError) as error:
        first = str(error).splitlines()[0]
        trust = TRUST if "custom code" in first else ""
        raise ValueError(f"{path!r} cannot be loaded as {cls.__name__}: {first}{trust}") from error
    wrong = sorted(info["mismatched_keys"])
    if wrong:
        name, stored, expected = wrong[0]
        raise ValueError(
            f"The weights of {path} do not fit its config.json: {name} is {tuple(stored)}, "
            f"expected {tuple(expected)}{f', and {len(wrong) - 1} more' if wrong[1:] else ''}. "
            "Save model and configuration together, with save_pretrained."
        )
    if cls is transformers.AutoModel:
        model = with_sentence_parts(model, Path(path))
        # It lies behind the hidden states, and models of sentences are often kept without.
        info["missing_keys"] = {n for n in info["missing_keys"] if not n.startswith("pooler.")}
    return with_row_head(model, Path(path)), info


def _check_size(path: str, cls: Any, options: Mapping[str, Any]) -> None:
    said, _ = transformers.PreTrainedConfig.get_config_dict(path)
    check_sizes(said)
    if options["trust_remote_code"]:
        # Its own code says what its fields mean.
        return

    def make() -> Any:
        config = transformers.AutoConfig.from_pretrained(path, trust_remote_code=False)
        return cls.from_config(config, trust_remote_code=False)

    check_memory(said, make, options.get("dtype", torch.float32).itemsize)


def find_auto_class(name: str | None) -> Any:
    """A class of transformers by its name, which starts with AutoModel; `None` classifies."""
    name = name or "AutoModelForSequenceClassification"
    found = getattr(transformers, name, None) if name.startswith("AutoModel") else None
    if found is None:
        # It takes a third of a second to list them.
        known = [n for n in dir(transformers) if n.startswith("AutoModel")]
        near = get_close_matches(name, known, n=3)
        raise ValueError(
            f"`auto_class` must be a class of transformers such as "
            f"AutoModelForSequenceClassification, got {name!r}. Nearest: {', '.join(near) or '-'}."
        )
    return found


def check_path(path: str) -> None:
    """Refuse a path that cannot be a model's folder, and leave names on the hub alone.

    A file is left to who reads weights from it.
    """
    folder = Path(path).expanduser()
    if folder.is_file():
        return
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            inner = [p.parent.name for p in folder.glob("*/config.json")]
            near = f" Did you mean {folder / inner[0]}?" if inner else ""
            raise FileNotFoundError(f"The folder {path} holds no config.json.{near}")
        return
    # A name on the hub has at most one slash, and no folder of this machine before it.
    beside = folder.parent != Path(".") and folder.parent.is_dir()
    if path.startswith((".", "/", "~")) or path.count("/") > 1 or beside:
        siblings = [p.name for p in folder.parent.glob("*") if p.is_dir()]
        nearest = get_close_matches(folder.name, siblings, n=3, cutoff=0.4) or siblings[:3]
        listed = f" {folder.parent} has: {', '.join(nearest)}." if nearest else ""
        raise FileNotFoundError(f"There is no folder {path}.{listed}")


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and load reports of transformers: what matters is an error here."""
    logs = transformers.utils.logging
    level, with_bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    try:
        logs.set_verbosity_error()
        logs.disable_progress_bar()
        yield
    finally:
        logs.set_verbosity(level)
        if with_bars:
            logs.enable_progress_bar()
