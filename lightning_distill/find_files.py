"""Files by name, by pattern or by folder."""

from collections.abc import Sequence
from difflib import get_close_matches
from glob import glob
from pathlib import Path

Files = str | Sequence[str]


def find_files(split: str, given: Files, folders: bool = False) -> list[str]:
    """The files that are meant, in the order in which they are named, those of a pattern sorted.

    Args:
        split: whose files they are, for errors.
        given: a file, a pattern with `*` (`**` for folders within folders), or a list of them.
        folders: a folder stands for all files below it that are not empty and not hidden, and
            empty files of a pattern are passed over.

    Raises:
        FileNotFoundError: for what is not there.
        ValueError: for an empty file.
    """
    found: list[str] = []
    for name in [given] if isinstance(given, str) else given:
        path = Path(name).expanduser()
        if "*" in name:
            matches = sorted(glob(str(path), recursive=True))
            if folders:
                matches = [m for m in matches if Path(m).is_file() and Path(m).stat().st_size]
            if not matches:
                raise FileNotFoundError(f"No file matches data.{split}={name}.")
            found += matches
            continue
        if folders and path.is_dir():
            below = [
                str(p)
                for p in sorted(path.rglob("*"))
                if p.is_file()
                and p.stat().st_size
                and not any(part.startswith(".") for part in p.relative_to(path).parts)
            ]
            if not below:
                raise FileNotFoundError(f"There is no file in the folder {name} (data.{split}).")
            found += below
            continue
        if not path.is_file():
            around = [p.name for p in path.parent.glob("*") if p.is_file()]
            near = get_close_matches(path.name, around, n=3, cutoff=0.4) or sorted(around)[:3]
            listed = f" The folder {path.parent} has {', '.join(near)}." if near else ""
            raise FileNotFoundError(f"There is no file {name} (data.{split}).{listed}")
        found.append(str(path))
    if not found:
        raise FileNotFoundError(f"data.{split} is an empty list: name at least one file.")
    for file in found:
        if Path(file).stat().st_size == 0:
            raise ValueError(f"{file} (data.{split}) is empty.")
    return found
