"""Which pairs of frames are compared: near ones all, far ones ever fewer, and some that nothing is optimised on.

Reference: Luo, Huang, Szeliski, Matzen & Kopf, Consistent video depth estimation, SIGGRAPH 2020 (CVD), sec. 3.3.
"""

HELD_OUT_GAPS = (3, 12, 25)  # frames: no powers of two, so none of these pairs is among those optimised on
HELD_OUT_SHARE = 0.1  # of the time
HELD_OUT_BLOCKS = 8  # stretches of time, evenly spread
MOST_HELD_OUT = 60  # pairs


def hierarchical_pairs(count: int) -> list[tuple[int, int]]:
    """The pairs (i, j), i < j, of `count` frames: all neighbours, and those 2^k apart from every 2^(k - 1)-th frame.

    Fewer than three for each frame; each frame is in at least one if there are two.
    """
    pairs = [(i, i + 1) for i in range(count - 1)]
    gap = 2
    while gap < count:
        pairs += [(i, i + gap) for i in range(0, count - gap, gap // 2)]
        gap *= 2
    return pairs


def held_out_pairs(count: int) -> list[tuple[int, int]]:
    """Pairs (i, j) of `count` frames that lie in stretches of time evenly spread over them, at HELD_OUT_GAPS."""
    length = max(round(HELD_OUT_SHARE * count / HELD_OUT_BLOCKS), 1)
    starts = sorted({round((n + 0.5) * (count - length) / HELD_OUT_BLOCKS) for n in range(HELD_OUT_BLOCKS)})
    first = sorted({i for start in starts for i in range(start, start + length)})
    first = first[:: -(-len(first) * len(HELD_OUT_GAPS) // MOST_HELD_OUT) or 1]  # all gaps of fewer frames
    return [(i, i + gap) for i in first for gap in HELD_OUT_GAPS if i + gap < count]
