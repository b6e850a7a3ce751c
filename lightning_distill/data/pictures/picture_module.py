"""Pictures with labels: what all picture data modules share."""

import hashlib
import logging
from collections.abc import Sequence
from typing import Any, ClassVar

import datasets
import torch
from rich.progress import track
from torch.utils.data import DataLoader

from ...tasks import Task, task_of
from ..all_splits import all_splits
from ..draw import known_by
from ..length_grouped import LengthGroupedBatches
from ..rows_module import RowsModule
from ..text.read_labels import LabelReader
from .image_processor import ImageProcessor, load_image_processor
from .picture_file import Files, Sources
from .pictures import Augmentation, Pictures

log = logging.getLogger("lightning_distill")

# So many pictures are decoded before training; of more, the headers and ends are read.
DECODED = 20_000
# From so many on, a bar shows how far it is.
BAR = 2000


class PictureDataModule(RowsModule):
    """Rows of one picture and a label; subclasses write `load`.

    A batch is a dict of tensors `pixel_values` (rows, 3, height, width), `labels` and `row`, the
    row's number in its split (-1 for a repeat that only evens out the ranks). If the teacher wants
    its pictures in another way, `teacher` holds its `pixel_values`, of the same crop and flip.

    Args:
        image: column of the picture.
        label: column of the label; may be absent or empty where rows are unlabelled.
        task: `classification`, or a [`Task`][lightning_distill.tasks.Task] of one's own with one
            label for each row.
        label_names: all labels in order; by default those of the training rows, sorted.
        image_processor: the student's: one of transformers, or where to load it.
        teacher_image_processor: the teacher's; the same by default.
        size: of what the student is given, in pixels: a number, or height and width; by default
            that of its processor, or of the pictures, if all have the same.
        mean: of red, green and blue from 0 to 1; by default that of the processor, or 0.5.
        std: the same.
        batch_size: rows per step and process.
        eval_batch_size: rows per batch in validation and test.
        labelled_rows: keep the labels of so many training rows, chosen by `seed` in equal shares
            of the classes; the others are unlabelled. All by default.
        drop_unlabelled: leave unlabelled training rows out.
        validation_fraction: cut from the training rows if there is no validation split.
        augmentation: changes the training pictures, such as [`CropAndFlip`][]: a callable of a
            picture (uint8, (3, height, width)) and a generator. What it does to a row in an epoch
            depends on the seed, the row and the view alone.
        views: epoch e uses view e modulo `views`, so that there are only so many of every row; by
            default each epoch has a view of its own.
        mixup: mixes every training picture with another one, in the same way for both models: the
            picture itself has a share drawn from Beta(mixup, mixup) (Zhang et al., 2018,
            https://arxiv.org/abs/1710.09412). Its label is that of either picture, drawn by the
            shares, so that the mean of the loss is that of the paper. `null` is off.
        check: `full` decodes all pictures before training, `headers` reads how they begin and end;
            by default the first up to 20,000 pictures.
        num_labels: how many classes there are, as a check.
        num_workers: processes that read ahead; see `worker_count`.
        seed: for choosing rows and their order.
        skip_bad_rows: leave out pictures that cannot be read, and count them.

    Raises:
        ValueError: for data and options that cannot be trained on; each says what to do.
    """

    # Of models that read pictures and give each a label.
    architecture: ClassVar[str] = "ForImageClassification"
    whole_numbers: ClassVar[Any] = {
        "batch_size": 1,
        "eval_batch_size": 1,
        "num_workers": 0,
        "seed": 0,
        "labelled_rows": 1,
        "num_labels": 1,
        "views": 1,
    }
    optional: ClassVar[frozenset[str]] = RowsModule.optional | {
        "labelled_rows",
        "num_labels",
        "views",
    }
    flags: ClassVar[tuple[str, ...]] = ("drop_unlabelled", "skip_bad_rows")
    replaceable: ClassVar[frozenset[str]] = frozenset(
        {"batch_size", "eval_batch_size", "num_workers", "seed"}
        | {"labelled_rows", "drop_unlabelled", "augmentation", "views", "mixup"}
    )
    # All pictures are equally large.
    without_meaning: ClassVar[frozenset[str]] = frozenset({"length_bucketing"})

    def __init__(
        self,
        image: str = "image",
        label: str | None = "label",
        task: str | Task = "classification",
        label_names: Sequence[str] | None = None,
        image_processor: Any = None,
        teacher_image_processor: Any = None,
        size: int | Sequence[int] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        batch_size: int = 32,
        eval_batch_size: int = 64,
        labelled_rows: int | None = None,
        drop_unlabelled: bool = False,
        validation_fraction: float = 0.1,
        augmentation: Augmentation | None = None,
        views: int | None = None,
        mixup: float | None = None,
        check: str | None = None,
        num_labels: int | None = None,
        num_workers: int | None = None,
        seed: int = 0,
        skip_bad_rows: bool = False,
    ):
        super().__init__(
            tokenizer=None,
            teacher_tokenizer=None,
            max_length=1,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            length_bucketing=False,
            validation_fraction=validation_fraction,
            num_workers=num_workers,
            seed=seed,
            skip_bad_rows=skip_bad_rows,
        )
        self.image, self.label, self.task = image, label, task
        if isinstance(label_names, str):
            raise ValueError(
                f"`label_names` must be a list of all labels, as in [cat,dog], got {label_names!r}."
            )
        self.label_names = None if label_names is None else [str(n) for n in label_names]
        self.num_labels = num_labels
        self.image_processor = image_processor
        self.teacher_image_processor = teacher_image_processor
        self.settings = {"size": size, "mean": mean, "std": std}
        self.labelled_rows, self.drop_unlabelled = labelled_rows, drop_unlabelled
        self.augmentation, self.views, self.mixup = augmentation, views, mixup
        self.check = check
        self._fingerprint: str | None = None
        self._check_options()

    def replace(self, **changes: Any) -> Any:
        """The same rows under other options, such as `drop_unlabelled=True`; nothing is reread."""
        changed = super().replace(**changes)
        if changed.splits:
            changed._check_labels()
        return changed

    def as_teacher_reads(self) -> Any:
        """The same rows with the teacher's pictures in the place of the student's."""
        if self.teacher_image_processor is None:
            return self
        changed = super().replace()
        changed.image_processor, changed.teacher_image_processor = (
            self.teacher_image_processor,
            None,
        )
        changed._fingerprint = None
        changed.splits = {
            name: rows.processed_by(self.teacher_image_processor)
            for name, rows in self.splits.items()
        }
        return changed

    @property
    def image_size(self) -> int | list[int] | None:
        """Pixels of a side of what the student is given, or height and width; after `setup`."""
        if not self.splits:
            return None
        height, width = self.image_processor.height, self.image_processor.width
        return int(height) if height == width else [height, width]

    def sources(self, rows: datasets.Dataset, split: str) -> Sources:
        """The pictures of the rows that `load` gave."""
        feature = rows.features[self.image]
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(self.image, datasets.Image(decode=False))
            return Files(rows[self.image], split)
        return Files(list(rows[self.image]), split)

    def setup(self, stage: str | None = None) -> None:
        """Load and check; a second call does nothing."""
        if self.splits:
            return
        given, shapes = {}, set()
        for name, rows in self.load().items():
            given[name], found = self._without_bad(name, rows)
            shapes |= found
        self.bad_rows.say({name: len(rows) for name, rows in given.items()})
        splits = all_splits(given, self.validation_fraction, self.seed, type(self).__name__)
        reader = LabelReader(self.label, task_of(self), self.label_names, self.num_labels)
        labels = reader.read(
            splits,
            unlabelled_training=self.labelled_rows is None and not self.drop_unlabelled,
            validation_is_cut="validation" not in given,
            texts=[self.image],
        )
        self.label_names, self.num_labels = reader.names, reader.count
        self._settle_processors(shapes)
        for name, rows in splits.items():
            self.splits[name] = Pictures(
                self.sources(rows, name),
                self.image_processor,
                self.teacher_image_processor,
                labels[name],
                torch.arange(len(rows)),
            )
        self.num_rows = len(self.splits["train"])
        self._check_labels()

    def training_rows(self) -> Pictures:
        """The training rows as they are augmented, with those labels that are kept."""
        rows: Pictures = self.splits["train"]
        if self.labelled_rows is not None:
            rows = rows.keeping_labels(self.labelled_rows, self.seed)
        partners = rows.labelled().numbers if self.drop_unlabelled else None
        return rows.augmented_by(self.augmentation, self.seed).mixed_by(self.mixup, partners)

    def trained_rows(self) -> Any:
        """Numbers of the training rows that are not left out, shape (rows,); `None` if none is."""
        return self.training_rows().has_label.nonzero()[:, 0] if self.drop_unlabelled else None

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches of the training rows, those without labels too unless dropped."""
        rows = self.training_rows()
        if self.drop_unlabelled:
            rows = rows.labelled()
        return self._loader(rows, self.training_sampler(rows.lengths))

    def training_sampler(self, lengths: Any) -> LengthGroupedBatches:
        """Which rows make a batch, and under which view they are augmented."""
        return LengthGroupedBatches(
            lengths, self.batch_size, self.seed, grouped=False, views=self.views
        )

    def preprocessing(self) -> dict[str, Any]:
        """What decides which pixels the models are given, as plain values."""
        mixing = {} if self.mixup is None else {"augmentation_seed": self.seed}
        teacher = self.teacher_image_processor
        return {
            "student_image_processor": self.image_processor.settings(),
            # The same where the teacher has none of its own.
            "teacher_image_processor": (teacher or self.image_processor).settings(),
            **known_by(self.augmentation, self.seed),
            **mixing,
            "mixup": self.mixup,
            "views": self.views,
        }

    def fingerprint(self) -> str:
        """SHA-256, in hex, of all files, labels and of how the models want their pictures."""
        if self._fingerprint is None:
            digest = hashlib.sha256()
            for processor in (self.image_processor, self.teacher_image_processor):
                digest.update(str(processor and processor.settings()).encode())
            for name, rows in sorted(self.splits.items()):
                digest.update(name.encode())
                for part in rows.contents():
                    digest.update(b"%d " % len(part))
                    digest.update(part)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def counts(self) -> dict[str, int]:
        """How many rows each split has, and how many training rows keep their label."""
        labelled = int(self.splits["train"].has_label.sum())
        if self.labelled_rows is not None:
            labelled = min(labelled, self.labelled_rows)
        return {
            "train rows": len(self.splits["train"]),
            "labelled train rows": labelled,
            "validation rows": len(self.splits["validation"]),
            "test rows": len(self.splits["test"]),
            **self.bad_rows.counts(),
        }

    @property
    def unlabelled(self) -> bool:
        """Whether no row of any split has a label."""
        return not any(bool(rows.has_label.any()) for rows in self.splits.values())

    # Checks and reading.

    def _without_bad(
        self, split: str, rows: datasets.Dataset
    ) -> tuple[datasets.Dataset, set[tuple[int, int]]]:
        """The rows whose pictures can be read, and the sizes of these."""
        if self.image not in rows.column_names:
            raise ValueError(
                f"The {split} data has no column {self.image!r} (data.image); it has "
                f"{', '.join(rows.column_names)}."
            )
        sources = self.sources(rows, split)
        whole = self.check == "full" or (self.check is None and len(rows) <= DECODED)
        good, shapes = [], set()
        for i in track(
            range(len(sources)),
            f"checking the {split} pictures",
            transient=True,
            disable=len(sources) < BAR,
        ):
            try:
                shapes.add(sources.check(i, whole))
                good.append(i)
            except ValueError as error:
                self.bad_rows.add(
                    split,
                    f"{sources.name(i)} (row {i} of the {split} data) must be a picture and "
                    f"cannot be read: {error}. Put a whole picture there, or take the row away.",
                )
        return rows if len(good) == len(rows) else rows.select(good), shapes

    def _settle_processors(self, shapes: set[tuple[int, int]]) -> None:
        if self.image_processor is None:
            size = self.settings["size"]
            if size is None and len(shapes) > 1:
                raise ValueError(
                    "The pictures have different sizes, and no image processor of a model says "
                    "which one it wants: set data.size=224, or another number of pixels."
                )
            height, width = next(iter(shapes)) if size is None else (1, 1)
            own = ImageProcessor(height, width)
        else:
            own = load_image_processor(self.image_processor)
        self.image_processor = own.with_settings(**self.settings)
        if self.teacher_image_processor is not None:
            other = load_image_processor(self.teacher_image_processor)
            self.teacher_image_processor = None if other == self.image_processor else other

    def _check_options(self) -> None:
        task = task_of(self)
        if task.per_token or task.predicts_ids:
            raise ValueError(
                f"`task` of {type(self).__name__} must be one with one label for each picture, "
                f"such as classification, got {task.name}."
            )
        super()._check_options()
        if self.augmentation is not None and not callable(self.augmentation):
            raise ValueError(
                "`augmentation` must be a callable (picture, generator) -> picture, as in "
                "data.augmentation._target_=lightning_distill.data.CropAndFlip, got "
                f"{self.augmentation!r}."
            )
        if self.mixup is not None and not self.mixup > 0:
            raise ValueError(f"`mixup` must be above 0, got {self.mixup!r}; null is off.")
        if self.views is not None and self.augmentation is None and self.mixup is None:
            raise ValueError(
                f"`views` is {self.views}, but there is no `augmentation` and no `mixup`, so a row "
                "has one view."
            )
        if self.check not in (None, "full", "headers"):
            raise ValueError(f"`check` must be full, headers or null, got {self.check!r}.")

    def _check_labels(self) -> None:
        for name in ("validation", "test"):
            if not self.unlabelled and not self.splits[name].has_label.any():
                raise ValueError(
                    f"No row of the {name} data has a label, so nothing can be measured on it."
                )
        available = int(self.splits["train"].has_label.sum())
        if self.labelled_rows is not None and self.labelled_rows > available:
            raise ValueError(
                f"`labelled_rows` is {self.labelled_rows}, but only {available} training rows "
                "have a label."
            )
        if self.drop_unlabelled and available == 0:
            raise ValueError("No training row has a label, and drop_unlabelled leaves them out.")
