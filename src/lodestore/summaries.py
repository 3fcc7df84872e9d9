"""Extractive summaries: the sentences of a document that lie nearest to its centroid, in their own order.

A sentence counts by its words: rare words of the document weigh more than those of every sentence. Where
the live version has vectors of the document's chunks, a sentence also counts by how near its chunk
lies to the document's own vector. No model is called; equal input gives equal output.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["ChunkScore", "Sentence", "sentences", "summarise"]

# A sentence ends with its mark and a blank, or with its paragraph, list item or heading.
_END = re.compile(r"(?<=[.!?])\s+|\n\s*\n|\n(?=\s*(?:[-*+#|>]|\d+[.)])\s)")
_WORD = re.compile(r"\w+")
_SKIPPED = re.compile(r"\s*(#|```|\||>|={3,}|-{3,})")
_BULLET = re.compile(r"\A\s*(?:[-*+]|\d+[.)])\s+")
# Sentences that are looked at, and the fewest words that make one.
_MOST, _FEWEST = 400, 4


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and where in its text it begins."""

    text: str
    start: int


@dataclass(frozen=True, slots=True)
class ChunkScore:
    """How near a stretch of the text lies to the whole, in [-1, 1]."""

    start: int
    end: int
    score: float


def sentences(text: str) -> list[Sentence]:
    r"""The sentences of prose; headings, tables, code fences and scraps are none.

    >>> [one.text for one in sentences("# Billing\n\nInvoices are sent monthly. A refund takes five days.")]
    ['Invoices are sent monthly.', 'A refund takes five days.']
    """
    found, start = [], 0
    for end in [*(match.span() for match in _END.finditer(text)), (len(text), len(text))]:
        piece = text[start : end[0]]
        said = " ".join(_BULLET.sub("", piece).split())
        if len(_WORD.findall(said)) >= _FEWEST and not _SKIPPED.match(piece):
            found.append(Sentence(said, start))
        start = end[1]
    return found[:_MOST]


def summarise(text: str, *, count: int = 2, longest: int = 400, chunks: Sequence[ChunkScore] = ()) -> str | None:
    """At most `count` sentences and `longest` characters; None for a text without a sentence."""
    known = sentences(text)
    if not known:
        return None
    scores = _nearness([one.text for one in known]) + np.array([_of_chunk(one.start, chunks) for one in known])
    picked: list[int] = []
    for place in np.argsort(-scores, kind="stable").tolist():
        size = sum(len(known[at].text) + 1 for at in [*picked, place]) - 1
        if len(picked) < count and (size <= longest or not picked):
            picked.append(place)
    return " ".join(known[place].text for place in sorted(picked))[:longest]


def _of_chunk(start: int, chunks: Sequence[ChunkScore]) -> float:
    return max((one.score for one in chunks if one.start <= start < one.end), default=0.0)


def _nearness(texts: Sequence[str]) -> np.ndarray:
    """The cosine of each sentence's weighted words with their sum."""
    bags = [Counter(_WORD.findall(text.lower())) for text in texts]
    place = {word: at for at, word in enumerate(sorted(set().union(*bags)))}
    matrix = np.zeros((len(bags), len(place)))
    for row, bag in enumerate(bags):
        for word, times in bag.items():
            matrix[row, place[word]] = times
    matrix *= np.log1p(len(bags) / np.count_nonzero(matrix, axis=0))
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    centroid = matrix.sum(axis=0)
    return np.asarray(matrix @ (centroid / np.linalg.norm(centroid)))
