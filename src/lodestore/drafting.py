"""A first golden set from the corpus itself: its headings and sentences, put differently by rule.

It finds what broke, not what users want: a query that was made from a document is easier than one
that a person asks. So every line is marked as synthetic, and its segment says what it was made of.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from lodestore.errors import GoldenError, RefusedError
from lodestore.ports import OfflineStore

__all__ = ["Drafted", "draft", "drafted_from", "write"]

_HEADING = re.compile(r"^\s{0,3}#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)
_SENTENCE = re.compile(r"(?:^|(?<=[.!?]\s)|(?<=\n))[^.!?\n#]{30,240}[.!?](?=\s|$)")
# A word has a letter: bare numbers of tables and formulas are nothing that anybody asks for.
_WORD = re.compile(r"\b[\w'-]*[^\W\d_][\w'-]*")
_QUESTIONS = (
    "what should I know about {0}",
    "where is {0} explained",
    "{0}, how does that work",
    "can somebody help with {0}",
)
_COMMON = frozenset(
    re.findall(
        r"\w+",
        "a about after all also an and any are as at be because been before but by can could did do does each for "
        "from had has have he her here his how i if in into is it its may more most must no not of on one only or "
        "other our out over she should so some such than that the their them then there these they this those to "
        "under up use used was we were what when where which while who will with would you your ",
    )
)
_FEWEST_WORDS = 3
_MOST_WORDS = 9
_LONGEST_HEADING = 12
_DOCUMENTS_PER_STEP = 200


class _Read(Protocol):
    """A document as it was read."""

    @property
    def document_id(self) -> str:
        """Its full id."""

    @property
    def title(self) -> str | None:
        """Its title, where it has one."""

    @property
    def content(self) -> str:
        """Its text."""


@dataclass(frozen=True, slots=True)
class Drafted:
    """One query that was made from a document, which is the one that should answer it."""

    query_id: str
    text: str
    segment: str
    document_id: str

    def to_json(self) -> dict[str, object]:
        """A line of the queries' file."""
        return {"id": self.query_id, "text": self.text, "segment": self.segment, "synthetic": True}


def draft(documents: Iterable[_Read], *, count: int, seed: int = 20) -> tuple[Drafted, ...]:
    """Up to `count` queries, as many from headings as from sentences where there are enough of both.

    The same documents and seed give the same queries. What would fit several documents is left out.
    """
    _possible(count, seed)
    random = np.random.default_rng(seed)
    made = [one for document in documents for one in _of(document)]
    often = Counter(text for _, text, _ in {(segment, text, document) for segment, text, document in made})
    by_segment = {
        segment: _shuffled([(text, owner) for one, text, owner in made if one == segment and often[text] == 1], random)
        for segment in ("heading", "sentence")
    }
    chosen = _in_turn(by_segment["heading"], by_segment["sentence"])[:count]
    width = len(str(len(chosen)))
    return tuple(
        Drafted(f"draft-{n:0{width}}", text, f"synthetic-{segment}", owner)
        for n, (segment, (text, owner)) in enumerate(chosen, start=1)
    )


def _possible(count: int, seed: int) -> None:
    if count < 1:
        message = f"a draft of {count} queries is none; give at least 1"
        raise GoldenError(message)
    if seed < 0:
        message = f"seed is {seed}; give a whole number from 0 on"
        raise GoldenError(message)


def _shuffled(pairs: Sequence[tuple[str, str]], random: np.random.Generator) -> list[tuple[str, str]]:
    """In a random order in which each document comes once before any comes twice."""
    once = list(dict.fromkeys(pairs))
    turn: Counter[str] = Counter()
    keyed: list[tuple[int, int, tuple[str, str]]] = []
    for place in random.permutation(len(once)):
        text, owner = once[place]
        turn[owner] += 1
        keyed.append((turn[owner], len(keyed), (text, owner)))
    return [pair for _, _, pair in sorted(keyed)]


def _in_turn(
    headings: Sequence[tuple[str, str]], sentences: Sequence[tuple[str, str]]
) -> list[tuple[str, tuple[str, str]]]:
    ranked = [(place, "heading", pair) for place, pair in enumerate(headings)]
    ranked += [(place, "sentence", pair) for place, pair in enumerate(sentences)]
    return [(segment, pair) for _, segment, pair in sorted(ranked)]


def _of(document: _Read) -> Iterator[tuple[str, str, str]]:
    """(segment, query, document id) for each heading and each sentence that makes a query."""
    headings = [document.title or "", *_HEADING.findall(document.content)]
    for heading in dict.fromkeys(headings):
        words = _WORD.findall(heading)
        if 1 <= len(words) <= _LONGEST_HEADING and any(word.lower() not in _COMMON for word in words):
            yield "heading", _asked(heading.strip(" .:;,-")), document.document_id
    for sentence in _SENTENCE.findall(document.content):
        said = _keywords(sentence)
        if said is not None:
            yield "sentence", said, document.document_id


def _asked(heading: str) -> str:
    """The heading as a question; which one depends on its length alone, so that it stays the same.

    >>> _asked("Refunds")
    'can somebody help with refunds'
    """
    low = " ".join(heading.split())
    low = low if low.isupper() else low[0].lower() + low[1:]
    return _QUESTIONS[len(low) % len(_QUESTIONS)].format(low)


def _keywords(sentence: str) -> str | None:
    """The words that carry the sentence, as somebody types them into a search box; None when they are few.

    >>> _keywords("A refund of an invoice takes five days after the approval.")
    'refund invoice takes five days approval'
    """
    words = [word.lower() for word in _WORD.findall(sentence)]
    kept = list(dict.fromkeys(word for word in words if word not in _COMMON))[:_MOST_WORDS]
    return " ".join(kept) if len(kept) >= _FEWEST_WORDS else None


def drafted_from(
    tables: OfflineStore, read: Callable[[Sequence[str]], Sequence[_Read]], *, count: int, seed: int = 20
) -> tuple[Drafted, ...]:
    """A draft from a sample of the stored documents, which is large enough for `count` queries."""
    _possible(count, seed)
    ids = sorted(tables.read("documents", ["document_id"])["document_id"].to_pylist())
    if not ids:
        message = "there are no documents to draft queries from; run: lodestore run ingest"
        raise GoldenError(message)
    picks = np.random.default_rng(seed).permutation(len(ids))[: max(count, _DOCUMENTS_PER_STEP)]
    chosen = [ids[place] for place in sorted(picks)]
    steps = (chosen[start : start + _DOCUMENTS_PER_STEP] for start in range(0, len(chosen), _DOCUMENTS_PER_STEP))
    documents = sorted((one for step in steps for one in read(step)), key=lambda one: one.document_id)
    found = draft(documents, count=count, seed=seed)
    if not found:
        message = "no heading or sentence of the documents makes a query; write golden queries by hand"
        raise GoldenError(message)
    return found


def write(drafted: Sequence[Drafted], queries: Path, qrels: Path) -> None:
    """Both files are there; a file that was there before is never overwritten."""
    for path in (queries, qrels):
        if path.exists():
            message = f"{path} exists; a draft overwrites nothing: name another folder or move the file"
            raise RefusedError(message)
    lines = [json.dumps(one.to_json(), ensure_ascii=False) for one in drafted]
    judged = [f"{one.query_id}\t{one.document_id}\t1" for one in drafted]
    try:
        queries.parent.mkdir(parents=True, exist_ok=True)
        queries.write_text("\n".join(lines) + "\n", encoding="utf-8")
        qrels.write_text("\n".join(["query-id\tcorpus-id\tscore", *judged]) + "\n", encoding="utf-8")
    except OSError as error:
        message = f"the draft cannot be written into {queries.parent}: {error.strerror}; name another folder"
        raise GoldenError(message) from error
