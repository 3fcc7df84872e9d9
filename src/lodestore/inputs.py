"""What a view's compute function may read: the corpus, other histories, and figures made of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from lodestore.logs import Logs, utc_now
from lodestore.models import EmbeddingVersion
from lodestore.ports import OfflineStore
from lodestore.releases import ReleaseLog
from lodestore.spaces import versions_of
from lodestore.spec import FeatureView
from lodestore.summaries import ChunkScore, summarise
from lodestore.tables import in_list, retired, view_table
from lodestore.vectors import mean_direction, normalised

__all__ = ["Accesses", "Inputs"]

_DOCUMENTS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Accesses:
    """In how many recorded contexts a document was cited, and when last."""

    count: int
    last: datetime


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a view's compute function may read."""

    store: OfflineStore
    live_templates: pa.Table | None = field(default=None, repr=False)

    def documents(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The live documents."""
        return self.store.read("documents", columns)

    def history(self, view: FeatureView, columns: Sequence[str] | None = None) -> pa.Table:
        """Every recorded row of a view; of one that has none, an empty table."""
        return self.store.read(view_table(view), columns)

    def templates(self) -> pa.Table:
        """The live prompt templates, one row each."""
        return pa.table({}) if self.live_templates is None else self.live_templates

    def accesses(self) -> dict[str, Accesses]:
        """How often each document was cited by a recorded context; several of its chunks in one count once."""
        logged = self.store.read("contexts", ["chunks", "at"])
        if not logged.num_rows:
            return {}
        documents = self._documents_of_chunks()
        counts: Counter[str] = Counter()
        last: dict[str, datetime] = {}
        for chunks, at in zip(logged["chunks"].to_pylist(), logged["at"].to_pylist(), strict=True):
            for document in {documents[one] for one in json.loads(chunks or "[]") if one in documents}:
                counts[document] += 1
                last[document] = max(at, last.get(document, at))
        return {document: Accesses(count, last[document]) for document, count in counts.items()}

    def _documents_of_chunks(self) -> dict[str, str]:
        """Chunks of every chunker, those of earlier days among them."""
        out: dict[str, str] = {}
        for version in versions_of(Logs(self.store)).values():
            for table in (version.table, retired(version.table)):
                rows = self.store.read(table, ["row_id", "document_id"])
                out |= dict(zip(rows["row_id"].to_pylist(), rows["document_id"].to_pylist(), strict=True))
        return out

    def summaries(self, view: FeatureView) -> dict[str, str | None]:
        """A summary of each live document; one that the view's history has is kept until its document changes."""
        documents = self.documents(["document_id", "ingested_at"]).to_pylist()
        known = self._known_summaries(view)
        out: dict[str, str | None] = {}
        stale: list[str] = []
        for row in documents:
            at, text = known.get(row["document_id"], (None, None))
            if at is None or at < row["ingested_at"]:
                stale.append(row["document_id"])
            else:
                out[row["document_id"]] = text
        for start in range(0, len(stale), _DOCUMENTS_AT_ONCE):
            out |= dict(self._summarised(stale[start : start + _DOCUMENTS_AT_ONCE]))
        return out

    def _known_summaries(self, view: FeatureView) -> dict[str, tuple[datetime, str | None]]:
        rows = self.store.read(view_table(view), ["document_id", "event_timestamp", "summary"])
        out: dict[str, tuple[datetime, str | None]] = {}
        for row in rows.to_pylist():
            before = out.get(row["document_id"])
            if before is None or before[0] <= row["event_timestamp"]:
                out[row["document_id"]] = (row["event_timestamp"], row["summary"])
        return out

    def _summarised(self, ids: Sequence[str]) -> Iterator[tuple[str, str | None]]:
        among = in_list("document_id", ids)
        scores = self._chunk_scores(among)
        for row in self.store.read("documents", ["document_id", "content"], among).to_pylist():
            yield row["document_id"], summarise(row["content"] or "", chunks=scores.get(row["document_id"], ()))

    def _chunk_scores(self, among: str) -> dict[str, list[ChunkScore]]:
        """How near each chunk lies to its document, by the live version; nothing where none is live."""
        version = self._live_version()
        if version is None:
            return {}
        grouped: dict[str, list[dict[str, Any]]] = {}
        for row in self.store.read(version.table, ["document_id", "start", "end", "vector"], among).to_pylist():
            grouped.setdefault(row["document_id"], []).append(row)
        return {document: _scores(rows) for document, rows in grouped.items()}

    def _live_version(self) -> EmbeddingVersion | None:
        logs = Logs(self.store)
        return versions_of(logs).get(ReleaseLog(logs, utc_now).live().embeddings.get("content", ""))


def _scores(rows: Sequence[dict[str, Any]]) -> list[ChunkScore]:
    vectors = np.array([row["vector"] for row in rows], dtype=np.float32)
    near = normalised(vectors) @ mean_direction(vectors)
    return [ChunkScore(row["start"], row["end"], float(one)) for row, one in zip(rows, near, strict=True)]
