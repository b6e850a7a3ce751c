"""Teacher and student of a run."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..data.data import DataFacts
from ..models.label_order import label_order
from ..students import quantized
from ..tasks import Task
from ..teachers import Teacher
from .cached_teacher import teacher_weights
from .call import call, known, pad_token_id
from .labels import take_classes
from .row_heads import check_row_labels, give_rows_a_head
from .student_quantization import without_quantization
from .student_vocabulary import asks_for_fewer_tokens, without_vocabulary
from .targets import find_target
from .task import task_in
from .tokenizers import check_tokenizer
from .trainer import learns_of_teacher


def build_teacher(
    cfg: DictConfig, data: Any, rehearse: Callable[[nn.Module], None] | None = None
) -> nn.Module:
    """The teacher, loaded or trained as `cfg.teacher` says.

    Args:
        cfg: the run's configuration.
        data: the data module.
        rehearse: given to a teacher that is yet to be trained: called with it untrained, it finds
            what cannot work before that time is spent.
    """
    if cfg.teacher is None:
        raise ValueError("This job needs a teacher, as in teacher=pretrained teacher.path=DIR.")
    more = {"cfg": cfg, "rehearse": rehearse, "pad_token_id": pad_token_id(data, "teacher")}
    path = OmegaConf.select(cfg, "teacher.path")
    teacher = call(cfg.teacher, known(data, path, **more), "teacher")
    if not isinstance(teacher, nn.Module):
        raise ValueError(f"`teacher` must be a torch.nn.Module, got a {type(teacher).__name__}.")
    names, known_names = Teacher.of(teacher).label_names, DataFacts(data).label_names
    if names is not None and known_names:
        label_order(known_names, names, ("data", "teacher"))
    take_classes(cfg, data, names)
    check_row_labels(cfg, data, teacher)
    check_tokenizer(cfg, data, teacher, "teacher")
    _fit_task(cfg, path, "teacher")
    return teacher


def _fit_task(cfg: DictConfig, path: Any, role: str) -> Task:
    """The task of the run, which has said what of a model's folder does not fit it."""
    task = task_in(cfg) or Task()
    if path is not None:
        task.check_folder(Path(str(path)), role)
    return task


def build_student(
    cfg: DictConfig,
    data: Any,
    teacher: nn.Module | None,
    rehearsal: bool = False,
    of_labels: bool = False,
) -> nn.Module:
    """The student, fresh, loaded, or cut from the teacher, as `cfg.student` says; then quantised.

    Args:
        cfg: the run's configuration.
        data: the data module.
        teacher: for a student that is made of it.
        rehearsal: whether the teacher is yet to be trained, so that nothing of it need be measured.
        of_labels: whether it will learn from labels alone, whatever `cfg.criteria` says.
    """
    model = None if teacher is None else Teacher.of(teacher).model
    if teacher is not None and model is None and _is_made_of_teacher(cfg.student):
        # Only for such a student are the weights of a cached teacher loaded, and not kept.
        model = teacher_weights(teacher, cfg)
    path = OmegaConf.select(cfg, "student.path")
    more: dict[str, Any] = {"teacher": model, "rehearsal": rehearsal}
    node, quantization = without_quantization(cfg.student)
    if asks_for_fewer_tokens(cfg):
        node, more["vocabulary"] = without_vocabulary(node), DataFacts(data).vocabulary_cut
    student = call(node, known(data, path, **more), "student")
    if not isinstance(student, nn.Module):
        raise ValueError(f"`student` must be a torch.nn.Module, got a {type(student).__name__}.")
    check_tokenizer(cfg, data, student, "student")
    _fit_task(cfg, path, "student").settle(student)
    give_rows_a_head(cfg, data, student)
    if quantization is None:
        return student
    # A teacher may be there for its weights alone, of which the student was cut.
    of_labels = of_labels or teacher is None or not learns_of_teacher(cfg)
    return quantized(student, quantization, "student.quantization", _dropout(node, of_labels))


def _dropout(node: DictConfig, of_labels: bool) -> bool | None:
    """Whether it is said that a quantised student has dropout; of labels it learns as others do."""
    said = node.get("dropout")
    # Of other students it is a number, which the model has been given.
    if isinstance(said, bool):
        return said
    return True if of_labels else None


def _arguments(node: Any) -> list[str]:
    """What the class or function that `node` names takes."""
    target = node.get("_target_") if OmegaConf.is_dict(node) else None
    return [] if target is None else list(inspect.signature(find_target(str(target))).parameters)


def _is_made_of_teacher(node: Any) -> bool:
    of = node.get("of") if OmegaConf.is_dict(node) else None
    if of is None:
        return "teacher" in _arguments(node)
    return node.get("path") is None and _is_made_of_teacher(of)
