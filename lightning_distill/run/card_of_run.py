"""The model card of an export, from the files of its run."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..export import Facts, FORMATS, model_card, Proof, Written
from ..newest_run import CONFIG
from ..quantization_schemes import SCHEMES
from ..read_config import check_expansion, read_config
from ..tasks import Task, task_named, task_of_architecture, TASKS
from .resuming import record_of
from .versions import versions_here

REPORT, FOUND = "report.json", "export.json"
# Only where files were written by them.
OF_FORMATS = ("onnx", "onnxruntime", "onnxscript", "torchao")


def config_of(run: Path) -> dict[str, Any]:
    """The configuration of a run as plain values, with what they refer to where that is known."""
    if not (run / CONFIG).is_file():
        return {}
    cfg = read_config(run / CONFIG)
    check_expansion(cfg)
    return _plain(cfg, OmegaConf.to_container(cfg))


def _plain(cfg: DictConfig, value: Any, path: str = "") -> Any:
    if isinstance(value, dict):
        return {k: _plain(cfg, v, f"{path}.{k}".lstrip(".")) for k, v in value.items()}
    if not isinstance(value, str) or "${" not in value:
        return value
    try:
        return OmegaConf.select(cfg, path)
    except OmegaConfBaseException:
        # What another program of the run's would say of it.
        return None


def task_of_run(config: dict[str, Any], model: Any) -> Task:
    """The task of a run: by its name, or by the class of its model where that is none of ours."""
    name = config.get("task")
    if isinstance(name, str) and name in [task.name for task in TASKS]:
        return task_named(name)
    return task_of_architecture(type(model).__name__, model.config.problem_type)


def versions(files: Sequence[Written]) -> dict[str, str]:
    """The versions of Python and of the libraries that wrote these files."""
    others = any((file.format, file.numbers) != ("safetensors", "float32") for file in files)
    return versions_here(OF_FORMATS if others else ())


def forget_files(folder: Path) -> None:
    """Remove the files of models of an earlier export; beside new ones they would be taken for one.

    Args:
        folder: any; only what `export.json` lists is removed.
    """
    path = folder / FOUND
    if not path.is_file():
        return
    known = {kind.name(n) for kind in FORMATS.values() for n in ("float32", *SCHEMES)}
    for file in json.loads(path.read_text(encoding="utf-8")).get("files", ()):
        if file.get("file") not in known:
            continue
        written = folder / file["file"]
        written.unlink(missing_ok=True)
        written.with_name(f"{written.name}.data").unlink(missing_ok=True)
        if written.parent != folder:
            # A scheme's own folder, with what loads its weights.
            shutil.rmtree(written.parent, ignore_errors=True)
    path.unlink()


def write_card(
    folder: Path,
    run: Path,
    checkpoint: Path,
    model: Any,
    config: dict[str, Any],
    task: Task,
    proof: Proof,
    files: Sequence[Written],
    processors: Sequence[str] = (),
) -> None:
    """Write `README.md` and `export.json` beside an exported model.

    Args:
        folder: that holds it.
        run: the directory of its run.
        checkpoint: that the weights come from.
        model: that was written.
        config: of the run.
        task: of the run.
        proof: on what it was compared.
        files: what was found of each file.
        processors: the `Auto` classes that load what reads its inputs.
    """
    architecture = type(model).__name__
    used = versions(files)
    report = run / REPORT
    found = {
        "checkpoint": checkpoint.name,
        "compared_on": proof.on,
        "threads": torch.get_num_threads(),
        "files": [asdict(file) for file in files],
        "versions": used,
    }
    (folder / FOUND).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    facts = Facts(
        name=architecture,
        task=task.name,
        config=config,
        report=json.loads(report.read_text(encoding="utf-8")) if report.is_file() else None,
        record=record_of(run),
        checkpoint=checkpoint.name,
        files=files,
        inputs=proof.plain.names,
        outputs=tuple(proof.answers),
        versions=used,
        pipeline_tag=task.pipeline_tag(architecture),
        auto_class=task.auto_class(architecture),
        processors=processors,
        folders=[path for path in _paths(config) if Path(path).expanduser().exists()],
    )
    (folder / "README.md").write_text(model_card(facts), encoding="utf-8")


def _paths(config: dict[str, Any]) -> list[str]:
    nodes = [config.get(role) for role in ("student", "teacher")]
    return [str(node["path"]) for node in nodes if isinstance(node, dict) and node.get("path")]
