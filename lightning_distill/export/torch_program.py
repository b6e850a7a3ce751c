"""A model as a program of torch.export: `torch.export.load(path).module()(**inputs)`."""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..models.configuration import configured
from .plain import axes, Plain
from .proof import Proof


def traced(proof: Proof, plain: Plain | None = None) -> Any:
    """The program of a model, for any number of rows and of tokens.

    Args:
        proof: with inputs to trace it with.
        plain: another model that takes the same inputs, as one in fewer bits.

    Raises:
        ValueError: if torch cannot trace the model so.
    """
    plain = proof.plain if plain is None else plain
    inputs = dict(proof.example())
    free = {
        name: dict.fromkeys(places, torch.export.Dim.DYNAMIC)
        for name, places in axes(inputs).items()
    }
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(plain, (), inputs, dynamic_shapes=free, strict=False)
    except Exception as error:
        raise ValueError(refusal(plain, "torch.export", error)) from error


def write_program(program: Any, plain: Plain, path: Path) -> None:
    """Write a program into one file.

    Args:
        program: of `plain`.
        plain: the model.
        path: of the file.

    Raises:
        ValueError: if torch cannot write what the program holds.
    """
    try:
        torch.export.save(program, path)
    except Exception as error:
        raise ValueError(refusal(plain, "torch.export", error)) from error


def in_eager_attention(proof: Proof) -> Plain | None:
    """The same model with attention written out; `None` if it is so already."""
    model: Any = proof.plain.model
    if configured(model, "_attn_implementation") != "sdpa":
        return None
    other = copy.deepcopy(model)
    other.set_attn_implementation("eager")
    return Plain(other, proof.plain.names, proof.plain.pooling).eval()


def refusal(plain: Plain, what: str, error: Exception) -> str:
    """What is said of a model that cannot be written in a format."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (
        f"{type(plain.model).__name__} cannot be written by {what} ({type(error).__name__}: "
        f"{(lines or ['no reason is given'])[0][:300]}). job.formats=[safetensors] writes any "
        "model of transformers; docs/export.md says which families the others write."
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the writers say of their own steps."""
    root = logging.getLogger()
    before = root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
