"""Which run is gone on with, and what may be other than when it began."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from ..newest_run import CONFIG
from ..overrides import key_of, quoted
from ..read_config import read_config
from ..sealed import write_whole
from .stage import say
from .trial_of_search import is_trial, why_no_report
from .typed import TRUSTS, typed_command

RECORD = "run.json"
# In bytes; a run writes some ten thousand.
LONGEST = 2**22
AUTO = "auto"
# What may be given to a run that goes on, if it is more than before.
BUDGET = ("trainer.max_epochs", "trainer.max_steps")
# Of a search, whose trials have a budget of their own.
# Jobs of many runs, each with an end of its own: they may have more of these.
OF_RUNS = {
    "lightning_distill.jobs.search": ("job.trials", "trials"),
    "lightning_distill.jobs.compare": ("job.seeds", "seeds"),
}
# Of no consequence for what a run learns.
PLACES = ("output_dir", "resume", "hydra")


def as_typed(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as it was composed, but for where the run lies."""
    found: Any = OmegaConf.to_container(cfg, resolve=False)
    # Through JSON, as it is kept.
    return json.loads(json.dumps({k: v for k, v in found.items() if k not in PLACES}, default=str))


def same_run(typed: dict[str, Any], root: Path) -> Path | None:
    """The newest run in `root` of this configuration: one that has not ended, if there is any."""
    found = [p.parent for p in root.glob(f"*/{RECORD}") if _typed(p.parent) == typed]
    found.sort(key=lambda p: (not has_ended(p), (p / CONFIG).stat().st_mtime))
    return found[-1] if found else None


def checkpoint_folders(run: Path) -> list[Path]:
    """The folders of a run that hold checkpoints: of its stages in order, and of itself."""
    stages = sorted(run.glob("stages/*/checkpoints"), key=lambda path: path.stat().st_mtime)
    return [path for path in (*stages, run / "checkpoints") if any(path.glob("*.ckpt"))]


def has_ended(run: Path) -> bool:
    """Whether a run came to its end."""
    return (run / "report.json").is_file()


def why_not_ended(run: Path) -> str:
    """What became of a run without a report, and what can be done with it."""
    if is_trial(run):
        return why_no_report(run)
    error = run / "error.txt"
    begun = bool(checkpoint_folders(run))
    more = (
        f"go on with {quoted('resume', run)}, or write what it has learnt so far with job=export "
        f"{quoted('job.run', run)}"
    )
    if not error.is_file():
        return f"The run {run} has not ended: {more}."
    lines = error.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [
        "no cause was written"
    ]
    if begun:
        return f"The run {run} has failed: {lines[-1]} If that is repaired, {more}."
    return (
        f"The run {run} has failed before it learnt anything: {lines[-1]} The whole traceback is "
        f"in {error}. Start a new run."
    )


def find_auto(cfg: DictConfig) -> str | None:
    """What `resume=auto` means in the run's directory, which was chosen by [`same_run`][]."""
    directory = Path(str(cfg.output_dir))
    if _typed(directory) != as_typed(cfg) or not (directory / CONFIG).is_file():
        say("Resume", f"no run of this configuration yet, so {directory} is a new one")
        return None
    return str(directory)


def write_record(directory: Path, typed: dict[str, Any], text: str) -> None:
    """Keep what a resumed run must know: the configuration, and how and where it was typed."""
    command = typed_command()
    record = {"folder": os.getcwd(), "command": command, "typed": typed, "config": text}
    _write(directory / RECORD, json.dumps(record, indent=2))
    _write(directory / CONFIG, text)


@rank_zero_only
def write_settled(directory: Path, values: Mapping[str, Any]) -> None:
    """Write values that a run has found out into its configuration."""
    path = directory / CONFIG
    if not path.is_file():
        # A job that was called in Python, without a run's directory.
        return
    before, record = path.read_text(encoding="utf-8"), record_of(directory)
    saved = OmegaConf.create(before)
    for name, value in values.items():
        OmegaConf.update(saved, name, value, force_add=True)
    _rewrite(directory, record, before, OmegaConf.to_yaml(saved))


def _rewrite(directory: Path, record: dict[str, Any], before: str, text: str) -> None:
    if record:
        _write(
            directory / RECORD, json.dumps({**record, "config": text, "before": before}, indent=2)
        )
    _write(directory / CONFIG, text)


def go_on(directory: Path, auto: bool) -> DictConfig:
    """The configuration of a run, with the epochs and steps that were given; goes to its folder.

    Raises:
        ValueError: if its configuration was edited, or anything else is given.
    """
    cfg: Any = read_config(directory / CONFIG)
    text = (directory / CONFIG).read_text(encoding="utf-8")
    record = record_of(directory)
    if record and text not in (record["config"], record.get("before")):
        _refuse_edited(directory, text, record["config"])
    more = {} if auto else _more(cfg)
    if more:
        _extend(cfg, directory, record, more)
    elif has_ended(directory):
        say(
            "Resume",
            f"{directory} has ended, and its report is made again. More epochs: "
            f"{quoted('resume', directory)} trainer.max_epochs=N",
        )
    else:
        say("Resume", f"{directory} goes on")
    go_to(record.get("folder"))
    return cfg


def _typed(run: Path) -> dict[str, Any] | None:
    try:
        return record_of(run).get("typed")
    except ValueError:
        # It is of no configuration that anybody knows.
        return None


def record_of(run: Path) -> dict[str, Any]:
    """What a run has kept of its beginning; nothing if it is older than that."""
    # A run that is older than this file goes on as it was.
    path = run / RECORD
    if not path.is_file():
        return {}
    try:
        short = path.stat().st_size < LONGEST
        found = json.loads(path.read_text(encoding="utf-8") if short else "")
    except ValueError:
        raise ValueError(
            f"{path} is damaged, so nobody knows whether {CONFIG} is as the run began with it. "
            "Remove it if that is so."
        ) from None
    return found


def _refuse_edited(directory: Path, now: str, before: str) -> None:
    known = {*before.splitlines()}
    changed = [line.strip() for line in now.splitlines() if line not in known]
    what = ", ".join(changed[:5]) or "something is left out"
    raise ValueError(
        f"{directory / CONFIG} was edited since the run began ({what}), and a run goes on with "
        f"what it began with. Undo the edit ({RECORD} holds the file as it was), give more epochs "
        "as trainer.max_epochs=N, or start a new run with the new values."
    )


def _more(cfg: DictConfig) -> dict[str, int]:
    """The epochs and steps that were given, where they are more than before."""
    if not HydraConfig.initialized():
        return {}
    typed = HydraConfig.get().overrides.task
    given = [o for o in typed if key_of(o) not in ("resume", *TRUSTS)]
    names, what = _extendable(cfg)
    found, refused = {}, []
    for override in given:
        name, _, value = override.lstrip("+").partition("=")
        before = OmegaConf.select(cfg, name) if name in names else None
        if name not in names or not value.isdigit() or _is_less(int(value), before):
            refused.append(override)
        elif int(value) != before:
            found[name] = int(value)
    if refused:
        have = " and ".join(f"{name}={OmegaConf.select(cfg, name)}" for name in names)
        raise ValueError(
            f"`resume` goes on with the run's own configuration; leave out {' '.join(refused)}, or "
            f"start a new run. Only more {what} may be given: the run has {have}."
        )
    return found


def _extendable(cfg: DictConfig) -> tuple[tuple[str, ...], str]:
    """What a run may have more of, and what that is called."""
    of_runs = OF_RUNS.get(str(OmegaConf.select(cfg, "job._target_")))
    if of_runs is not None:
        return of_runs[:1], of_runs[1]
    return BUDGET, "epochs or steps"


def _is_less(value: int, before: Any) -> bool:
    # Of what has no limit, or is a list, nobody knows what is more.
    counts = isinstance(before, int) and before != -1
    return not counts or value < before


def _extend(cfg: DictConfig, directory: Path, record: dict[str, Any], more: dict[str, int]) -> None:
    if OmegaConf.select(cfg, "job._target_") in OF_RUNS:
        before = OmegaConf.to_yaml(cfg)
        for name, value in more.items():
            say("Resume", f"{directory} goes on with {name}={value}")
            OmegaConf.update(cfg, name, value)
        _keep_extension(cfg, directory, record, before)
        return
    if OmegaConf.select(cfg, "stages"):
        raise ValueError(
            f"{directory} has stages, each with a budget of its own, so it cannot have more epochs "
            "or steps. Start a new run."
        )
    if (directory / "result.json").is_file() and not (
        directory / "checkpoints" / "last.ckpt"
    ).is_file():
        raise ValueError(
            f"{directory} holds no checkpoints/last.ckpt to go on from (callbacks.last_checkpoint "
            "writes it), so it cannot have more epochs. Start a new run."
        )
    before = OmegaConf.to_yaml(cfg)
    words = []
    for name, value in more.items():
        words.append(f"{name}={value} (before: {OmegaConf.select(cfg, name)})")
        OmegaConf.update(cfg, name, value)
    say(
        "Resume",
        f"{directory} goes on with {', '.join(words)}. A schedule over the whole run now spans the "
        "new one",
    )
    _keep_extension(cfg, directory, record, before)


@rank_zero_only
def _keep_extension(cfg: DictConfig, directory: Path, record: dict[str, Any], before: str) -> None:
    # First of all the run has not ended any more; a kill in between leaves it as it was.
    for name in ("report.json", "result.json", "baseline/result.json", "control/result.json"):
        (directory / name).unlink(missing_ok=True)
    _rewrite(directory, record, before, OmegaConf.to_yaml(cfg))


def go_to(folder: str | None, title: str = "Resume") -> None:
    """Paths of the configuration are meant from where it began.

    Classes of the user's own are found from where the command is typed: the folder that a run names
    may be any.
    """
    here = os.getcwd()
    if folder is None or folder == here:
        return
    if not Path(folder).is_dir():
        say(title, f"the run began in {folder}, which is gone; paths hold from {here} now")
        return
    say(
        title,
        f"paths hold from {folder}, where the run began; files with own classes, from {here}",
    )
    os.chdir(folder)


def _write(path: Path, text: str) -> None:
    write_whole(path, text.encode())
