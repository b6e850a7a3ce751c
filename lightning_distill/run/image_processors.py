"""An image processor comes with its model: where the data of a run finds it."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..data.pictures.timm_settings import timm_settings
from ..models.timm_models import what_timm_says
from .architecture import config_in
from .cached_teacher import image_processor_of_cache

FILE = "preprocessor_config.json"
OF_TIMM = ("lightning_distill.students.timm", "lightning_distill.teachers.timm")
# Where the configuration of a model has that of another one, which it is made of.
WITHIN = ("of", "model")


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
    of_student = _of_timm(cfg.get("student")) or _of_path(student)
    of_teacher = _of_timm(cfg.get("teacher")) or _of_path(teacher) or image_processor_of_cache(cfg)
    if cfg.data.image_processor is None:
        cfg.data.image_processor = of_student or of_teacher
    if cfg.data.teacher_image_processor is None:
        cfg.data.teacher_image_processor = of_teacher


def own_image_processors(cfg: DictConfig) -> dict[str, Any]:
    """The image processors with which `student` and `teacher` were trained; `None` if unknown.

    Args:
        cfg: the run's configuration.
    """
    return {
        role: _of_timm(cfg.get(role)) or _of_path(OmegaConf.select(cfg, f"{role}.path"))
        for role in ("student", "teacher")
    }


def _of_timm(node: Any) -> dict[str, Any] | None:
    """How a model of timm with weights wants its pictures, which the data says of a fresh one."""
    if not OmegaConf.is_dict(node):
        return None
    if node.get("_target_") not in OF_TIMM:
        found = (None if node.get("path") else _of_timm(node.get(name)) for name in WITHIN)
        return next(filter(None, found), None)
    if not node.get("pretrained") and node.get("path") is None:
        return None
    size = node.get("img_size")
    size = OmegaConf.to_container(size) if OmegaConf.is_config(size) else size
    return timm_settings(str(node.name), what_timm_says(str(node.name)), size)


def _of_path(path: str | None) -> Any:
    """The folder with a processor, or what timm has written into a model's configuration.

    A name on the hub is looked for where it is loaded.
    """
    if path is None:
        return None
    folder = Path(path).expanduser()
    if (folder / FILE).is_file() or not folder.exists():
        return path
    said = config_in(folder).get("pretrained_cfg")
    return timm_settings(path, said) if isinstance(said, dict) else None
