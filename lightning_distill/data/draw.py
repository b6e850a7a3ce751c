"""What a sampler asks of the rows: which, and under which view."""

from collections.abc import Iterable


class Draw(list[int]):
    """Row numbers, and the view under which they are augmented; `None` leaves them as they are.

    It travels to the processes that collate with the numbers themselves: these processes live on
    from epoch to epoch, and would not see it if the data set were told.
    """

    def __init__(self, rows: Iterable[int] = (), view: int | None = None):
        super().__init__(rows)
        self.view = view
