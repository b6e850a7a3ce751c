"""Write a run's student for use elsewhere, and prove that it loads."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from omegaconf import DictConfig

from ..export import (
    compared,
    example_inputs,
    File,
    in_float,
    Integers,
    Proof,
    read_again,
    Same,
    write_formats,
    Written,
)
from ..export.formats import FLOAT32
from ..export_options import check_formats, check_quantization, OF_TORCHAO
from ..metrics import Agreement
from ..metrics.samples import Samples
from ..models.batch import batch_size, first_rows
from ..models.fake_quantization import fake_quantized
from ..models.files import check_model_files
from ..models.inputs import model_inputs
from ..models.remote_code import remote_code_is_trusted
from ..models.row_head import with_row_head
from ..models.sentence_folder import copy_sentence_folder, pooling_in, with_sentence_parts
from ..newest_run import newest_run
from ..quantization_schemes import check_torchao, Quantization
from ..run.card_of_run import config_of, forget_files, task_of_run, write_card
from ..run.of_run import directory_of
from ..run.resuming import checkpoint_folders
from ..run.rows_of_run import first_test_batch
from ..run.save import (
    ADAPTER,
    check_hugging_face,
    merged,
    processors_in,
    quantization_in,
    save_model_of_transformers,
)
from ..run.stage import say
from ..run.trial_of_search import is_trial, why_no_report
from ..sealed import check_folder, check_sealed, seal_folder
from ..students.lora import check_peft
from ..tasks import Task

log = logging.getLogger("lightning_distill")

# On so many rows exported models are compared; those in int8 on more, as their share of equal
# predictions would be coarse, if their answers have no more numbers than that.
ROWS, ROWS_OF_INT8, MOST_NUMBERS = 8, 64, 2**24


def export(
    cfg: DictConfig,
    run: str | None = None,
    checkpoint: str | None = None,
    to: str | None = None,
    formats: Sequence[str] | str = ("safetensors",),
    quantization: str | None = None,
) -> str:
    """Write a student with its configuration and processors into one folder; returns it.

    Each file is read again in a fresh process, and its logits, or whatever else the model
    returns, are compared with ours: on test rows of the run, or on made-up ones where its
    data are not there. `export.json` holds what was found, `README.md` is a model card.

    Args:
        cfg: the job's configuration.
        run: a run's directory; the newest one if `None`.
        checkpoint: of that run; its best one if `None`, its last one if it has no best.
        to: the folder to write; `export` within the run if `None`.
        formats: some of `safetensors`, `onnx` and `torch_export`.
        quantization: a scheme, such as `int8`: files of integers are written, too. A student that
            was trained with rounded weights is written so in any case.

    Raises:
        ValueError: if a file cannot be written, or does not give the same logits.
        FileNotFoundError: if the run has no checkpoint.
    """
    wanted = check_formats(formats)
    check_quantization(quantization, wanted)
    source = Path(run) if run else newest_run(holding="checkpoints")
    path = Path(checkpoint) if checkpoint else _best(source)
    scheme = _scheme(quantization, quantization_in(source / "student"))
    # Trained in float32, or with rounded weights; and what is loaded without torchao.
    trained, name = _student(source, path)
    model = in_float(trained)
    folder = Path(to) if to else source / "export"
    forget_files(folder)
    processors = _write_folder(model, source, folder, weights="safetensors" in wanted)
    config = config_of(source)
    task = task_of_run(config, model)
    batch, inputs, on = _proof(cfg, model, source, ROWS if scheme is None else ROWS_OF_INT8)
    pooling = pooling_in(folder)
    proof = Proof.of(model, inputs, on, pooling)
    integers = None
    if scheme is not None and {*OF_TORCHAO} & {*wanted}:
        integers = Integers.of(Proof.of(trained, inputs, on, pooling), scheme)
    loading = {"trusted": remote_code_is_trusted(), "model": name, "processors": processors}
    files = []
    if "safetensors" in wanted:
        # Whatever transformers returns, and nothing that is made of it.
        own = Proof.of(model, inputs, on)
        files.append(("safetensors", FLOAT32, File(folder, own.cases()[:1], loading)))
    for (kind, numbers), made in write_formats(folder, proof, wanted, scheme, integers).items():
        if kind == "safetensors":
            _write_processors(model, source, made, processors)
            own = Proof.of(trained, inputs, on)
            files.append((kind, numbers, File(made, own.cases()[:1], loading)))
            continue
        of_torchao = integers is not None and numbers == scheme and kind in OF_TORCHAO
        expected = integers.proof if integers is not None and of_torchao else proof
        files.append((kind, numbers, File(made, expected.cases(), {})))
    same = _same_predictions(task, batch)
    written = []
    for (kind, numbers, file), read in zip(files, read_again(files), strict=True):
        most = integers.most if integers is not None and kind in OF_TORCHAO else None
        written.append(compared(kind, numbers, file, read, same, most))
        say("Exported", _said(written[-1], folder, path, on))
    write_card(folder, source, path, model, config, task, proof, written, processors)
    seal_folder(folder)
    return str(folder)


def _scheme(asked: str | None, how: Quantization | None) -> str | None:
    """In which fewer bits a student is written: as it was trained, or as it is asked for.

    Raises:
        ValueError: if it was trained for others.
    """
    if how is None:
        return asked
    if asked not in (None, how.scheme.name):
        raise ValueError(
            f"The student was trained for {how.scheme.name}, and job.quantization is {asked}. "
            "Leave that out: it is written in the numbers that it was trained for."
        )
    check_torchao(f"A student that was trained for {how.scheme.name}")
    return how.scheme.name


def _said(file: Written, folder: Path, checkpoint: Path, on: str) -> str:
    same = file.same_predictions
    predicted = "" if same is None else f", {same:.1%} of the predictions are the same"
    return (
        f"{folder / file.file} from {checkpoint.name}; reloaded logits differ by "
        f"{file.difference:.1e} on {on}{predicted}; {file.latency_ms:.2f} ms for one row (median), "
        f"{file.size_mb:.2f} MB"
    )


def _student(run: Path, checkpoint: Path) -> tuple[Any, str]:
    """The student of a run with the weights of a checkpoint, and the name of its class."""
    state = _student_weights(checkpoint)
    student = run / "student"
    check_hugging_face(student)
    trusted = remote_code_is_trusted()
    check_folder(student, weights=False)
    check_model_files(student)
    config = transformers.AutoConfig.from_pretrained(student, trust_remote_code=trusted)
    name = str((config.architectures or ["none"])[0])
    found = getattr(transformers, name, None)
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise ValueError(f"{student} says its model is {name!r}, which transformers does not have.")
    made = with_sentence_parts(found(config), student, weights=False)
    made = with_row_head(made, student, weights=False)
    how = quantization_in(student)
    if how is not None:
        made = fake_quantized(made, how)
    return _with_weights(made, state, student / ADAPTER).eval(), name


def _write_folder(model: Any, run: Path, folder: Path, weights: bool) -> list[str]:
    """Write what transformers loads, its weights only if they are wanted; returns processors."""
    if weights:
        save_model_of_transformers(model, folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
    processors = processors_in(run / "student")
    _write_processors(model, run, folder, processors)
    return processors


def _write_processors(model: Any, run: Path, folder: Path, processors: Sequence[str]) -> None:
    """Write what reads the model's inputs, and how its vectors are pooled."""
    for processor in processors:
        cls = getattr(transformers, processor)
        made = cls.from_pretrained(run / "student", trust_remote_code=remote_code_is_trusted())
        made.save_pretrained(folder)
    copy_sentence_folder(run / "student", folder, model)


def _best(run: Path) -> Path:
    folders = checkpoint_folders(run)
    if not folders and is_trial(run):
        raise FileNotFoundError(why_no_report(run))
    if not folders:
        raise FileNotFoundError(f"There is no checkpoint in {run / 'checkpoints'}.")
    # Of the stage that came last.
    found = sorted(folders[-1].glob("best-*.ckpt")) or sorted(folders[-1].glob("*.ckpt"))
    return max(found, key=lambda path: path.stat().st_mtime)


def _student_weights(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint {path}.")
    check_sealed(path)
    weights = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    return {
        # torch.compile puts this part into the names.
        name.removeprefix("student.").replace("_orig_mod.", ""): value
        for name, value in weights.items()
        if name.startswith("student.")
    }


def _with_weights(model: Any, state: dict[str, torch.Tensor], adapter: Path) -> Any:
    """The model with these weights; where a student had adapters, with them in it."""
    if not (adapter / "adapter_config.json").is_file():
        model.load_state_dict(state)
        return model
    check_peft()
    import peft

    adapted = peft.get_peft_model(model, peft.PeftConfig.from_pretrained(str(adapter)))
    adapted.load_state_dict(state)
    return merged(adapted)


def _proof(
    cfg: DictConfig, model: Any, run: Path, rows: int
) -> tuple[Any, dict[str, torch.Tensor], str]:
    """Rows and what the model is given of them before and after it was written, and their name.

    There are no rows where the inputs are made up.
    """
    if directory_of(run) is None:
        return None, example_inputs(model), "a made-up row"
    try:
        whole = first_test_batch(cfg, run)
        batch = first_rows(whole, ROWS)
        tensors = _tensors(batch, model)
        with torch.no_grad():
            numbers = model(**tensors)[0][0].numel()
        if rows > ROWS and numbers * rows <= MOST_NUMBERS:
            batch = first_rows(whole, rows)
            tensors = _tensors(batch, model)
        return batch, tensors, f"{batch_size(batch)} test rows of the run"
    except Exception as error:
        # Data may be gone or need other packages by now, which does not matter to a model.
        log.info("Exported: the test rows of the run cannot be read (%s)", _line(error))
        return None, example_inputs(model), "a made-up row"


def _tensors(batch: Any, model: Any) -> dict[str, torch.Tensor]:
    found = model_inputs(batch, model)
    return {n: v.contiguous() for n, v in found.items() if isinstance(v, torch.Tensor)}


def _same_predictions(task: Task, batch: Any) -> Same | None:
    """What says how many predictions of two models are the same, as the task has it.

    `None` where there are no rows, or where predictions are no outputs of the model.
    """
    if batch is None or task.predicted_from("student", ()) is not None:
        return None

    def share(ours: Any, theirs: Any) -> float:
        metric = Agreement(task)
        found, expected = (task.predictions(dict(outputs)) for outputs in (theirs, ours))
        for samples in Samples.of(batch, found, expected, metrics=[metric], task=task):
            samples.feed(metric)
        return float(metric.compute())

    return share


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
