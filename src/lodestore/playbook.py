"""What each check means, what usually makes it fail, what that does to answers, and the command that settles it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["GUIDE", "Guide", "guide", "marked"]


@dataclass(frozen=True, slots=True)
class Guide:
    """One kind of check, in words."""

    means: str
    cause: str
    effect: str
    settle: str

    def description(self) -> str:
        """All of it, as the description of a check."""
        return f"{self.means} Usual cause: {self.cause}. Settle it with: {marked(self.settle)}."


def marked(told: str) -> str:
    """The commands in a sentence, marked as code.

    >>> marked("lodestore evaluate, then: lodestore models rollback content")
    '`lodestore evaluate`, then: `lodestore models rollback content`'
    """
    return re.sub(r"lodestore [^,:;]*[^,:;\s]", lambda found: f"`{found[0]}`", told)


_RISE = "an upstream change of unit, filter or schema; or the world did change"
GUIDE: Mapping[str, Guide] = MappingProxyType({
    "index_recall": Guide(
        "The vector index finds what an exact search finds, with and without filters.",
        "vectors that moved since the index was built",
        "good chunks are passed over, the more so under filters",
        "set search.rebuild = true in lodestore.toml, then: lodestore run monitor",
    ),
    "index_tail": Guide(
        "The vector index covers the rows.",
        "many small ingestions since the index was last brought up to date",
        "searches are slower: what the index does not cover is scanned",
        "lodestore run ingest",
    ),
    "search_speed": Guide(
        "A search of the live vectors takes less than a tenth of a second.",
        "many small ingestions since the last upkeep, a large table without an index, or a machine with other work",
        "every answer waits for it",
        "lodestore run maintain",
    ),
    "context_replay": Guide(
        "A served context can be made again from history, with the same chunks.",
        "an index that misses chunks, or rows that changed without a trace",
        "training data and evaluations do not show what users got",
        "lodestore replay CONTEXT_ID",
    ),
    "has_rows": Guide(
        "There are documents to answer from.",
        "a source that moved, or a glob that matches nothing",
        "without documents every answer is empty",
        "lodestore doctor",
    ),
    "ids_unique": Guide(
        "No document is stored twice.",
        "two writers that went around the lock",
        "one document takes two places of a result",
        "lodestore doctor",
    ),
    "rejects": Guide(
        "Every file of the sources could be read.",
        "a broken file, or one that is not UTF-8",
        "what those files say is missing from answers",
        "lodestore doctor",
    ),
    "sources_whole": Guide(
        "Documents that left their source have left the store.",
        "a mount that was half empty, a listing that failed, or more documents gone than max_retire allows",
        "answers may quote documents that are no longer there",
        "do what the message says, or mend the source, then: lodestore run ingest",
    ),
    "chunk_ids_unique": Guide(
        "No chunk is stored twice.",
        "two writers that went around the lock",
        "one passage takes two places of a result",
        "lodestore doctor",
    ),
    "truncated": Guide(
        "The model sees every chunk to its end.",
        "chunks.size above what the model reads",
        "the ends of chunks cannot be found",
        "lodestore models plan content",
    ),
    "coverage": Guide(
        "Every current chunk has its vector.",
        "an ingestion that was stopped",
        "new and changed documents are not found by meaning",
        "lodestore run ingest",
    ),
    "vector_ids_unique": Guide(
        "No vector is stored twice.",
        "two writers that went around the lock",
        "one passage takes two places of a result",
        "lodestore doctor",
    ),
    "vectors_sound": Guide(
        "No stored vector is NaN, infinite or of length zero.",
        "a model run in too low a precision, or rows written by other software",
        "such rows are never found",
        "lodestore run ingest",
    ),
    "vector_health": Guide(
        "A fresh look at the vectors: none is NaN, infinite, zero or of the wrong dimension.",
        "a damaged file, or rows written by other software",
        "such rows are never found, or make searches fail",
        "lodestore models show",
    ),
    "norms": Guide(
        "The vectors have the lengths that they had.",
        "a model without its normalisation step",
        "scores are no longer comparable with those of before",
        "lodestore models show",
    ),
    "merged_vectors": Guide(
        "Different texts have different vectors.",
        "a model that collapsed, or one that does not know the language of the texts",
        "these texts cannot be told apart by meaning",
        "lodestore search QUERY --k 20",
    ),
    "anisotropy": Guide(
        "Random vectors do not all point the same way.",
        "a model that collapsed, or a corpus of near copies",
        "scores hardly tell relevant from irrelevant",
        "lodestore evaluate",
    ),
    "neighbours": Guide(
        "Rows have the neighbours that they had when the baseline was pinned.",
        "many new documents on the same subjects, a stale index, or altered vectors",
        "the same question finds other passages",
        "lodestore evaluate",
    ),
    "canary": Guide(
        "The running model is the registered one: pinned texts get the vectors of registration day.",
        "an updated library or weights file, or a hosted model that was changed",
        "queries and stored vectors speak different languages: results are noise",
        "lodestore models plan content",
    ),
    "drift": Guide(
        "The newest window has the distribution of the pinned baseline, in every column.",
        _RISE,
        "answers and models rest on data unlike that which they were tuned on",
        "lodestore drift check, then if the new level is right: lodestore drift rebaseline --reason '...'",
    ),
    "embedding_drift": Guide(
        "Documents are about what they were about when the version went live.",
        "off-topic documents in a source, another language, or a new part of the corpus",
        "strange passages compete with the right ones",
        "lodestore drift check, then if the documents belong: lodestore drift rebaseline content --reason '...'",
    ),
    "golden_level": Guide(
        "The live release answers the golden queries as well as when it went live.",
        "documents that left or were rewritten, or a model that is not the registered one",
        "answers are worse than on the day of promotion",
        "lodestore evaluate, then: lodestore models rollback content",
    ),
    "fresh": Guide(
        "The newest event is as young as the view promises.",
        "a stopped source, a failing job, or a daemon that does not run",
        "answers are personalised by what was true before",
        "lodestore run features",
    ),
    "documents_fresh": Guide(
        "Documents were read within the last 36 hours.",
        "a failing ingestion, or a daemon that does not run",
        "answers are of the day before yesterday",
        "lodestore run ingest",
    ),
    "event_ids_unique": Guide(
        "No event is recorded twice.",
        "two writers that went around the lock",
        "counts and averages are too high",
        "lodestore doctor",
    ),
    "rows_taken": Guide(
        "Every row of the event files, and every computed one, was taken.",
        "a changed export, a category that is not declared, or a clock ahead of time",
        "the history lacks these events, and features are of older ones",
        "lodestore doctor",
    ),
    "published": Guide(
        "What is online is as new as the history.",
        "a publication that was not run, or an online store that was emptied",
        "a model sees other values than it was trained on",
        "lodestore run features",
    ),
    "skew_mismatch": Guide(
        "Sampled online reads gave what the history says of that moment.",
        "late events, wrong clocks, or two definitions of one feature",
        "a model sees other values than it was trained on",
        "lodestore run features",
    ),
    "skew_missing": Guide(
        "What the history knew at the moment of a read was served.",
        "publication is rarer than the events",
        "answers are less personal than they could be",
        "lodestore run features",
    ),
    "skew_extra": Guide(
        "What was served is in the history.",
        "a journal that is not drained, or rows that were deleted from a history",
        "training data lacks what answers rested on",
        "lodestore run drain",
    ),
    "gx": Guide(
        "An expectation of the suite holds for every row.",
        "an upstream change of unit, filter or schema",
        "depends on the column: wrong values are served as they are",
        "lodestore run monitor, after the source is mended",
    ),
})  # fmt: skip
_UNKNOWN = Guide("A check of this project.", "see its description", "see its description", "lodestore status")


def guide(check: str) -> Guide:
    """The words for a check; those of the suites share one entry."""
    return GUIDE.get(check) or (GUIDE["gx"] if check.startswith("gx_") else _UNKNOWN)
