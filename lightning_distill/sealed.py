"""Files that are written whole, with the SHA-256 of what was written beside them.

A seal is a text file that `sha256sum -c` reads: `NAME.sha256` beside a file, `SHA256SUMS` within a
folder. What was sealed and does not match any more is never read.
"""

import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

log = logging.getLogger("lightning_distill")

ENDING, SUMS = ".sha256", "SHA256SUMS"
WEIGHTS = (".safetensors", ".bin")


class ChangedFileError(ValueError):
    """A file is not what was written."""


def write_whole(path: Path, write: bytes | Callable[[Any], Any]) -> str:
    """Write a file whole or not at all: a killed process leaves no half of it under its name.

    Args:
        path: of the file; what it held before stays until all is on the disk.
        write: what it shall hold, or a function that writes it into an open file, once through.

    Returns:
        The SHA-256 of what was written, in hex.

    Raises:
        OSError: saying what is left, and what to do.
    """
    # A name of its own: ranks on several machines may have the same process number.
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        with _explained(path), aside.open("wb") as file:
            hashed = _Hashed(file)
            try:
                hashed.write(write) if isinstance(write, bytes) else write(hashed)
            except Exception:
                if hashed.error is not None:
                    # Who writes may hide it behind an error of its own.
                    raise hashed.error from None
                raise
            file.flush()
            os.fsync(file.fileno())
        with _explained(path):
            os.replace(aside, path)
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
    return hashed.digest.hexdigest()


class _Hashed:
    """An open file of which the sum is kept while it is written."""

    def __init__(self, file: Any):
        self.file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, content: Any) -> Any:
        self.digest.update(content)
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"{path} could not be written ({error.strerror}). What was written before is kept: "
            f"make room{_room(path.parent)}, or the folder writable, and give the same command "
            "again",
        ) from error


def _room(folder: Path) -> str:
    try:
        return f" ({shutil.disk_usage(folder).free / 1e6:.1f} MB are free)"
    except OSError:
        return " (its folder is gone)"


def sync_folder(folder: Path) -> None:
    """Let the names of a folder reach the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_sealed(path: Path, write: bytes | Callable[[Any], Any]) -> None:
    """As [`write_whole`][], with a seal beside it; never without one that fits.

    Args:
        path: of the file.
        write: as there.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.new")
    before: list[str] = []
    try:
        digest = write_whole(aside, write)
        # A seal that is broken says nothing of the file that is there.
        with suppress(ChangedFileError, FileNotFoundError):
            before = _digests(path)
        # Whoever dies between the two leaves a file that one of these sums fits.
        _write_seal(path, [digest, *before])
        with _explained(path):
            os.replace(aside, path)
            sync_folder(path.parent)
        if before:
            _write_seal(path, [digest])
    except OSError as error:
        # The name of the file, not of what was beside it.
        raise OSError(error.errno, str(error.strerror).replace(aside.name, path.name)) from error
    finally:
        with suppress(OSError):
            aside.unlink()


def read_sealed(path: Path) -> bytes:
    """What a file holds, if its seal fits; one without a seal is read, and that is said.

    Raises:
        FileNotFoundError: if there is no such file.
        ChangedFileError: if it is not what was written.
    """
    content = path.read_bytes()
    _compare(path, hashlib.sha256(content).hexdigest())
    return content


def check_sealed(path: Path) -> None:
    """Compare a file with its seal; one without a seal passes, and that is said.

    Raises:
        FileNotFoundError: if there is no such file.
        ChangedFileError: if it is not what was written.
    """
    _compare(path, digest_of(path))


def remove_sealed(path: Path) -> None:
    """Remove a file and its seal."""
    path.unlink(missing_ok=True)
    _seal_of(path).unlink(missing_ok=True)


def is_sealed(path: Path) -> bool:
    """Whether a file has a seal."""
    return _seal_of(path).is_file()


def seal_folder(folder: Path) -> None:
    """Write the sums of all files within a folder into its `SHA256SUMS`; all may be read alike."""
    sums = {name: digest_of(folder / name) for name in _files(folder)}
    text = "".join(f"{digest}  {name}\n" for name, digest in sums.items())
    write_whole(folder / SUMS, text.encode())
    for name in sums:
        # safetensors lets nobody else read what it writes.
        shutil.copymode(folder / SUMS, folder / name)


def check_folder(folder: Path, weights: bool = True) -> bool:
    """Compare the files of a folder with its seal, if it has one.

    Args:
        folder: that [`seal_folder`][] has sealed, or any other.
        weights: false leaves out the large files, for who reads only what lies beside them.

    Returns:
        Whether it has a seal.

    Raises:
        ChangedFileError: if a file is missing or is not what was written.
    """
    seal = folder / SUMS
    if not seal.is_file():
        return False
    for digest, name in _entries(seal):
        path = folder / name
        if not path.is_file():
            raise ChangedFileError(f"{path} is missing, which {SUMS} lists. {_ways(seal)}")
        if (weights or not name.endswith(WEIGHTS)) and digest_of(path) != digest:
            raise ChangedFileError(f"{path} is not what was written. {_ways(seal)}")
    known = {name for _, name in _entries(seal)}
    for name in _files(folder):
        if name.endswith(WEIGHTS) and name not in known:
            raise ChangedFileError(f"{folder / name} is none of the files of {seal}. {_ways(seal)}")
    return True


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _compare(path: Path, digest: str) -> None:
    seal = _seal_of(path)
    if not seal.is_file():
        log.warning("%s has no %s beside it: whether it is whole is not known.", path, seal.name)
    elif digest not in _digests(path):
        raise ChangedFileError(f"{path} is not what was written. {_ways(seal)}")


def _ways(seal: Path) -> str:
    return f"Take a copy that is whole; if you have changed it yourself, remove {seal}."


def _seal_of(path: Path) -> Path:
    return path.with_name(path.name + ENDING)


def _write_seal(path: Path, digests: list[str]) -> None:
    text = "".join(f"{digest}  {path.name}\n" for digest in digests)
    write_whole(_seal_of(path), text.encode())


def _digests(path: Path) -> list[str]:
    """What a file may be by its seal, which may be that of another file."""
    seal = _seal_of(path)
    found = [digest for digest, name in _entries(seal) if name == path.name]
    if not found:
        raise ChangedFileError(f"{seal} is not that of {path.name}. {_ways(seal)}")
    return found


def _entries(seal: Path) -> list[tuple[str, str]]:
    entries = []
    for line in seal.read_bytes().decode("utf-8", "replace").splitlines():
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise ChangedFileError(
                f"{seal} is not what was written: {line[:100]!r} is no line of it. Remove it if "
                "you know that what it stands for is whole."
            )
        entries.append((digest, name))
    if not entries:
        raise ChangedFileError(
            f"{seal} is empty. Remove it if you know that what it stands for is whole."
        )
    return entries


def _files(folder: Path) -> list[str]:
    found = (p for p in folder.rglob("*") if p.is_file() and p != folder / SUMS)
    return sorted(p.relative_to(folder).as_posix() for p in found)
