"""How much of a run of DataRow or CopyData messages may pass, when only so many more may."""

from __future__ import annotations


def cut(data: bytes, skip: int, rows: int, size: int) -> tuple[int, int, int]:
    """Where to cut a stretch of a run, as `framing` gives it, so that no more than `rows` messages begin in what is
    before the cut and these have no more than `size` bytes, headers included.

    `skip` is what is still missing of a message that began earlier (it may be more than is here) and passes in any
    case. Gives the position of the cut, which is a message's first byte, or the end; how many messages begin before
    it; and how much of the last of them is still to come.
    """
    end = len(data)
    pos = skip
    count = 0
    used = 0
    while pos < end:
        total = 1 + ((data[pos + 1] << 24) | (data[pos + 2] << 16) | (data[pos + 3] << 8) | data[pos + 4])
        if count == rows or used + total > size:
            return pos, count, 0
        count += 1
        used += total
        pos += total
    return end, count, pos - end
