"""Write a run's student for use elsewhere, and prove that it loads."""

import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from omegaconf import DictConfig
from safetensors.torch import save_file

from ..models.batch import batch_size, first_rows
from ..models.configuration import configured, configured_text, is_encoder_decoder
from ..models.embeddings import generates
from ..models.files import check_model_files
from ..models.inputs import model_inputs
from ..models.remote_code import remote_code_is_trusted
from ..models.row_head import with_row_head
from ..models.sentence_folder import copy_sentence_folder, with_sentence_parts
from ..models.signature import accepts
from ..newest_run import newest_run
from ..run.of_run import directory_of
from ..run.resuming import checkpoint_folders
from ..run.rows_of_run import first_test_batch
from ..run.save import (
    ADAPTER,
    check_hugging_face,
    merged,
    processors_in,
    save_model_of_transformers,
)
from ..run.stage import say
from ..sealed import check_folder, check_sealed, seal_folder
from ..students.lora import check_peft

log = logging.getLogger("lightning_distill")

# On so many rows the exported model is compared.
ROWS = 8
# Runs in a fresh process that knows nothing of this package.
_RELOAD = """
import json, sys
import torch, transformers
from safetensors.torch import load_file
folder, inputs, trusted, name, *processors = sys.argv[1:]
for processor in processors:
    getattr(transformers, processor).from_pretrained(folder, trust_remote_code=trusted == "True")
model = getattr(transformers, name).from_pretrained(folder, dtype="auto").eval()
stored = load_file(inputs)
expected = stored.pop("expected")
with torch.no_grad():
    found = model(**stored)[0]
assert "lightning_distill" not in sys.modules
print(json.dumps({"difference": float((found.float() - expected).abs().max())}))
"""


def export(
    cfg: DictConfig, run: str | None = None, checkpoint: str | None = None, to: str | None = None
) -> str:
    """Write weights (safetensors), configuration and processors into one folder; returns it.

    The folder is loaded again in a fresh process, and its logits, or whatever else the model
    returns first, are compared with ours: on test rows of the run, or on made-up ones where its
    data are not there.

    Args:
        cfg: the job's configuration.
        run: a run's directory; the newest one if `None`.
        checkpoint: of that run; its best one if `None`, its last one if it has no best.
        to: the folder to write; `export` within the run if `None`.

    Raises:
        ValueError: if the reloaded model does not give the same logits.
        FileNotFoundError: if the run has no checkpoint.
    """
    source = Path(run) if run else newest_run(holding="checkpoints")
    path = Path(checkpoint) if checkpoint else _best(source)
    state = _student_weights(path)
    check_hugging_face(source / "student")
    trusted = remote_code_is_trusted()
    check_folder(source / "student", weights=False)
    check_model_files(source / "student")
    config = transformers.AutoConfig.from_pretrained(source / "student", trust_remote_code=trusted)
    name = str((config.architectures or ["none"])[0])
    found = getattr(transformers, name, None)
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        raise ValueError(
            f"{source / 'student'} says its model is {name!r}, which transformers does not have."
        )
    made = with_sentence_parts(found(config), source / "student", weights=False)
    made = with_row_head(made, source / "student", weights=False)
    model = _with_weights(made, state, source / "student" / ADAPTER)
    model.eval()
    folder = Path(to) if to else source / "export"
    save_model_of_transformers(model, folder)
    processors = processors_in(source / "student")
    for processor in processors:
        cls = getattr(transformers, processor)
        made = cls.from_pretrained(source / "student", trust_remote_code=trusted)
        made.save_pretrained(folder)
    copy_sentence_folder(source / "student", folder, model)
    seal_folder(folder)
    inputs, on = _proof(cfg, model, source)
    names = [str(trusted), name, *processors]
    difference = _difference_in_a_fresh_process(model, folder, inputs, names)
    if difference > 1e-5:
        raise ValueError(
            f"The model in {folder} loads, but its logits differ by {difference:.3g} from the "
            f"checkpoint's. The folder is left for you to look at."
        )
    say(
        "Exported", f"{folder} from {path.name}; reloaded logits differ by {difference:.1e} on {on}"
    )
    return str(folder)


def _best(run: Path) -> Path:
    folders = checkpoint_folders(run)
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


def example_inputs(model: Any) -> dict[str, torch.Tensor]:
    """One row of what a model of transformers reads: tokens, a picture, or a sound.

    A model with an encoder and a decoder is also given the first tokens of what it writes.

    Raises:
        ValueError: for a model that reads something else.
    """
    name = model.main_input_name
    known = min(configured_text(model, "vocab_size") or 1, 1000)
    ids = torch.arange(1, known)[:32].reshape(1, -1)
    writes = is_encoder_decoder(model) and generates(model) and accepts(model, "decoder_input_ids")
    written = {"decoder_input_ids": ids[:, :8]} if writes else {}
    if name == "input_ids":
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **written}
    bins, places = configured(model, "num_mel_bins"), configured(model, "max_source_positions")
    if name == "input_features" and bins and places:
        # As Whisper reads: its first layers halve the time.
        generator = torch.Generator().manual_seed(0)
        return {name: torch.rand((1, bins, 2 * places), generator=generator), **written}
    if name == "pixel_values":
        size = configured(model, "image_size") or 224
        height, width = size if isinstance(size, list | tuple) else (size, size)
        shape = (1, configured(model, "num_channels") or 3, height, width)
        values = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        return {"pixel_values": values, **written}
    raise ValueError(
        f"job=export compares what {type(model).__name__} returns before and after it was written, "
        f"for tokens, pictures or spectrograms, and this model reads {name!r}. Save it by its "
        "save_pretrained; the weights are in the run's student/."
    )


def _proof(cfg: DictConfig, model: Any, run: Path) -> tuple[dict[str, torch.Tensor], str]:
    """What the model is given before and after it was written, and what that is."""
    if directory_of(run) is None:
        return example_inputs(model), "a made-up row"
    try:
        batch = first_rows(first_test_batch(cfg, run), ROWS)
        found = model_inputs(batch, model)
        tensors = {n: v.contiguous() for n, v in found.items() if isinstance(v, torch.Tensor)}
        with torch.no_grad():
            model(**tensors)
        return tensors, f"{batch_size(batch)} test rows of the run"
    except Exception as error:
        # Data may be gone or need other packages by now, which does not matter to a model.
        log.info("Exported: the test rows of the run cannot be read (%s)", _line(error))
        return example_inputs(model), "a made-up row"


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _difference_in_a_fresh_process(
    model: Any, folder: Path, inputs: dict[str, torch.Tensor], names: Sequence[str]
) -> float:
    with torch.no_grad():
        inputs = {**inputs, "expected": model(**inputs)[0].float().contiguous()}
    with tempfile.TemporaryDirectory() as scratch:
        stored = Path(scratch) / "inputs.safetensors"
        save_file(inputs, stored)
        done = subprocess.run(
            [sys.executable, "-c", _RELOAD, str(folder.absolute()), str(stored), *names],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=scratch,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    if done.returncode:
        raise ValueError(f"The model in {folder} does not load: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])["difference"]
