"""The configuration of a run, for a job that is given its directory: its data, task and models."""

import os
from collections.abc import Sequence
from difflib import get_close_matches
from glob import glob
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from ..newest_run import check_is_run, newest_run
from ..overrides import key_of, quoted
from ..read_config import read_config
from .image_processors import FILE as IMAGE_PROCESSOR
from .resuming import CONFIG, go_to, record_of
from .save import TEACHER_TOKENIZER
from .stage import say
from .tokenizers import FILES as TOKENIZER

# What a measurement is made of.
MEASURED = ("data", "task", "num_labels", "seed", "metrics", "monitor", "mode")
# What a job has of its own, whatever else it takes.
OWN = ("job", "output_dir", "resume", "allow_targets", "trust_remote_code", "num_rows")
# By the name of the job: which option names the run, what is taken of it (all if it is `None`), and
# what the newest run holds that is meant where none is named.
JOBS: dict[str, tuple[str, tuple[str, ...] | None, str | None]] = {
    "evaluate": ("path", MEASURED, "report.json"),
    "cache": ("run", None, None),
    "inspect": ("run", None, None),
}
# Options that name what reads the rows of each model.
READERS = (
    *("tokenizer", "teacher_tokenizer", "image_processor", "teacher_image_processor"),
    *("feature_extractor", "teacher_feature_extractor"),
)
# Options that name a file or folder, also where that has no ending.
PATHS = ("train", "validation", "test", "path", "folder", *READERS)
# Options of jobs that name what there need not be yet.
WRITTEN = ("folder", "to")


def run_named_by(cfg: DictConfig) -> Path | None:
    """The directory of the run that a job is given; `None` if it is given none.

    Raises:
        FileNotFoundError: if there is no such run, and if the newest is asked for and there is
            none.
        ValueError: if a model's folder is to be measured, and no data are named.
    """
    option, _, holding = JOBS.get(_job(cfg), ("", None, None))
    given = OmegaConf.select(cfg, f"job.{option}") if option else None
    if given is None and holding is None:
        return None
    path = Path(str(given)) if given is not None else newest_run(holding=str(holding))
    run = directory_of(path)
    if run is None and option == "run":
        check_is_run("job.run", path)
    if run is None:
        _check_data_is_named(path)
    else:
        # The job is done in the folder where the run began.
        cfg.job[option] = os.path.abspath(path)
    return run


def follow_run(cfg: DictConfig, run: Path) -> None:
    """Give a job what it takes of a run, but for what is typed. Nothing of it is instantiated.

    Relative paths of the run hold from where it began, which is gone to; those that are typed hold
    from here. Where a run is older than a key, the key has today's default.

    Args:
        cfg: the job's configuration, changed in place.
        run: its directory.

    Raises:
        ValueError: for an option that the run does not have.
    """
    names = JOBS[_job(cfg)][1]
    typed = take(cfg, run, names)
    if names is not None:
        _read_as_student(cfg, run, typed)
    elif cfg.get("teacher") is None and "teacher" not in typed:
        _teach_with_student(cfg, run)


def _job(cfg: DictConfig) -> str:
    return str(OmegaConf.select(cfg, "job._target_")).rpartition(".")[2]


def directory_of(path: Path) -> Path | None:
    """The run that a path is of: its directory, or the folder of a model in it."""
    for folder in (path, path.parent):
        if (folder / CONFIG).is_file() and folder.name != ".hydra":
            is_model = folder != path and (path / "config.json").is_file()
            return Path(os.path.abspath(folder)) if folder == path or is_model else None
    return None


def take(cfg: DictConfig, run: Path, names: Sequence[str] | None = None) -> list[str]:
    """Put the values of a run in the place of those that nobody has typed.

    Args:
        cfg: changed in place.
        run: its directory.
        names: the keys at the top; all that are no job's own by default.

    Returns:
        The keys that were typed.

    Raises:
        ValueError: as [`follow_run`][].
    """
    overrides = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    keys = {key_of(override).lstrip("~"): override for override in overrides}
    if "experiment" in keys:
        say("Run", f"nothing of {run} is taken, for {keys['experiment']} says it all")
        return ["data", "teacher"]
    saved = read_config(run / CONFIG)
    taken = [str(n) for n in saved if n not in OWN and (names is None or n in names)]
    before, typed = cfg.copy(), []
    for name in taken:
        if name in keys and not (name == "data" and _same_kind(before, saved)):
            typed.append(name)
            continue
        with open_dict(cfg):
            cfg[name] = saved[name]
        for key in keys:
            if key.startswith(f"{name}."):
                _check_known(key, saved, keys[key], run)
                OmegaConf.update(cfg, key, OmegaConf.select(before, key), force_add=True)
                typed.append(key)
    if _job(cfg) == "cache" and "mode" not in keys:
        # Of this job it is write or verify.
        cfg.mode = None
    folder = record_of(run).get("folder")
    if folder is not None and Path(folder).is_dir():
        _settle_paths(cfg, [*typed, "job"])
    set_there = [n for n in taken if n not in typed and saved[n] is not None]
    what = "configuration" if names is None else ", ".join(set_there)
    more = f"; as typed: {', '.join(typed)}" if typed else ""
    say("Run", f"{what} of {run}{more}")
    go_to(folder, "Run")
    return typed


def _same_kind(cfg: DictConfig, saved: DictConfig) -> bool:
    """Whether the data that are chosen are those of the run, with other settings."""
    targets = [OmegaConf.select(node, "data._target_") for node in (cfg, saved)]
    return targets[0] is not None and targets[0] == targets[1]


def _check_known(key: str, saved: DictConfig, override: str, run: Path) -> None:
    """Refuse a setting that the run does not have; `+` in front adds one."""
    group, _, rest = key.partition(".")
    node = OmegaConf.select(saved, key.rpartition(".")[0])
    last = key.rpartition(".")[2]
    if (override.startswith("+") and not override.startswith("++")) or (
        OmegaConf.is_dict(node) and last in node
    ):
        return
    known = [str(name) for name in node] if OmegaConf.is_dict(node) else []
    near = get_close_matches(last, known, n=3) or known
    what = OmegaConf.select(saved, f"{group}._target_") or group
    raise ValueError(
        f"The run {run} has no {key}: its {group} is {what}, with {', '.join(near) or 'nothing'}. "
        f"Correct the name, or choose other {group}, as in {group}=NAME {group}.{rest}=VALUE."
    )


def _check_data_is_named(path: Path) -> None:
    missing = not path.exists() and str(path).startswith((".", "/", "~"))
    if not HydraConfig.initialized() or missing:
        # Whoever loads it says what is missing.
        return
    keys = {key_of(override) for override in HydraConfig.get().overrides.task}
    if not keys & {"data", "experiment"}:
        raise ValueError(
            f"{path} is a model and no run, so nothing says on which rows to measure it. Name the "
            f"data, as in {quoted('job.path', path)} data=text_files data.train=train.csv "
            "data.test=test.csv (data=docstrings are those of the default run)."
        )


def _read_as_student(cfg: DictConfig, run: Path, typed: list[str]) -> None:
    """The student brings the tokenizer, or what else reads rows, that it was trained with.

    A teacher's own tokenizer decides which rows there are, so it is read with, too.
    """
    files_of_readers = (*TOKENIZER, IMAGE_PROCESSOR)
    if "data" in typed or not any((run / "student" / n).is_file() for n in files_of_readers):
        return
    for option in READERS:
        if option in cfg.data and f"data.{option}" not in typed:
            kept = run / option
            cfg.data[option] = str(kept) if option == TEACHER_TOKENIZER and kept.is_dir() else None


def _teach_with_student(cfg: DictConfig, run: Path) -> None:
    """A run without a teacher has trained one."""
    packaged = files("lightning_distill.conf") / "teacher" / "pretrained.yaml"
    with open_dict(cfg):
        cfg.teacher = OmegaConf.create(packaged.read_text(encoding="utf-8"))
        cfg.teacher.path = str(run / "student")
    say("Run", f"it has no teacher, so its student is the teacher: {cfg.teacher.path}")


# Paths.


def _settle_paths(cfg: DictConfig, keys: Sequence[str]) -> None:
    """Make what was typed absolute, where it names something that is here."""
    for key in keys:
        parent, _, last = key.rpartition(".")
        _settle(OmegaConf.select(cfg, parent) if parent else cfg, last)


def _settle(node: Any, key: Any) -> None:
    if OmegaConf.is_missing(node, key):
        return
    value = node[key]
    if OmegaConf.is_config(value):
        for inner in list(value) if OmegaConf.is_dict(value) else range(len(value)):
            _settle(value, inner)
    elif isinstance(value, str):
        path = Path(value).expanduser()
        looks = key in PATHS or any(c in value for c in "/.*")
        there = path.exists() or ("*" in value and bool(glob(value, recursive=True)))
        if (looks and there) or key in WRITTEN:
            node[key] = os.path.abspath(path)
