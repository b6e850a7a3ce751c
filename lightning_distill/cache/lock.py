"""One process writes into a folder at a time, and a process that died locks nobody out."""

import json
import os
import secrets
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

LOCK = "writing.lock"


class FolderInUse(ValueError):
    """Another process writes into a folder."""


class FolderLock:
    """A file that names the process which writes into a folder.

    The lock of a process of this host that is no longer there is taken over. A process may lock
    a folder again that it has locked before.

    Args:
        folder: that is written into.
        name: of the file in it.
        instead: what else its user can do than wait, for whoever finds it locked.
        owner: of the lock, where one run has several processes.
    """

    def __init__(
        self,
        folder: Path,
        name: str = LOCK,
        instead: str = "name another folder (job.folder=DIR, teacher.folder=DIR)",
        owner: str | None = None,
    ):
        self.path = folder / name
        self.instead, self.owner = instead, owner
        self._own: dict[str, Any] | None = None

    def acquire(self) -> None:
        """Lock the folder.

        Raises:
            FolderInUse: if another process writes into it.
        """
        own = {**_process(os.getpid()), "key": secrets.token_hex(8), "owner": self.owner}
        for _ in range(3):
            if self._create(own):
                self._own = own
                return
            self._remove_stale()
        raise FolderInUse(self._held_by(self._read()))

    def held_by_another(self) -> str | None:
        """Who holds the lock, if it is a living process of another owner."""
        held = self._read()
        theirs = held is not None and held.get("owner") != self.owner and _may_live(held)
        return self._held_by(held) if theirs else None

    def release(self) -> None:
        """Unlock the folder; nothing happens where another process has taken it over."""
        if self._own is not None and self._read() == self._own:
            self.path.unlink(missing_ok=True)
        self._own = None

    def _create(self, own: dict[str, Any]) -> bool:
        # Written whole under a name of its own: a lock that can be seen can be read.
        aside = self.path.with_name(f".{self.path.name}.{own['key']}")
        try:
            aside.write_text(json.dumps(own), encoding="utf-8")
            os.link(aside, self.path)
        except FileExistsError:
            return False
        finally:
            aside.unlink(missing_ok=True)
        return True

    def _read(self) -> dict[str, Any] | None:
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _remove_stale(self) -> None:
        """Remove the lock of a process that is not there any more, or is this one.

        Raises:
            FolderInUse: if it may be there.
        """
        held = self._read()
        if held is not None and _may_live(held):
            raise FolderInUse(self._held_by(held))
        # Away under another name first: a lock that another process made meanwhile is put back.
        away = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        with suppress(FileNotFoundError):
            os.rename(self.path, away)
            if held is not None and json.loads(away.read_text(encoding="utf-8")).get(
                "key"
            ) != held.get("key"):
                with suppress(FileExistsError):
                    os.link(away, self.path)
            away.unlink()

    def _held_by(self, held: dict[str, Any] | None) -> str:
        who = held or {}
        return (
            f"Process {who.get('pid')} on {who.get('host')} writes into {self.path.parent} now. "
            f"Wait until it ends, or {self.instead}. If there is no such process any more, remove "
            f"{self.path}."
        )


def _process(pid: int) -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": pid, "started": _started(pid)}


def _may_live(held: dict[str, Any]) -> bool:
    """Whether another process that held the lock may still be there."""
    if held.get("host") != socket.gethostname():
        # Nobody here can tell.
        return True
    pid = held.get("pid")
    if not isinstance(pid, int) or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # A number is given to another process some time.
    return _started(pid) == held.get("started")


def _started(pid: int) -> str | None:
    """When a process began, in the system's ticks; `None` where the system does not say."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]
