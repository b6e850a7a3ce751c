"""Rows of files that cannot be used: one clear error, or counted and left out."""

import logging

log = logging.getLogger("lightning_distill")


class BadRows:
    """What happens to a row that cannot be used; readers of files tell it what they find.

    Args:
        skip: leave such rows out and count them; otherwise the first is an error. It is
            `data.skip_bad_rows`.

    Attributes:
        found: how many there are in each split, of those that were left out.
        first: what was wrong with the first of each split.
    """

    def __init__(self, skip: bool = False):
        self.skip = skip
        self.found: dict[str, int] = {}
        self.first: dict[str, str] = {}

    def add(self, split: str, message: str) -> None:
        """One row that cannot be used. Where this returns, the reader goes on without the row.

        Args:
            split: the data's, as `train`.
            message: names file and row, what was expected and what came; whole sentences.

        Raises:
            ValueError: with the message, unless such rows are skipped.
        """
        if not self.skip:
            raise ValueError(f"{message} To leave such rows out: data.skip_bad_rows=true.")
        self.found[split] = self.found.get(split, 0) + 1
        self.first.setdefault(split, message)

    def say(self, sizes: dict[str, int]) -> None:
        """Tell how many rows of each split were left out.

        Args:
            sizes: how many rows of each split are left.

        Raises:
            ValueError: if none is left of a split that had some.
        """
        for split, count in self.found.items():
            if not sizes.get(split):
                raise ValueError(
                    f"None of the {count} rows of the {split} data can be used. The first: "
                    f"{self.first[split]}"
                )
            log.warning(
                "%d of %d rows of the %s data were left out (data.skip_bad_rows=true). The first: "
                "%s",
                count,
                count + sizes[split],
                split,
                self.first[split],
            )

    def counts(self) -> dict[str, int]:
        """For the report: how many rows of each split were left out, of splits with such rows."""
        return {f"{split} rows left out": count for split, count in self.found.items()}


__all__ = ["BadRows"]
