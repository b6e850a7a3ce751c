"""The built-in questions: what is an argument of a function, if nobody gives it?"""

import datasets
import torch

from .questions import Questions
from .stdlib_signatures import stdlib_signatures


class SignatureQuestions(Questions):
    """What is the default of this argument of a function of the standard library?

    Real text that every Python installation carries: a signature, such as `open(file, mode='r')`,
    and for each default a question, such as `default of mode`. A fifth of the functions is for
    testing, a tenth for validation. Its options are those of [`Questions`][].
    """

    def load(self) -> dict[str, datasets.Dataset]:
        """Read the sources of the standard library and ask for each default."""
        signatures = stdlib_signatures()
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(signatures), generator=generator).tolist()
        test, validation = round(0.2 * len(order)), round(0.1 * len(order))
        chosen = {
            "train": order[test + validation :],
            "validation": order[test : test + validation],
            "test": order[:test],
        }
        return {
            split: datasets.Dataset.from_list(
                [
                    {
                        self.names["question"]: f"default of {name}",
                        self.names["context"]: signatures[i][0],
                        self.names["answers"]: [{"text": value, "answer_start": start}],
                    }
                    for i in sorted(rows)
                    for name, start, value in signatures[i][1]
                ]
            )
            for split, rows in chosen.items()
        }
