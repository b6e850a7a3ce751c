"""What labels mean: the questions that models, metrics, masks, data and jobs ask of a task."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import nn, Tensor

from ..criteria import HardLabel
from ..models.batch import entry
from ..models.capture import read
from ..models.source import Source
from ..objective.term import Term, Terms
from .labels import UNLABELLED

LOGITS = Source("student", "output", "logits")
PADDING = Source("batch", "output", "attention_mask", optional=True)
# Of whole rows, where these have a label beside those of their words.
ROW_LOGITS = Source("student", "pooled", "cls,row_head")
ROW_LABELS = Source("batch", "output", "row_labels")
# What the Hugging Face hub calls the task of an `Auto` class. Models that write from a source
# translate, sum up or do something else, which their class does not say.
ON_THE_HUB = {
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForImageClassification": "image-classification",
    "AutoModelForAudioClassification": "audio-classification",
    "AutoModelForVideoClassification": "video-classification",
    "AutoModelForTokenClassification": "token-classification",
    "AutoModelForQuestionAnswering": "question-answering",
    "AutoModelForMaskedLM": "fill-mask",
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForSpeechSeq2Seq": "automatic-speech-recognition",
    "AutoModelForSemanticSegmentation": "image-segmentation",
}


class Task:
    """What labels mean, and what follows from it; the base is one class of many for each row.

    A task of your own is a subclass that is named by `_target_`, as in
    `data.task={_target_: mine.MyTask}`, or given in Python as `task=mine.MyTask()`. Override what
    differs; everything has a default.

    Attributes:
        name: on the command line and in errors.
        heads: from endings of the names of model classes that serve the task to the `Auto` class
            of transformers that loads them; the first is the default.
        problem_type: what transformers calls the task in a model's configuration.
        peft_task: what peft calls it; with it the head is trained whole beside adapters.
        label_kind: which loss of [`HardLabel`][lightning_distill.criteria.HardLabel].
        metrics: names of the metrics by default, those in `conf/metrics`; the first is monitored.
        criteria: names of the terms by default, those in `conf/criteria`.
        row_metrics: those that are added where whole rows have a label beside those of their words.
        row_criteria: the same of terms.
        measured_by: how the names of metric classes or of their modules begin that are meant for
            this task; `None` takes every metric.
        processors: attributes of a data module that are saved with a student, where it has them.
        has_softmax: whether a softmax over the last dimension of the logits means anything.
        has_names: whether labels are classes with names.
        per_token: whether each token has a label, and not each row.
        label_of: what has a label: a `text`, its `words` or `tokens`, an `answer` in it, its
            `candidates`, or `pixels`. A data module of texts reads tasks of one of these.
        masked_by_labels: whether what has no label does not count in terms that read labels.
        needs_head: whether a model has a head for the task, and is not a body alone.
        one_width: whether student and teacher must predict equally many numbers.
        entries: entries of a batch that `measured` reads.
        predicts_ids: whether the classes are the ids of the vocabulary, so that heads need not know
            how many labels there are.
        predicts_next: whether the label of a position is the token that follows it.
        fixed_classes: whether a class is the same for every row, and not a place in it.
        reads_pairs: whether a model reads the first text of a row and another one as one text.
        reads_source: whether texts are written from a source that an encoder reads, and do not go
            on with what the model has read.
    """

    name: ClassVar[str] = "task"
    heads: ClassVar[Mapping[str, str]] = {
        "ForSequenceClassification": "AutoModelForSequenceClassification",
        "ForImageClassification": "AutoModelForImageClassification",
        "ForAudioClassification": "AutoModelForAudioClassification",
        "ForVideoClassification": "AutoModelForVideoClassification",
    }
    problem_type: ClassVar[str | None] = None
    peft_task: ClassVar[str | None] = "SEQ_CLS"
    label_kind: ClassVar[str] = "cross_entropy"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "agreement")
    criteria: ClassVar[tuple[str, ...]] = ("hard_label", "soft_target")
    row_metrics: ClassVar[tuple[str, ...]] = ("row_accuracy", "row_agreement")
    row_criteria: ClassVar[tuple[str, ...]] = ("row_label", "row_soft_target")
    measured_by: ClassVar[tuple[str, ...] | None] = None
    processors: ClassVar[tuple[str, ...]] = ("tokenizer", "processor", "image_processor")
    has_softmax: ClassVar[bool] = True
    has_names: ClassVar[bool] = True
    per_token: ClassVar[bool] = False
    label_of: ClassVar[str] = "text"
    masked_by_labels: ClassVar[bool] = True
    predicts_ids: ClassVar[bool] = False
    needs_head: ClassVar[bool] = True
    one_width: ClassVar[bool] = True
    entries: ClassVar[tuple[str, ...]] = ()
    predicts_next: ClassVar[bool] = False
    fixed_classes: ClassVar[bool] = True
    reads_pairs: ClassVar[bool] = False
    reads_source: ClassVar[bool] = False

    @property
    def writes_texts(self) -> bool:
        """Whether a model may write texts, a token after the other."""
        return self.predicts_ids and (self.predicts_next or self.reads_source)

    # Models.

    def auto_class(self, architecture: str | None = None) -> str:
        """The `Auto` class of transformers that loads a model for this task.

        Args:
            architecture: the name of the model's class, as its configuration has it.
        """
        endings = [end for end in self.heads if architecture and architecture.endswith(end)]
        # The longest says most.
        return self.heads[max(endings, key=len)] if endings else next(iter(self.heads.values()))

    def pipeline_tag(self, architecture: str | None = None) -> str | None:
        """What the Hugging Face hub calls the task, for a model card; `None` without a word for it.

        Args:
            architecture: the name of the model's class.
        """
        return ON_THE_HUB.get(self.auto_class(architecture))

    def serves(self, architecture: str) -> bool:
        """Whether a class of transformers has a head for this task."""
        return any(architecture.endswith(ending) for ending in self.heads)

    def config_fields(self, default: Any) -> dict[str, Any]:
        """Fields of a fresh model's configuration that the task needs.

        Args:
            default: the configuration with its own values.
        """
        return {}

    def write_labels(self, config: Any, num_labels: int | None, names: Any = None) -> None:
        """Write number and names of the labels, and the kind of problem, into a configuration.

        Args:
            config: of a model of transformers; changed in place.
            num_labels: how many labels there are.
            names: of all labels in order, if they have any.

        Raises:
            ValueError: if names and number do not fit.
        """
        if names and len(names) != num_labels:
            raise ValueError(f"There are {num_labels} labels, but {len(names)} names for them.")
        config.num_labels = num_labels
        config.problem_type = self.problem_type
        if names:
            config.id2label = {i: str(name) for i, name in enumerate(names)}
            config.label2id = {str(name): i for i, name in enumerate(names)}

    def settle(self, model: nn.Module) -> None:
        """Freeze what of a model the task never reads, before it is trained."""

    def check_folder(self, folder: Path, role: str) -> None:
        """Say what of a model's folder does not fit the task.

        Args:
            folder: that the model was loaded from.
            role: `student` or `teacher`.
        """

    def finish_folder(self, folder: Path, model: Any, max_length: int | None) -> None:
        """Write beside a saved model what other libraries need to use it for the task.

        Args:
            folder: that holds the model and its processors.
            model: that was saved, of transformers.
            max_length: of a row, in tokens, where the data says it.
        """

    def check_candidates(self, most: int) -> None:
        """Say what of the numbers of candidates does not fit the task.

        Args:
            most: that any training row has.
        """

    # What is learnt.

    def terms(self, terms: Mapping[str, Any]) -> dict[str, Any]:
        """The terms of an objective as this task learns them, by name.

        Args:
            terms: as they are configured; each reads predictions as `logits`.
        """
        return dict(terms)

    def label_term(self, model: nn.Module, label_smoothing: float = 0.0) -> Terms:
        """What a model learns of labels alone.

        Args:
            model: which will learn.
            label_smoothing: see [`HardLabel`][lightning_distill.criteria.HardLabel].
        """
        inputs = {"student": "student.logits", "labels": "batch.labels"}
        return Term(HardLabel(self.label_kind, label_smoothing), inputs)

    def row_term(self, label_smoothing: float = 0.0) -> Term:
        """What a model learns of labels of whole rows, where these have some beside their words'.

        Args:
            label_smoothing: see [`HardLabel`][lightning_distill.criteria.HardLabel].
        """
        inputs = {"student": ROW_LOGITS, "labels": ROW_LABELS}
        return Term(HardLabel("cross_entropy", label_smoothing), inputs)

    def mask(self, batch: Any) -> Source | None:
        """Where a term that compares predictions token by token finds which of them count.

        Args:
            batch: as models are given it.

        Returns:
            A source of a mask `(rows, tokens)`; `None` if not tokens are predicted but rows.
        """
        return None

    def padding(self, batch: Any) -> Source | None:
        """Where a term that compares layers token by token finds which tokens are no padding."""
        mask = entry(batch, "attention_mask")
        return PADDING if isinstance(mask, Tensor) and mask.dim() == 2 else None

    def layer_mask(self, batch: Any, source: Source) -> Source | None:
        """The same for the layer that a source of the student names.

        Args:
            batch: as models are given it.
            source: that a term reads.
        """
        return self.padding(batch)

    # What is measured.

    def predicted_from(self, role: str, sources: Sequence[Source]) -> Source | None:
        """Where predictions are read from, if a model's outputs alone do not hold them.

        Args:
            role: `student` or `teacher`.
            sources: of that role, all that the terms read.

        Returns:
            A source, whose tensor `predictions` is given as `{"vectors": tensor}`; `None` if it is
            given the outputs.
        """
        return None

    def predictions(self, outputs: Any) -> Tensor:
        """What metrics are given of a model's outputs: its logits.

        Heads of one output give shape `(rows,)`, others `(rows, classes)`.
        """
        logits = read(LOGITS, outputs, {})
        return logits.squeeze(-1) if logits.shape[-1] == 1 else logits

    def measured(self, predicted: Tensor, entries: Mapping[str, Tensor]) -> Tensor:
        """What metrics are given of predictions, with a row for each label.

        Args:
            predicted: of the rows that count.
            entries: of the batch, those of `self.entries` that it has, of the same rows.
        """
        return predicted

    def compared(self, predicted: Tensor, entries: Mapping[str, Tensor]) -> Tensor:
        """What says how far one model is from another; arguments as of [`measured`][]."""
        return self.measured(predicted, entries)

    def as_labelled(self, batch: Any, predicted: Tensor) -> Tensor:
        """Predictions as labels lie: in the size of these where each pixel has one.

        Args:
            batch: as models are given it.
            predicted: as `predictions` gives it.
        """
        return predicted

    def counted(self, batch: Any, predicted: Tensor) -> Tensor | None:
        """Which tokens are measured, `(rows, tokens)`; `None` if rows are."""
        return None

    def labelled(self, labels: Tensor) -> Tensor:
        """Which rows, or tokens, have a label."""
        known = labels != UNLABELLED
        return ~labels.isnan() & known if labels.is_floating_point() else known

    def measured_labels(self, labels: Tensor) -> Tensor:
        """Labels of what counts, in the type that metrics take."""
        return labels if labels.dim() < 2 else labels.long()

    def probabilities(self, predicted: Tensor) -> Tensor:
        """Of the classes, from logits; in float32.

        Args:
            predicted: of samples, as [`measured`][] gives it: `(samples, classes)`, or one logit of
                the second of two classes for each.

        Returns:
            The same shape.
        """
        if not self.has_softmax:
            return predicted
        return predicted.float().sigmoid() if predicted.dim() < 2 else predicted.float().softmax(-1)

    def as_values(self, predicted: Tensor) -> Tensor:
        """Predictions on the scale of labels that are numbers, such as probabilities of 0 or 1.

        Args:
            predicted: of samples, as [`measured`][] gives it.
        """
        return predicted

    def agree(self, student: Tensor, teacher: Tensor, tolerance: float) -> Tensor:
        """Where two models predict the same, a truth value for each row or token.

        Args:
            student: predictions `(samples, ...)`.
            teacher: the same of the teacher.
            tolerance: the largest difference of numbers that are taken for equal.
        """
        return student.argmax(-1) == teacher.argmax(-1)

    def measures(self, metric: Any) -> bool:
        """Whether a class of metrics is meant for this task by name."""
        module, name = getattr(metric, "__module__", ""), getattr(metric, "__name__", "")
        begins = self.measured_by or ()
        return any(name.startswith(b) or module.startswith(b) for b in begins)

    def takes_metric(self, owner: "Task | None", options: Mapping[str, Any]) -> bool:
        """Whether a metric measures this task.

        Args:
            owner: the task that it is meant for, if there is one.
            options: of the metric.
        """
        return self.measured_by is None or owner is None or isinstance(self, type(owner))

    # Labels of files.

    def classes_of(self, value: Any, split: str) -> list[Any]:
        """The classes that one row's label names.

        Args:
            value: as the file has it; not `None`.
            split: the data's, for an error.

        Raises:
            ValueError: for a label that is none of this task.
        """
        if isinstance(value, list | tuple | dict):
            raise ValueError(
                f"Label {value!r} of the {split} data is a list, but data.task={self.name} has one "
                "label per row. For several use data.task=multi_label."
            )
        return [value]

    def read_labels(self, values: Sequence[Any], names: Sequence[str], split: str) -> Any:
        """The labels of all rows as one tensor, `(rows, ...)`.

        Args:
            values: of every row, `None` without.
            names: of all classes in order.
            split: the data's, for an error.

        Raises:
            ValueError: for a label that is none of them, naming its row.
        """
        raise TypeError(f"{type(self).__name__} must define `read_labels()` to read files.")

    def without_label(self, labels: Tensor) -> float:
        """What stands for no label in such a tensor."""
        return float("nan") if labels.is_floating_point() and labels.dim() == 1 else UNLABELLED

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(type(self))


__all__ = ["Task"]
