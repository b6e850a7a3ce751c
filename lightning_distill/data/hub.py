"""Text and labels from the Hugging Face hub, or a folder in its layout; GLUE by task name."""

from pathlib import Path
from typing import Any

import datasets

from .text import TextDataModule

# Text columns, split names where they differ, and the task: Wang et al., 2019,
# https://arxiv.org/abs/1804.07461.
GLUE: dict[str, dict[str, Any]] = {
    "cola": {"text": "sentence"},
    "sst2": {"text": "sentence"},
    "mrpc": {"text": "sentence1", "text_pair": "sentence2"},
    "qqp": {"text": "question1", "text_pair": "question2"},
    "stsb": {"text": "sentence1", "text_pair": "sentence2", "task": "regression"},
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

    A class of -1 is a hidden label, as in the test rows of GLUE; a test split without any
    label is left out.

    Args:
        path: the data set's name, or a folder; `nyu-mll/glue` with `glue`.
        name: its configuration, if it has several.
        revision: a commit or tag, so that the data stay what they were.
        train: name of the split.
        validation: name of the split; `None` cuts it from the training rows.
        test: name of the split; `None` uses the validation rows.
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
        found = self._load_all()
        splits = {}
        for split, name in self.split_names.items():
            if name is None:
                continue
            if name not in found:
                if split == "train":
                    raise ValueError(
                        f"{self.path} has no split {name!r} (data.train); it has "
                        f"{', '.join(found)}."
                    )
                continue
            splits[split] = self._without_hidden_labels(found[name])
        test = splits.get("test")
        if test is not None and self.label in test.column_names:
            hidden = {None, float("-100"), -1.0} if self.task == "regression" else {None}
            if all(value in hidden for value in test[self.label]):
                del splits["test"]
        return splits

    def _load_all(self) -> Any:
        folder = Path(self.path).expanduser()
        if (folder / "dataset_dict.json").is_file():
            return datasets.load_from_disk(str(folder))
        try:
            return datasets.load_dataset(self.path, self.name, revision=self.revision)
        except (OSError, ValueError, datasets.exceptions.DatasetNotFoundError) as error:
            raise FileNotFoundError(
                f"The data set {self.path!r}{f' ({self.name})' if self.name else ''} could not be "
                f"loaded: {str(error).splitlines()[0]} Without a network, give a local folder."
            ) from error

    def _without_hidden_labels(self, split: datasets.Dataset) -> datasets.Dataset:
        if self.label not in split.column_names or self.task != "classification":
            return split
        feature = split.features[self.label]
        if not isinstance(feature, datasets.ClassLabel):
            return split
        values = [None if v == -1 else v for v in split[self.label]]
        if None not in values:
            return split
        return split.remove_columns(self.label).add_column(
            self.label, values, feature=datasets.Value("int64")
        )
