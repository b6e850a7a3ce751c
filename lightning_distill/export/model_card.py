"""The model card of an exported student, made of the files of its run and of nothing else."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..export_options import OF_TORCHAO
from .formats import Written

# A name on the Hugging Face hub; a folder has more slashes, or is here.
ON_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")
CONFIG, REPORT, RECORD, EXPORT = "config.yaml", "report.json", "run.json", "export.json"


@dataclass
class Facts:
    """What a card is made of.

    Attributes:
        name: of the model's class.
        task: its name.
        config: of the run, `config.yaml`.
        report: of the run, `report.json`; `None` where it has none.
        record: of the run, `run.json`; empty where it has none.
        checkpoint: the name of the file that the weights come from.
        files: what was written, in the order of the formats.
        inputs: names of the model's inputs.
        outputs: names of what files of other formats than safetensors return.
        versions: of the libraries that wrote it, by name.
        pipeline_tag: what the hub calls the task; `None` where it has no word for it.
        auto_class: the `Auto` class of transformers that loads it.
        processors: the `Auto` classes that load what reads its inputs.
        folders: paths of the configuration that are folders, and so no names on the hub.
    """

    name: str
    task: str
    config: Mapping[str, Any]
    report: Mapping[str, Any] | None
    record: Mapping[str, Any]
    checkpoint: str
    files: Sequence[Written]
    inputs: Sequence[str]
    outputs: Sequence[str]
    versions: Mapping[str, str]
    pipeline_tag: str | None = None
    auto_class: str = "AutoModel"
    processors: Sequence[str] = ()
    folders: Sequence[str] = ()


def model_card(facts: Facts) -> str:
    """The text of `README.md`, in the format of the Hugging Face hub.

    Every figure says the file of the run that it comes from. No licence is named, as none of the
    files says one.

    Args:
        facts: what is known.
    """
    parts = [
        *_front_matter(facts),
        f"# {facts.name}",
        "",
        *_about(facts),
        "",
        *_figures(facts),
        "",
        *_training(facts),
        "",
        *_files(facts),
        "",
        *_loading(facts),
        "",
        f"Versions (`{EXPORT}`): {', '.join(f'{n} {v}' for n, v in facts.versions.items())}.",
    ]
    return "\n".join(parts) + "\n"


def _front_matter(facts: Facts) -> Iterator[str]:
    yield "---"
    yield "library_name: transformers"
    if facts.pipeline_tag is not None:
        yield f"pipeline_tag: {facts.pipeline_tag}"
    base = _base_model(facts)
    if base is not None:
        yield f"base_model: {base}"
    yield "tags:"
    yield "- knowledge-distillation"
    yield from ("---", "")


def _base_model(facts: Facts) -> str | None:
    """The name on the hub of the model that the student was made of, if it has one."""
    student, teacher = (facts.config.get(role) or {} for role in ("student", "teacher"))
    made_of = student.get("path")
    if made_of is None and str(student.get("_target_", "")).endswith("from_teacher"):
        made_of = teacher.get("path")
    return made_of if _is_on_hub(made_of, facts) else None


def _is_on_hub(path: Any, facts: Facts) -> bool:
    return isinstance(path, str) and path not in facts.folders and bool(ON_HUB.fullmatch(path))


def _named(node: Mapping[str, Any], facts: Facts) -> str:
    """A model of the configuration; of folders only the last part, as they are somebody's own."""
    path = node.get("path") or node.get("name")
    made = f"`{str(node.get('_target_', '')).rpartition('.')[2]}`"
    if not isinstance(path, str):
        return made
    if _is_on_hub(path, facts):
        return f"{made} of `{path}`"
    parts = [part for part in path.split("/") if part not in ("", ".", "..", "~")]
    return f"{made} of the folder `{'/'.join(parts[-2:])}`"


def _about(facts: Facts) -> Iterator[str]:
    config = facts.config
    yield f"A model for the task `{facts.task}`, written from the checkpoint"
    yield f"`{facts.checkpoint}` of a run of lightning_distill."
    yield ""
    for role in ("teacher", "student"):
        node = config.get(role)
        if isinstance(node, Mapping):
            yield f"- {role}: {_named(node, facts)} (`{CONFIG}`)"
        else:
            yield f"- {role}: none (`{CONFIG}`)"
    data = config.get("data")
    if isinstance(data, Mapping):
        yield f"- data: `{str(data.get('_target_', '')).rpartition('.')[2]}` (`{CONFIG}`)"


def _figures(facts: Facts) -> Iterator[str]:
    yield "## Results on the test rows"
    yield ""
    report = facts.report
    if report is None:
        yield (
            f"The run has no `{REPORT}`: it was stopped, or failed, before it was tested. Nothing "
            "was measured."
        )
        return
    models = ("teacher", "baseline", "control", "student")
    rows = [row for name in models if (row := report.get(name))]
    names = list(dict.fromkeys([report["metric"], *(n for row in rows for n in row["metrics"])]))
    heads = ["", "parameters", *names, "agreement with the teacher"]
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    for row in rows:
        values = [row["metrics"].get(name) for name in names] + [row.get("agreement")]
        shown = ["" if value is None else f"{value:.4f}" for value in values]
        yield "| " + " | ".join([row["name"], f"{row['parameters']:,}", *shown]) + " |"
    yield ""
    higher = "more" if report["higher_is_better"] else "less"
    yield f"All of it is of `{REPORT}`. `{report['metric']}` decides, and {higher} is better."
    if report.get("gap_closed") is not None:
        yield f"The share of the gap to the teacher that is closed is {report['gap_closed']:.4f}."
    yield "It is one run, and one run is one sample."
    if "best" not in facts.checkpoint:
        yield f"The weights are of `{facts.checkpoint}`, and may be others than those measured."


def _training(facts: Facts) -> Iterator[str]:
    yield "## Training"
    yield ""
    config = facts.config
    for name, value in ((facts.report or {}).get("facts") or {}).items():
        yield f"- {name}: {value} (`{REPORT}`)"
    if facts.report is None:
        yield f"- seed: {config.get('seed')} (`{CONFIG}`)"
    terms = config.get("criteria") or {}
    for name, term in terms.items():
        settings = dict(_settings(term)) if isinstance(term, Mapping) else {}
        shown = ", ".join(f"{key}={value}" for key, value in settings.items())
        yield f"- criterion `{name}`: {shown or 'as it is by default'} (`{CONFIG}`)"
    for group in ("optimizer", "trainer"):
        node = config.get(group) or {}
        names = ("lr", "weight_decay", "max_epochs", "max_steps", "precision")
        shown = ", ".join(f"{n}={node[n]}" for n in names if node.get(n) not in (None, -1))
        if shown:
            yield f"- {group}: {str(node.get('_target_')).rpartition('.')[2]}, {shown} (`{CONFIG}`)"
    typed = facts.record.get("typed")
    if not isinstance(typed, Mapping):
        yield f"- The run has no `{RECORD}`, so nothing says what was typed."
    elif typed.get("seed") is not None:
        yield f"- seed, as it was typed: {typed['seed']} (`{RECORD}`)"


def _settings(node: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """Numbers, words and truth values of a term; not what it reads, which names no setting."""
    for key, value in node.items():
        if key in ("inputs", "_target_", "_partial_") or value is None:
            continue
        if isinstance(value, Mapping):
            yield from _settings(value, f"{key}." if key != "criterion" else within)
        elif isinstance(value, bool | int | float) or (isinstance(value, str) and "$" not in value):
            yield f"{within}{key}", value


def _files(facts: Facts) -> Iterator[str]:
    yield "## Files"
    yield ""
    yield (
        f"Each was read again by a process without lightning_distill (`{EXPORT}`). The difference "
        "is the largest of any number that it returns."
    )
    yield ""
    heads = ("file", "MB", "ms for one row", "difference", "same predictions")
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    for file in facts.files:
        same = "" if file.same_predictions is None else f"{file.same_predictions:.4f}"
        cells = (f"`{file.file}`", f"{file.size_mb:.2f}", f"{file.latency_ms:.2f}")
        yield "| " + " | ".join([*cells, f"{file.difference:.1e}", same]) + " |"


def _loading(facts: Facts) -> Iterator[str]:
    yield "## How to load it"
    kinds = {file.format for file in facts.files}
    readers = [f"{name}.from_pretrained(FOLDER)" for name in facts.processors]
    if "safetensors" in kinds:
        imported = ", ".join([facts.auto_class, *facts.processors])
        yield from ("", "```python", f"from transformers import {imported}", "")
        yield f"model = {facts.auto_class}.from_pretrained(FOLDER)"
        yield from (f"processor = {reader}" for reader in readers)
        yield "```"
    given = ", ".join(f'"{name}": {name}' for name in facts.inputs)
    returned = ", ".join(facts.outputs)
    if "onnx" in kinds:
        yield from ("", "```python", "import onnxruntime", "")
        yield 'session = onnxruntime.InferenceSession("FOLDER/model.onnx")'
        yield f"# Arrays of numpy; it returns {returned}."
        yield f"found = session.run(None, {{{given}}})"
        yield "```"
    if "torch_export" in kinds:
        yield from ("", "```python", "import torch", "")
        yield 'model = torch.export.load("FOLDER/model.pt2").module()'
        yield f"# Tensors; it returns a dict of {returned}."
        yield f"found = model({', '.join(f'{name}={name}' for name in facts.inputs)})"
        yield "```"
    smaller = [file for file in facts.files if file.numbers != "float32"]
    if smaller:
        yield ""
        yield f"The files with `{smaller[0].numbers}` in their names are loaded in the same way."
    for file in smaller:
        if file.format in OF_TORCHAO:
            yield f"`{file.file}` needs the package torchao."
