"""An image processor comes with its model: where the data of a run finds it."""

from pathlib import Path

from omegaconf import DictConfig

FILE = "preprocessor_config.json"


def take_image_processors(cfg: DictConfig, student: str | None, teacher: str | None) -> None:
    """Name the image processors of both models in `cfg.data`, where nobody has.

    The student's is its own if it is pretrained, else the teacher's.

    Args:
        cfg: the run's configuration; changed in place.
        student: the student's folder, or its name on the hub.
        teacher: the teacher's.
    """
    if "image_processor" not in cfg.data:
        return
    student, teacher = (path if _has_processor(path) else None for path in (student, teacher))
    if cfg.data.image_processor is None:
        cfg.data.image_processor = student or teacher
    if cfg.data.teacher_image_processor is None:
        cfg.data.teacher_image_processor = teacher


def _has_processor(path: str | None) -> bool:
    """Whether there is one; a name on the hub is looked for where it is loaded."""
    if path is None:
        return False
    folder = Path(path).expanduser()
    return (folder / FILE).is_file() or not folder.is_dir()
