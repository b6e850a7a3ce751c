"""A feature extractor comes with its model: where the data of a run finds it."""

from pathlib import Path

from omegaconf import DictConfig

FILES = ("preprocessor_config.json", "processor_config.json")


def take_feature_extractors(cfg: DictConfig, student: str | None, teacher: str | None) -> None:
    """Name the feature extractors of both models in `cfg.data`, where nobody has.

    The student's is its own if it is pretrained, else the teacher's.

    Args:
        cfg: the run's configuration; changed in place.
        student: the student's folder, or its name on the hub.
        teacher: the teacher's.
    """
    if "feature_extractor" not in cfg.data:
        return
    student, teacher = (path if _has_extractor(path) else None for path in (student, teacher))
    if cfg.data.feature_extractor is None:
        cfg.data.feature_extractor = student or teacher
    if cfg.data.get("teacher_feature_extractor") is None:
        cfg.data.teacher_feature_extractor = teacher


def _has_extractor(path: str | None) -> bool:
    """Whether there is one; a name on the hub is looked for where it is loaded."""
    if path is None:
        return False
    folder = Path(path).expanduser()
    return not folder.is_dir() or any((folder / file).is_file() for file in FILES)
