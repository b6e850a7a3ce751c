"""Searching for a student with Optuna: the study on disk, and which trials end early."""

from .end_early import EndEarly
from .study import open_study, StudyOnDisk

__all__ = ["EndEarly", "StudyOnDisk", "open_study"]
