"""What the command says of an error: one line on the terminal, and Python's traceback in a file."""

import errno
import re
import sys
import traceback
from contextlib import suppress
from difflib import get_close_matches
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from .hints import hint


def report(error: Exception, directory: Path, name: str = "error.txt") -> None:
    """Say what was wrong, and leave the traceback in the run's directory.

    Args:
        error: that ended the run.
        directory: of the run; made if missing.
        name: of the file.
    """
    # First of all: what follows may fail, as on a full disk.
    show(f"lightning-distill: error: {message_of(error)}")
    path = directory / name
    left = leave("".join(traceback.format_exception(error)), path)
    where = f"Python's traceback is in {path}; HYDRA_FULL_ERROR=1 prints it."
    show(f"({where if left else NOWHERE})")


def leave(text: str, path: Path) -> bool:
    """Add a traceback to a file; returns whether that can be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Of several processes the first knows the cause, and the others what followed from it.
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        return False
    return True


def show(text: str) -> None:
    """Write to the terminal, whatever letters it knows, and whether or not anybody reads it."""
    with suppress(OSError, ValueError):
        encoding = sys.stderr.encoding or "ascii"
        print(text.encode(encoding, "backslashreplace").decode(encoding), file=sys.stderr)


def message_of(error: BaseException) -> str:
    """What the innermost cause says, and where in the configuration it arose."""
    from hydra.errors import InstantiationException

    where = ""
    while isinstance(error, InstantiationException):
        text = str(error)
        if "full_key:" in text:
            where = text.rpartition("full_key:")[2].strip()
        if error.__cause__ is None:
            break
        error = error.__cause__
    said = isinstance(error, ValueError | FileNotFoundError)
    text = str(error).strip() or type(error).__name__
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        said, text = True, _unwritable(error)
    if TORCHVISION in text and not said:
        said, text = True, _of_torchvision(text)
    name = "" if said else f"{type(error).__name__}: "
    return f"{name}{text}" + (f" (in {where})" if where and where not in text else "")


# How it fails to load beside another torch, whoever imports it: transformers does for pictures.
TORCHVISION = "operator torchvision::"


def _of_torchvision(text: str) -> str:
    """What to do about a torchvision that does not fit."""
    return (
        f"torchvision was built for another torch than {version('torch')} ({text}). Install both "
        "from one place, as in pip install torch torchvision --index-url "
        "https://download.pytorch.org/whl/cpu, or remove it: only models of timm need it."
    )


# A full disk or quota, a read-only file system, and a folder of another user.
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def _unwritable(error: OSError) -> str:
    """What could not be written, and what to do."""
    # Where we write ourselves this is said already.
    words = str(error.strerror or error)
    if "could not be written" not in words:
        words = f"{error.filename or 'A file'} could not be written ({words})"
    return (
        f"{words.rstrip('.')}. Another folder for runs is hydra.run.dir=DIR; for what is kept for "
        "all runs set LIGHTNING_DISTILL_CACHE, and for data sets HF_HOME."
    )


NOWHERE = "HYDRA_FULL_ERROR=1 prints Python's traceback."

# What to type where a group was set to null, which Hydra does not know.
INSTEAD_OF_NULL = {
    "criteria": "criteria=[hard_label]",
    "metrics": "metrics=[accuracy]",
    "callbacks": "callbacks=[]",
    "logger": "logger=[]",
}

# Choices of other projects, and what they are here.
MEANT = {
    ("hparams_search", "optuna"): (
        "There is no 'optuna' in the group 'hparams_search': Optuna is a job here, without -m. "
        "Type lightning-distill job=search, and what is searched as in "
        "job.space.optimizer.lr='{low: 1e-4, high: 1e-2, log: true}'."
    )
}


def message_of_hydra(error: Exception) -> str:
    """What is wrong with what was typed, on one line, and what to type instead."""
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return _unwritable(error)
    text = " ".join(f"{error} {error.__cause__ or ''}".partition("Config search path")[0].split())
    hinted = hint(text, sys.argv[1:])
    if hinted is not None:
        return hinted
    if "Config group override must be a string or a list" in text:
        typed = [a.lstrip("+").partition("=") for a in sys.argv[1:]]
        ways = [
            f"{INSTEAD_OF_NULL.get(group, f'~{group}')} instead of {group}=null"
            for group, _, value in typed
            if value == "null"
        ]
        return f"A group of the configuration cannot be null: write {', '.join(ways)}."
    if "submitit" in text and "Could not find 'hydra/launcher" in text.replace("load", "find"):
        return (
            "hydra/launcher=submitit_slurm needs a package that is not installed: "
            "pip install 'lightning-distill[slurm]'."
        )
    unknown = re.search(r"Could not (?:find|load) '(\w+)/([^']*)'", text)
    if unknown and (ours := files("lightning_distill.conf") / unknown[1]).is_dir():
        group, name = unknown.groups()
        if (meant := MEANT.get((group, name))) is not None:
            return meant
        known = [p.name[:-5] for p in ours.iterdir()]
        near = get_close_matches(name, known, n=3)
        listed = f"Nearest: {', '.join(near)}." if near else f"It has {', '.join(sorted(known))}."
        return f"There is no {name!r} in the group {group!r}. {listed}"
    return text
