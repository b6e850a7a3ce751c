"""What a cache says of itself: whose answers it holds, and in which files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..models.files import file_in
from .answer import Answer, signature
from .row_index import write_index
from .signed_json import read_json, write_json

FORMAT, VERSION = "lightning_distill answers", 2
MANIFEST = "manifest.json"


def write_manifest(
    folder: Path,
    about: Mapping[str, Any],
    answers: Sequence[Answer],
    shards: Sequence[Any],
    heads: Mapping[str, Any] | None = None,
) -> None:
    """Make a folder of shards a cache: index its rows, and say what it is.

    Args:
        folder: that holds the shards.
        about: of teacher, precision, tokenizer and data, as plain values.
        answers: what each row has.
        shards: the facts of each, in order.
        heads: the facts of the teacher's heads, if there are any.

    Raises:
        ValueError: for a shard of another teacher, or of other answers.
    """
    own = signature(identity_of(about), answers)
    others = [facts["file"] for facts in shards if facts["of"] != own]
    if others:
        raise ValueError(
            f"{', '.join(others[:3])} in {folder} holds the answers of another teacher, or kept "
            "otherwise. Name another folder, or remove this one."
        )
    rows, index = write_index(folder, shards)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "about": dict(about),
        "answers": [answer.settings() for answer in answers],
        "rows": rows,
        "index": index,
        "shards": list(shards),
        **({} if heads is None else {"heads": dict(heads)}),
    }
    write_json(folder / MANIFEST, manifest)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `write_manifest` wrote.

    Raises:
        FileNotFoundError: if there is no cache, or none that was finished.
        DamagedCacheError: if it is not what was written.
        ValueError: if it is of another version of the format, or names files of other folders.
    """
    if not (folder / MANIFEST).is_file():
        begun = any(folder.glob("shard-*.safetensors"))
        raise FileNotFoundError(
            f"There is no {MANIFEST} in {folder}: "
            + (
                "the cache was begun and not finished; give the command that made it again, "
                "which goes on where it was."
                if begun
                else "write the teacher's answers there first, with job=cache."
            )
        )
    manifest = read_json(folder / MANIFEST)
    if manifest.get("format") != FORMAT or manifest.get("version") != VERSION:
        raise ValueError(
            f"{folder / MANIFEST} is of format {manifest.get('format')!r} version "
            f"{manifest.get('version')!r}; this program reads {FORMAT!r} version {VERSION}. "
            "Make the cache again, in a folder of its own: lightning-distill job=cache."
        )
    for facts in [*manifest["shards"], manifest["index"], manifest.get("heads")]:
        if facts is not None:
            file_in(folder, facts["file"], MANIFEST)
    return manifest


def identity_of(about: Mapping[str, Any]) -> str:
    """Who answered: the teacher's fingerprint, and the precision under which it was run."""
    found = str(about.get("teacher", {}).get("fingerprint", ""))
    precision = about.get("precision")
    return found if precision is None else f"{found} {precision}"
