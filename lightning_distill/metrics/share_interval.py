"""How far a share of rows may be from that of all rows of the same kind."""

import math

# 95 % of a normal distribution lie within so many standard deviations.
Z = 1.959964


def share_interval(share: float, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927), which is right near 0 and 1 too.

    Args:
        share: of the rows that count, 0 to 1.
        rows: how many there are, at least one.

    References:
        Wilson, *Probable inference, the law of succession, and statistical inference*, 1927.
    """
    middle = (share + Z * Z / (2 * rows)) / (1 + Z * Z / rows)
    spread = math.sqrt(share * (1 - share) / rows + Z * Z / (4 * rows * rows))
    half = Z / (1 + Z * Z / rows) * spread
    # It holds the share, and rounding puts no end beyond it.
    return max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share))
