"""Small charts as PNG pictures inside Markdown, drawn without a plotting library."""

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from lodestore.metrics import Interval

__all__ = ["intervals", "png", "shares", "trend"]

_WIDTH, _BAR, _GAP, _MARGIN, _TALL = 480, 12, 6, 10, 80
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


def shares(rows: Sequence[tuple[str, Interval, bool]]) -> str:
    """A bar for each share, 0 to 1, with whiskers, those that are marked violet; empty without rows."""
    if not rows:
        return ""
    picture = np.full((len(rows) * (_BAR + _GAP) + _GAP, _WIDTH, 3), 255, dtype=np.uint8)
    for place, (_, share, marked) in enumerate(rows):
        _bar(picture, _GAP + place * (_BAR + _GAP), share, _CANDIDATE if marked else _LIVE)
    names = ", ".join(name for name, _, _ in rows)
    return f"![{names}](data:image/png;base64,{base64.b64encode(png(picture)).decode()})"


def trend(values: Sequence[float], limit: float, failed: Sequence[bool]) -> str:
    """The values in their order, as bars from zero, the limit as a line across; those that failed violet."""
    shown = np.nan_to_num(np.asarray(values, dtype=np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    top = max(float(shown.max(initial=0.0)), limit, 1e-9) * 1.1
    picture = np.full((_TALL, _WIDTH, 3), 255, dtype=np.uint8)
    step = max(2, min(24, (_WIDTH - 2 * _MARGIN) // max(1, len(shown))))
    for place, (value, bad) in enumerate(zip(shown, failed, strict=True)):
        left, height = _MARGIN + place * step, max(1, round(max(0.0, value) / top * (_TALL - 2)))
        picture[_TALL - height :, left : left + step - 1] = _CANDIDATE if bad else _LIVE
    line = min(_TALL - 1, max(0, _TALL - 1 - round(max(0.0, limit) / top * (_TALL - 2))))
    picture[line, _MARGIN : _WIDTH - _MARGIN] = _LINE
    data = base64.b64encode(png(picture)).decode()
    return f"![the last {len(shown)} values, limit {limit:.4g}](data:image/png;base64,{data})"


def _bar(picture: np.ndarray, top: int, interval: Interval, colour: tuple[int, int, int]) -> None:
    middle = top + _BAR // 2
    picture[top : top + _BAR - 2, _MARGIN : _place(interval.value)] = colour
    picture[middle - 1 : middle + 1, _place(interval.low) : _place(interval.high) + 1] = _LINE


def _place(value: float) -> int:
    return _MARGIN + round(min(max(value, 0.0), 1.0) * (_WIDTH - 2 * _MARGIN))
