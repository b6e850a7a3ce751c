"""Write a student so that it loads where this package is not installed."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from safetensors.torch import save_model

from ..data.data import DataFacts
from ..models.embeddings import input_embeddings, output_embeddings
from ..models.fake_quantization import in_plain_layers, quantization_in_training
from ..models.hugging_face import saves_itself
from ..models.peft_parts import active_settings, is_adapted
from ..models.pooling import dense_of
from ..models.row_head import row_head_of, write_row_head
from ..models.sentence_folder import plain_state
from ..models.submodules import unwrapped
from ..quantization_schemes import Quantization, quantization_of
from ..sealed import seal_folder
from ..tasks import task_of

# Within a student's folder: its adapters, and how it was quantised while it was trained.
ADAPTER, ROUNDED = "adapter", "quantization.json"
# Within a run's directory: the tokenizer of a teacher that reads the texts by another one.
TEACHER_TOKENIZER = "teacher_tokenizer"
# Which files tell that a folder holds a processor of this kind.
PROCESSORS = {
    "AutoTokenizer": ("tokenizer_config.json", "tokenizer.json", "vocab.txt"),
    "AutoProcessor": ("processor_config.json",),
}
# One file is of pictures or of sound, as it says itself.
PREPROCESSOR = "preprocessor_config.json"


def check_hugging_face(folder: Path) -> None:
    """Refuse a student's folder from which only the code that made the student can load it."""
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} holds the weights of a model that is none of transformers', which only its "
            f"own class can load: safetensors.torch.load_model(model, "
            f"{str(folder / 'model.safetensors')!r}), where model is one of that class."
        )


@rank_zero_only
def save_student(model: Any, data: Any, folder: Path, with_weights: bool = True) -> None:
    """Write a Hugging Face folder (weights, configuration, processors), or plain safetensors.

    Of a model with adapters the weights have the adapters in them; alone they lie in `adapter/`.
    Of one that was trained with rounded weights these are written, in float32, and
    `quantization.json` says how they were rounded.

    Args:
        model: a Hugging Face model, or any other module.
        data: whose tokenizer, or what else the task names as its processors, goes with it.
        folder: where to; made if missing.
        with_weights: false writes all but the weights, before training, so that a checkpoint
            of a run that was cut off can still be exported.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if is_adapted(model):
        _save_adapters(model, folder / ADAPTER, with_weights)
        model = merged(model) if with_weights else unwrapped(model)
    else:
        # Weights are called as in the model itself, not as in a wrapper.
        model = unwrapped(model)
    how = quantization_in_training(model)
    _write_quantization(folder, how)
    if how is not None:
        model = in_plain_layers(model)
    if saves_itself(model):
        if with_weights:
            save_model_of_transformers(model, folder)
        else:
            config = model.config
            config.architectures = [type(model).__name__]
            config.save_pretrained(folder)
            write_row_head(folder, model, weights=False)
    elif with_weights:
        save_model(model, str(folder / "model.safetensors"))
    task, facts = task_of(data), DataFacts(data)
    for processor in facts.processors(task.processors):
        processor.save_pretrained(folder)
    if saves_itself(model):
        task.finish_folder(folder, model, facts.max_length)
    seal_folder(folder)


@rank_zero_only
def save_teacher_tokenizer(data: Any, directory: Path) -> None:
    """Write the teacher's tokenizer, if it is not the student's, so that rows can be made again.

    Rows of a language model, and the words of a tagger that count, are those that both can read.

    Args:
        data: of the run.
        directory: of the run.
    """
    own = DataFacts(data).teacher_tokenizer
    if own is None:
        # Of another run that was here before.
        shutil.rmtree(directory / TEACHER_TOKENIZER, ignore_errors=True)
    else:
        own.save_pretrained(directory / TEACHER_TOKENIZER)


def quantization_in(folder: Path) -> Quantization | None:
    """How the student of a folder was quantised while it was trained; `None` if it was not."""
    path = folder / ROUNDED
    if not path.is_file():
        return None
    return quantization_of(json.loads(path.read_text(encoding="utf-8")), str(path))


def _write_quantization(folder: Path, how: Quantization | None) -> None:
    if how is None:
        # Of another student that was here before.
        (folder / ROUNDED).unlink(missing_ok=True)
        return
    said = {"scheme": how.scheme.name, "train": how.train}
    (folder / ROUNDED).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")


def save_model_of_transformers(model: Any, folder: Path) -> None:
    """Write a model so that transformers alone loads it, and beside it its head for whole rows.

    What maps pooled vectors is left out: the task writes it.
    """
    parts = (dense_of(model), row_head_of(model))
    without = {} if parts == (None, None) else {"state_dict": plain_state(model)}
    model.save_pretrained(folder, **without)
    write_row_head(folder, model)


def processors_in(folder: Path) -> list[str]:
    """The `Auto` classes of transformers that load the processors in a folder."""
    found = [
        auto for auto, files in PROCESSORS.items() if any((folder / f).is_file() for f in files)
    ]
    if (folder / PREPROCESSOR).is_file():
        said = json.loads((folder / PREPROCESSOR).read_text(encoding="utf-8"))
        of_sound = "feature_extractor_type" in said
        found.append("AutoFeatureExtractor" if of_sound else "AutoImageProcessor")
    return found


def merged(model: Any) -> Any:
    """A copy of a model with adapters, as the plain model that gives the same answers."""
    plain = copy.deepcopy(model).merge_and_unload()
    embeddings = (input_embeddings(plain), output_embeddings(plain))
    weights = [getattr(part, "weight", None) for part in embeddings]
    if getattr(plain.config, "tie_word_embeddings", False) and weights[0] is not weights[1]:
        # One of them was trained apart; loading would make them one again.
        plain.config.tie_word_embeddings = False
    return plain


def _save_adapters(model: Any, folder: Path, with_weights: bool) -> None:
    if with_weights:
        model.save_pretrained(folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        active_settings(model).save_pretrained(folder)
