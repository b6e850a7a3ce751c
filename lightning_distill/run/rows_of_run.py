"""Rows of a run that is over, for a job that goes on where they are gone."""

import contextlib
import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict

from ..read_config import check_expansion
from .data import build_data
from .of_run import READERS, take
from .targets import check_targets, trusting
from .typed import ALLOW, check_remote_code, REMOTE_CODE, typed


def first_test_batch(cfg: DictConfig, run: Path) -> Any:
    """The first batch on which the student of a run was tested.

    Args:
        cfg: the job's configuration; it stays as it is, and so does the working directory.
        run: the run's directory.

    Raises:
        Exception: whatever stands in the way of making the data.
    """
    cfg, run = cfg.copy(), Path(os.path.abspath(run))
    with trusting(typed(cfg, ALLOW), run), contextlib.chdir(os.getcwd()):
        take(cfg, run, ("data", "task", "num_labels", "seed"))
        with open_dict(cfg):
            cfg.student, cfg.teacher = {"path": str(run / "student")}, None
            for option in READERS:
                if option in cfg.data:
                    cfg.data[option] = None
        check_expansion(cfg)
        check_targets(cfg)
        check_remote_code(cfg, bool(typed(cfg, REMOTE_CODE)), of_file=True)
        data = build_data(cfg, loaders=("test_dataloader",))
        return next(iter(data.test_dataloader()))
