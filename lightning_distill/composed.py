"""Runs of one configuration, told by a hash of what was composed.

Read before torch is loaded, to find the directory of a run.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

CONFIG, FINISHED = "config.yaml", "finished"
# Where a run goes on and what it may name are no part of what it is.
ELSEWHERE = ("hydra", "output_dir", "resume", "allow_targets")


def fingerprint(cfg: DictConfig) -> str:
    """SHA-256 of a configuration as it was composed, but for where it runs and goes on."""
    told: Any = OmegaConf.to_container(cfg)
    kept = {str(key): value for key, value in told.items() if key not in ELSEWHERE}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def newest_unfinished(root: Path, cfg: DictConfig) -> Path | None:
    """The directory of the newest run of this configuration that has not ended, if there is one.

    Args:
        root: the runs lie in it.
        cfg: as it was composed.
    """
    wanted = fingerprint(cfg)
    found = [
        path.parent
        for path in root.glob(f"*/{CONFIG}")
        if _composed(path) == wanted and not has_ended(path.parent)
    ]
    return max(found, key=lambda run: (run / CONFIG).stat().st_mtime_ns, default=None)


def has_ended(directory: Path) -> bool:
    """Whether a run has done all that it was asked for."""
    # Before there was a mark, the report came last.
    return (directory / FINISHED).is_file() or (directory / "report.json").is_file()


def _composed(path: Path) -> str | None:
    found = re.search(r"^composed: (\w{64})$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return None if found is None else found[1]
