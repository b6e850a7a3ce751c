"""Runs by the time of their beginning."""

from pathlib import Path

# Of a run, in its directory.
CONFIG = "config.yaml"


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
    """The directories of all runs below a folder, the newest last; trials of a search are none."""
    found = {p.parent for p in root.glob(f"**/{CONFIG}") if p.parent.name != ".hydra"}
    # What lies in a run is a part of it.
    whole = [path for path in found if not found & {*path.parents}]
    return sorted(whole, key=lambda p: p.stat().st_mtime)


def check_is_run(option: str, path: Path) -> None:
    """Refuse a path that is not the directory of a run.

    Args:
        option: as the user would type it.
        path: what was given.

    Raises:
        FileNotFoundError: naming the newest runs that there are.
    """
    if not (path / CONFIG).is_file():
        near = ", ".join(str(p) for p in runs_in(Path("runs"))[-3:]) or "none"
        raise FileNotFoundError(
            f"`{option}` must be the directory of a run, which holds {CONFIG}; {path} does not. "
            f"Newest runs here: {near}."
        )
