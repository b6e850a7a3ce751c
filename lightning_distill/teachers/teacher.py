"""A teacher: a frozen model, and how its answers are had."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from ..models.batch import next_rows, teacher_entries
from ..models.capture import check_layers
from ..models.configuration import configuration, label_names
from ..models.decoder_inputs import first_token
from ..models.fingerprint import fingerprint
from ..models.forward import run_model
from ..models.freeze import freeze
from ..models.inputs import call_model, input_names, model_inputs
from ..models.row_head import row_head_of
from ..models.size import parameter_count, size_mb
from ..models.source import Source
from ..models.submodules import innermost, submodules
from .answers import counts_of

SCORES = Source("teacher", "output", "logits")


@runtime_checkable
class Asker(Protocol):
    """Who asks a teacher, and may say what it is given and how it is run.

    A [`DistillationModule`][] is one, and so is a [`Teacher`][] itself.
    """

    training: bool

    def teacher_inputs(self, batch: Any) -> Any:
        """What the teacher is given for a batch."""

    def teacher_forward(self, batch: Any, **options: Any) -> Any:
        """Run the teacher; `options` ask for hidden states or attentions."""


class Teacher(nn.Module):
    """A live teacher, and what may be asked of any.

    It is in eval mode and runs under `no_grad`, whoever calls what. A [`DistillationModule`][]
    makes one of the model that it is given, and freezes it in place. A subclass of that module
    which keeps another model beside its teacher keeps it as safe by assigning `Teacher(model)`.

    Args:
        model: any module.

    Attributes:
        model: the model that is run; `None` for a teacher of which only the answers are there.
        answers_other_rows: whether in training each row of a batch is given the answer to the row
            after it. It is a control: the answers are the teacher's, and say nothing of the row.
    """

    def __init__(self, model: nn.Module | None):
        super().__init__()
        self.model = model
        self.answers_other_rows = False
        self._fingerprint: str | None = None

    @classmethod
    def of(cls, teacher: nn.Module) -> "Teacher":
        """A teacher as it is, and any other module as a live one."""
        return teacher if isinstance(teacher, Teacher) else Teacher(teacher)

    # What it is.

    @property
    def is_live(self) -> bool:
        """Whether any batch may be asked of it: nothing is kept, and no row has to come again."""
        return True

    @property
    def fingerprint(self) -> str:
        """A hash of its weights, as they are when it is first asked for, and ever after."""
        if self._fingerprint is None:
            assert self.model is not None
            self._fingerprint = fingerprint(self.model)
        return self._fingerprint

    @property
    def module_names(self) -> list[str]:
        """The paths within the model, `""` for itself."""
        assert self.model is not None
        return list(submodules(self.model))

    @property
    def input_names(self) -> list[str]:
        """The keywords that the model takes."""
        assert self.model is not None
        return input_names(self.model)

    @property
    def config(self) -> Any:
        """The configuration of a Hugging Face model; `None` of others."""
        return configuration(self.model)

    @property
    def label_names(self) -> Mapping[int, str] | Sequence[str] | None:
        """The names of its classes by their numbers, if it has any."""
        return label_names(self.model)

    @property
    def row_label_names(self) -> list[str] | None:
        """The labels of whole rows in order, if it has a head for them."""
        head = None if self.model is None else row_head_of(self.model)
        return None if head is None else head.names

    def about(self, outputs: Any = None) -> dict[str, Any]:
        """What reports and caches say of it, as plain values.

        Args:
            outputs: what it returned for a batch; without, it is not known how many tensors each
                output has.
        """
        model: Any = self.model
        names = self.label_names
        floats = (t for t in [*model.parameters(), *model.buffers()] if t.is_floating_point())
        return {
            "class": type(model).__name__,
            "path": getattr(model, "name_or_path", None) or None,
            "dtype": next((str(t.dtype)[6:] for t in floats), None),
            "quantization": getattr(model, "quantization", None),
            "fingerprint": self.fingerprint,
            "parameters": parameter_count(model),
            "size_mb": size_mb(model),
            "labels": None if names is None else _numbered(names),
            "row_labels": self.row_label_names,
            "inputs": self.input_names,
            "modules": self.module_names,
            "outputs": counts_of(outputs),
            # What a decoder beside an encoder begins with, of which rows are told.
            "decoder": first_token(model),
            # A token's logits stand where the model returns them; nothing is moved by one.
            "shift": "none",
        }

    # What it is asked.

    def teacher_inputs(self, batch: Any) -> Any:
        """What it is given of a batch; of `batch["teacher"]` if there is such an entry."""
        own = teacher_entries(batch)
        return model_inputs(batch if own is None else own, self._runs())

    def teacher_forward(self, batch: Any, **options: Any) -> Any:
        """Run it on a batch; `options` ask for hidden states or attentions."""
        return self.run(self.teacher_inputs(batch), options)

    def run(self, inputs: Any, options: Mapping[str, Any]) -> Any:
        """Run it on keywords, arguments or one tensor.

        A subclass whose answers are had in another way overrides this, and nothing else.
        """
        # A teacher within another one is asked by this alone.
        self._stay_in_eval_mode()
        return call_model(self._runs(), inputs, dict(options))

    def answers(
        self,
        batch: Any,
        sources: Sequence[Source] = (),
        asker: Asker | None = None,
        heads: str = "whole",
        keep: bool = False,
    ) -> tuple[Any, dict[Source, Any]]:
        """Its outputs for a batch, and the tensor of each source.

        Args:
            batch: as its loader gave it.
            sources: of the teacher.
            asker: who says what the teacher is given; it itself by default.
            heads: what heads do that a source names: `whole`, `skipped` or `checked`, see
                `run_model`.
            keep: let a teacher that keeps its answers keep these; false for a batch that is tried.
        """
        self._stay_in_eval_mode()
        asker = asker or self
        if self.answers_other_rows and asker.training:
            batch = next_rows(batch)
        with torch.no_grad():
            return self._answers(batch, list(sources), asker, heads, keep)

    def _answers(
        self, batch: Any, sources: list[Source], asker: Asker, heads: str, keep: bool
    ) -> tuple[Any, dict[Source, Any]]:
        """As `answers`, for subclasses: in eval mode and under `no_grad`."""
        assert self.model is not None
        return run_model(self.model, asker.teacher_forward, batch, sources, heads)

    @torch.no_grad()
    def forward(self, *args: Any, **inputs: Any) -> Any:
        """What `run` returns for arguments in the order of the model's own, or by name."""
        if not inputs:
            return self.run(args[0] if len(args) == 1 else args, {})
        return self.run({**dict(zip(self.input_names, args, strict=False)), **inputs}, {})

    def vectors_for(self, source: Source) -> Source:
        """Where its vectors are read, if metrics want those of `source` and no term reads any.

        Of a reranker these are its scores: its head returns no hidden states to pool.

        Args:
            source: of pooled vectors, as the task pools them.
        """
        name = "" if self.model is None else type(innermost(self.model)).__name__
        return SCORES if name.endswith("ForSequenceClassification") else source

    # Around a run.

    def check(self, terms: Mapping[str, Any]) -> None:
        """Refuse, before the first step, terms that ask for what it does not have.

        Args:
            terms: those of an objective, by name.

        Raises:
            ValueError: that says what it has.
        """
        if self.model is not None:
            asked = [source for term in terms.values() for source in term.sources()]
            check_layers(self.model, [source for source in asked if source.role == "teacher"])

    def check_precision(self, precision: str) -> None:
        """Refuse a training whose precision is not that of answers which are kept.

        Args:
            precision: the trainer's, such as `bf16-mixed`.

        Raises:
            ValueError: that names both.
        """

    def begin(self, rank: int, barrier: Callable[[], None], precision: str) -> None:
        """Called on every rank when a loop begins, before the first batch.

        Args:
            rank: of this process.
            barrier: returns when all ranks have called it.
            precision: the trainer's, such as `bf16-mixed`.

        Raises:
            ValueError: if answers that are kept are not of this teacher and this precision.
        """

    def end_epoch(self, barrier: Callable[[], None]) -> None:
        """Called on every rank at the end of each epoch.

        Args:
            barrier: returns when all ranks have called it.
        """

    def end(self, barrier: Callable[[], None]) -> None:
        """Called on every rank when a loop that began has ended.

        Args:
            barrier: returns when all ranks have called it.
        """

    def _runs(self) -> nn.Module:
        """What is called with inputs: the model, or what stands for it."""
        return self if self.model is None else self.model

    # It is never touched.

    def freeze(self) -> None:
        """Let nothing train it, nor what else a subclass keeps."""
        freeze(self)

    def train(self, mode: bool = True) -> "Teacher":
        """It stays in eval mode."""
        super().train(False)
        return self

    def settle(self, device: torch.device) -> None:
        """Go to a device, and into eval mode."""
        # Not where it is there already: quantised weights cannot be put back in inference mode.
        if any(p.device != device for p in self.parameters()):
            self.to(device)
        self.eval()

    def _stay_in_eval_mode(self) -> None:
        # Someone may have called `train()` on the model itself.
        if self.model is not None and self.model.training:
            self.eval()


def _numbered(names: Mapping[int, str] | Sequence[str]) -> dict[str, str]:
    pairs = names.items() if isinstance(names, Mapping) else enumerate(names)
    return {str(number): str(name) for number, name in pairs}
