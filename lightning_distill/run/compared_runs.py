"""Runs that job=compare trains itself: each seed with each learning rate, one after another."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from ..newest_run import CONFIG
from .data import build_data
from .directory import begin_trial
from .inner_run import free_memory, logged_in
from .labels import labelled_rows
from .objective import build_objective
from .resuming import go_on
from .stage import say
from .trainer import module_learns_of_teacher, process_count

JOB = "lightning_distill.jobs.distill"
# Within the job's directory, where no one takes them for runs of their own.
RUNS = "runs"
REPORT = "report.json"


def check_runs(cfg: DictConfig) -> None:
    """Refuse what cannot be compared, before the first of many trainings.

    Args:
        cfg: the job's configuration.

    Raises:
        ValueError: saying why.
    """
    if process_count(cfg) > 1:
        raise ValueError(
            "job=compare trains in one process, and trainer.devices="
            f"{cfg.trainer.get('devices')} trainer.num_nodes={cfg.trainer.get('num_nodes')} are "
            "more. Train a run for each seed, as in seed=0, seed=1 and so on, and name them: "
            "job.runs=[DIR,DIR]."
        )
    if cfg.teacher is None:
        raise ValueError(
            "job=compare asks whether a teacher helps, and there is none: choose one, as in "
            "teacher=pretrained teacher.path=DIR."
        )
    # Each stage has terms of its own.
    has_stages = bool(OmegaConf.select(cfg, "stages"))
    learns = has_stages or module_learns_of_teacher(cfg)
    if not learns and not build_objective(cfg).sources("teacher"):
        raise ValueError(
            "job=compare asks whether a teacher helps, and no term reads one: choose one that "
            "does, as in criteria=[hard_label,soft_target]."
        )
    if labelled_rows(build_data(cfg.copy())) == 0:
        raise ValueError(
            "job=compare trains a student without a teacher too, and no training row has a label: "
            "give some rows one."
        )


def train_runs(
    cfg: DictConfig,
    seeds: Sequence[int],
    rates: Sequence[float] | None,
    control: bool,
    distill: Callable[[DictConfig], Any],
) -> dict[float | None, list[Path]]:
    """Train what has not ended yet; a run that was cut off goes on where it was.

    Args:
        cfg: the job's configuration, of which each run is made.
        seeds: of the runs.
        rates: learning rates that each student is trained with; `None` is that of `cfg`.
        control: whether each run also has a student that is taught with the answers to other rows.
        distill: trains one run, given its configuration.

    Returns:
        The directories of the runs in the order of the seeds, by learning rate.

    Raises:
        ValueError: if there are runs of another comparison already.
    """
    _refuse_runs_of_another(cfg)
    each: list[float | None] = [None] if rates is None else [*rates]
    wanted = [(seed, rate) for seed in seeds for rate in each]
    found: dict[float | None, list[Path]] = {rate: [] for rate in each}
    for number, (seed, rate) in enumerate(wanted, 1):
        name = f"seed{seed}" if rate is None else f"seed{seed}_lr{rate:g}"
        directory = Path(str(cfg.output_dir)) / RUNS / name
        found[rate].append(directory)
        if (directory / REPORT).is_file():
            continue
        say(f"Run {number} of {len(wanted)}", str(directory))
        with logged_in(directory):
            if (directory / CONFIG).is_file():
                one = go_on(directory, auto=True)
                one.resume = str(directory)
            else:
                one = run_config(cfg, seed, rate, control)
            begin_trial(one, directory)
            distill(one)
        free_memory()
    return found


def _refuse_runs_of_another(cfg: DictConfig) -> None:
    directory = Path(str(cfg.output_dir))
    if not cfg.resume and any((directory / RUNS).glob("*")):
        raise ValueError(
            f"{directory} holds runs of an earlier comparison, which may be other ones than are "
            f"asked for now. Go on with them by resume={directory}, or take another folder, as in "
            "hydra.run.dir=DIR."
        )


def run_config(cfg: DictConfig, seed: int, rate: float | None, control: bool) -> DictConfig:
    """The configuration of one run: a distillation like any other.

    Args:
        cfg: that of the job.
        seed: of the run.
        rate: its learning rate; `None` is that of `cfg`.
        control: whether it also has a student that is taught with the answers to other rows.
    """
    run: Any = cfg.copy()
    with open_dict(run):
        run.job = {"_target_": JOB}
        run.resume, run.baseline, run.control, run.seed = None, True, control, seed
    if rate is not None:
        OmegaConf.update(run, "optimizer.lr", rate)
    return run
