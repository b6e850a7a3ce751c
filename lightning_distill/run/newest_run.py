"""Runs by the time of their beginning."""

from pathlib import Path

from .resuming import CONFIG


def newest_run(root: Path = Path("runs"), holding: str = "report.json") -> Path:
    """The directory of the newest run that holds a file or folder of this name.

    Raises:
        FileNotFoundError: if there is none.
    """
    found = [path for path in runs_in(root) if (path / holding).exists()]
    if not found:
        raise FileNotFoundError(
            f"There is no finished run in {root.absolute()}: run `lightning-distill` first, "
            "or name a folder (job.path=... or job.run=...)."
        )
    return found[-1]


def runs_in(root: Path) -> list[Path]:
    """The directories of all runs below a folder, the newest last."""
    found = [p.parent for p in root.glob(f"**/{CONFIG}") if p.parent.name != ".hydra"]
    return sorted(found, key=lambda p: p.stat().st_mtime)
