"""Text and labels from the Hugging Face hub, or a folder in its layout; GLUE by task name."""

import logging
from typing import Any

import datasets

from ...tasks import Regression, task_of
from ..load_from_hub import load_splits
from .text import TextDataModule

log = logging.getLogger("lightning_distill")

# Text columns, split names where they differ, and the task: Wang et al., 2019,
# https://arxiv.org/abs/1804.07461.
GLUE: dict[str, dict[str, Any]] = {
    "cola": {"text": "sentence"},
    "sst2": {"text": "sentence"},
    "mrpc": {"text": "sentence1", "text_pair": "sentence2"},
    "qqp": {"text": "question1", "text_pair": "question2"},
    "stsb": {"text": "sentence1", "text_pair": "sentence2", "task": Regression.name},
    "mnli": {
        "text": "premise",
        "text_pair": "hypothesis",
        "validation": "validation_matched",
        "test": "test_matched",
    },
    "qnli": {"text": "question", "text_pair": "sentence"},
    "rte": {"text": "sentence1", "text_pair": "sentence2"},
    "wnli": {"text": "sentence1", "text_pair": "sentence2"},
}


class Hub(TextDataModule):
    """Rows of a data set on the hub, or of a local folder that `datasets` can load.

    A named class of -1 is a hidden label, as in the test rows of GLUE; a test split without any
    label, or with nothing but -1, is left out.

    Args:
        path: the data set's name, or a folder; `nyu-mll/glue` with `glue`.
        name: its configuration, if it has several.
        revision: a commit or tag, so that the data stay what they were.
        train: name of the split.
        validation: name of the split; `None`, or no split `validation`, cuts it from the
            training rows.
        test: name of the split; `None`, or no split `test`, uses the validation rows.
        glue: a task of GLUE, which sets `name`, the text columns, the splits and the task.
        options: those of [`TextDataModule`][].

    Raises:
        FileNotFoundError: if the data set cannot be reached.
        ValueError: for an unknown GLUE task or split.
    """

    def __init__(
        self,
        path: str | None = None,
        name: str | None = None,
        revision: str | None = None,
        train: str = "train",
        validation: str | None = "validation",
        test: str | None = "test",
        glue: str | None = None,
        **options: Any,
    ):
        split_names = {"train": train, "validation": validation, "test": test}
        if glue is not None:
            if glue not in GLUE:
                raise ValueError(f"`glue` must be one of {', '.join(GLUE)}, got {glue!r}.")
            known = dict(GLUE[glue])
            for split in ("validation", "test"):
                split_names[split] = known.pop(split, split_names[split])
            options |= known
            path, name = path or "nyu-mll/glue", name or glue
        if path is None:
            raise ValueError("Name a data set: data.path=... or data.glue=sst2.")
        super().__init__(**options)
        self.path, self.name, self.revision = path, name, revision
        self.split_names = split_names

    def load(self) -> dict[str, datasets.Dataset]:
        """Load the named splits."""
        found = load_splits(self.path, self.name, self.revision, self.split_names)
        splits = {split: self._without_hidden_labels(rows) for split, rows in found.items()}
        if "test" in splits and self._all_hidden(splits["test"]):
            log.info("%s: the labels of the test split are hidden; it is left out", self.path)
            del splits["test"]
        return splits

    def _all_hidden(self, split: datasets.Dataset) -> bool:
        hidden = (None, -1, -100)
        return self.label in split.column_names and all(v in hidden for v in split[self.label])

    def _without_hidden_labels(self, split: datasets.Dataset) -> datasets.Dataset:
        if self.label not in split.column_names or not task_of(self).has_softmax:
            return split
        feature = split.features[self.label]
        if not isinstance(feature, datasets.ClassLabel):
            return split
        values = split[self.label]
        if -1 not in values:
            return split
        if self.label_names is None:
            self.label_names = list(feature.names)
        names = [None if v is None or v == -1 else feature.int2str(v) for v in values]
        return split.remove_columns(self.label).add_column(
            self.label, names, feature=datasets.Value("string")
        )
