"""The built-in questions: what is an argument of a function, if nobody gives it?"""

from typing import Any

import datasets
import torch

from .questions import in_one_form, QuestionData
from .stdlib_signatures import stdlib_signatures


class SignatureQuestions(QuestionData):
    """What is the default of this argument of a function of the standard library?

    Real text that every Python installation carries: a signature, such as `open(file, mode='r')`,
    and for each default a question, such as `default of mode`. A fifth of the functions is for
    testing, a tenth for validation.

    Args:
        options: those of [`QuestionData`][].
    """

    def __init__(self, **options: Any):
        super().__init__(**options)

    def load(self) -> dict[str, datasets.Dataset]:
        """Read the sources of the standard library and ask for each default."""
        signatures = stdlib_signatures()
        order = torch.randperm(len(signatures), generator=torch.Generator().manual_seed(0)).tolist()
        test, validation = round(0.2 * len(order)), round(0.1 * len(order))
        chosen = {
            "train": order[test + validation :],
            "validation": order[test : test + validation],
            "test": order[:test],
        }
        return {
            split: in_one_form(
                [
                    {
                        "question": f"default of {name}",
                        "context": signatures[i][0],
                        "texts": [value],
                        "starts": [start],
                    }
                    for i in sorted(rows)
                    for name, start, value in signatures[i][1]
                ]
            )
            for split, rows in chosen.items()
        }
