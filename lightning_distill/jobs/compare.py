"""Does the teacher help? Runs over several seeds, in one table and one word."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from ..check_values import check_number
from ..extras import check_extra
from ..newest_run import runs_in
from ..report import best_rates, Run, run_of, SeedComparison, settings_of
from ..run.compared_runs import check_runs, train_runs
from ..run.resuming import why_not_ended
from ..run.stage import say
from .distill import distill

SWEEPS = Path("runs") / "sweep"
# Of a run, with its configuration as it was composed.
RECORD = "run.json"
# What makes no other setting.
BESIDE = ("seed", "resume", "output_dir", "hydra")


def compare(
    cfg: DictConfig,
    runs: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] | None = None,
    learning_rates: Sequence[float] | None = None,
    control: bool = True,
    alpha: float = 0.05,
    least_gain: float = 0.0,
) -> SeedComparison:
    """Compare students with and without a teacher over the seeds of runs.

    Writes `compare.json`, `compare.md` and `compare.png`. With `seeds` it trains the runs itself,
    into `runs/`, and goes on with `resume` where it was cut off.

    Args:
        cfg: the job's configuration; of runs that have ended only its directory is used.
        runs: folders of runs, or folders with runs in them; the newest sweep if `None`.
        seeds: which to train, or how many, from that of `cfg` on; `None` trains nothing.
        learning_rates: with `seeds`, what each student is trained with; the best on the validation
            rows counts, for each kind of student by itself. `None` is the rate of `cfg`.
        control: with `seeds`, whether a third student is taught the answers to other rows.
        alpha: how often chance may look like help.
        least_gain: the least gain that is worth anything, in units of the metric; with one, a
            comparison can say that the teacher does not help.

    Raises:
        FileNotFoundError: if there are no finished runs.
        ValueError: for runs that cannot be compared, before the first of them is trained.
    """
    check_extra("job=compare", "compare", "scipy")
    check_number("job.alpha", alpha, above=0, most=0.5, required=True)
    check_number("job.least_gain", least_gain, least=0, required=True)
    if seeds is None:
        found = _finished(_folders(runs))
    else:
        rates = _rates(cfg, learning_rates)
        found = _trained(cfg, runs, _seeds(cfg, seeds), rates, control)
    comparison = SeedComparison(settings_of(found), alpha, least_gain)
    _write(comparison, Path(str(cfg.output_dir)))
    return comparison


def _trained(
    cfg: DictConfig,
    runs: str | Sequence[str] | None,
    seeds: Sequence[int],
    rates: Sequence[float] | None,
    control: bool,
) -> list[Run]:
    if runs is not None:
        raise ValueError(
            "job.seeds trains runs, and job.runs names some that have ended: give one of them."
        )
    check_runs(cfg)
    folders = train_runs(cfg, seeds, rates, control, partial(distill, show=False))
    found = {rate: [_read(folder) for folder in own] for rate, own in folders.items()}
    if rates is None:
        return found[None]
    return best_rates({float(rate or 0): own for rate, own in found.items()})


def _seeds(cfg: DictConfig, seeds: int | Sequence[int]) -> list[int]:
    if not isinstance(seeds, int):
        for seed in seeds:
            check_number("job.seeds", seed, whole=True, least=0, required=True)
        if len(set(seeds)) < len(seeds) or not seeds:
            raise ValueError(f"`job.seeds` must be seeds that differ, got {list(seeds)}.")
        return list(seeds)
    check_number("job.seeds", seeds, whole=True, least=1, required=True)
    return [int(cfg.seed) + i for i in range(seeds)]


def _rates(cfg: DictConfig, rates: Sequence[float] | None) -> list[float] | None:
    if rates is None:
        return None
    own = [OmegaConf.select(stage, "optimizer.lr") for stage in cfg.get("stages") or ()]
    if own and None not in own:
        raise ValueError(
            f"Each of the stages has a learning rate of its own ({', '.join(map(str, own))}), so "
            "job.learning_rates would change nothing of the distilled student. Leave it out, or "
            "leave optimizer.lr out of a stage."
        )
    found = [rates] if isinstance(rates, int | float) else list(rates)
    for rate in found:
        check_number("job.learning_rates", rate, above=0, required=True)
    if len(set(found)) < len(found) or not found:
        raise ValueError(f"`job.learning_rates` must be rates that differ, got {found}.")
    return [float(rate) for rate in found]


@rank_zero_only
def _write(comparison: SeedComparison, directory: Path) -> None:
    comparison.show()
    comparison.save(directory)
    say("Written", f"{directory}: compare.json, compare.md, compare.png")


def _folders(runs: str | Sequence[str] | None) -> list[Path]:
    if runs is None:
        sweeps = sorted(SWEEPS.glob("*"), key=lambda path: path.stat().st_mtime)
        if not sweeps:
            raise FileNotFoundError(
                f"There is no sweep in {SWEEPS.absolute()}. Make one, as in `lightning-distill -m "
                "seed=0,1,2,3,4`, or name runs: job.runs=[DIR,DIR,...]."
            )
        return [sweeps[-1]]
    folders = [Path(name) for name in ([runs] if isinstance(runs, str) else runs)]
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"`job.runs` names {folder}, and there is no such folder.")
    return folders


def _finished(folders: Sequence[Path]) -> list[Run]:
    there = dict.fromkeys(path for folder in folders for path in runs_in(folder))
    paths = [path for path in there if _distils(path)]
    whole = [path for path in paths if (path / "report.json").is_file()]
    for path in paths:
        if path not in whole:
            say("Left out", why_not_ended(path))
    if not whole:
        raise FileNotFoundError(
            f"There is no finished run of job=distill in {', '.join(map(str, folders))}. Make "
            "some, as in `lightning-distill -m seed=0,1,2,3,4`."
        )
    return [_read(path) for path in whole]


def _composed(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / RECORD).read_text(encoding="utf-8"))["typed"]
    return found


def _distils(path: Path) -> bool:
    """Whether it is a run of job=distill; the others compare nothing."""
    target = _composed(path)["job"]["_target_"] if (path / RECORD).is_file() else ""
    return str(target).endswith(".distill")


def _read(path: Path) -> Run:
    composed = _composed(path)
    setting = {key: value for key, value in composed.items() if key not in BESIDE}
    return run_of(path, int(composed["seed"]), setting)
