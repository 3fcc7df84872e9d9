"""Small charts as PNG pictures inside Markdown, drawn without a plotting library."""

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from lodestore.metrics import Interval

__all__ = ["intervals", "png"]

_WIDTH, _BAR, _GAP, _MARGIN = 480, 12, 6, 10
_CANDIDATE, _LIVE, _LINE = (79, 67, 221), (180, 184, 200), (20, 20, 30)


def png(pixels: np.ndarray) -> bytes:
    """RGB pixels of shape (height, width, 3) as a PNG file (ISO/IEC 15948: one IDAT, filter 0)."""
    height, width, _ = pixels.shape
    raw = b"".join(b"\0" + row.tobytes() for row in pixels.astype(np.uint8))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [_piece(b"IHDR", head), _piece(b"IDAT", zlib.compress(raw, 9)), _piece(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _piece(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def intervals(rows: Sequence[tuple[str, Interval, Interval]]) -> str:
    """Candidate (violet) over live (grey) for each metric, 0 to 1, with whiskers; empty without rows."""
    if not rows:
        return ""
    height = len(rows) * (2 * _BAR + 2 * _GAP) + _GAP
    picture = np.full((height, _WIDTH, 3), 255, dtype=np.uint8)
    for place, (_, candidate, live) in enumerate(rows):
        top = _GAP + place * (2 * _BAR + 2 * _GAP)
        _bar(picture, top, candidate, _CANDIDATE)
        _bar(picture, top + _BAR, live, _LIVE)
    names = ", ".join(name for name, _, _ in rows)
    data = base64.b64encode(png(picture)).decode()
    return f"\n\n![{names}: candidate over live](data:image/png;base64,{data})\n\n{names}: candidate violet, live grey"


def _bar(picture: np.ndarray, top: int, interval: Interval, colour: tuple[int, int, int]) -> None:
    middle = top + _BAR // 2
    picture[top : top + _BAR - 2, _MARGIN : _place(interval.value)] = colour
    picture[middle - 1 : middle + 1, _place(interval.low) : _place(interval.high) + 1] = _LINE


def _place(value: float) -> int:
    return _MARGIN + round(min(max(value, 0.0), 1.0) * (_WIDTH - 2 * _MARGIN))
