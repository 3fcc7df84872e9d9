"""How long a context takes, step by step, and a rendered prompt: over synthetic chunks, hybrid, without the embedding.

    python benchmarks/context.py                   20,000 chunks
    python benchmarks/context.py --rows 100000     the size that the limit of 15 ms is about; building takes minutes

The query's vector comes from a fake model, so what is measured is everything but the embedding.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from lodestore import standard
from lodestore.adapters.lance import LanceStore
from lodestore.adapters.lmdb import LmdbOnlineStore
from lodestore.catalog import catalog_of
from lodestore.context import ContextOptions
from lodestore.contexts import ContextLog
from lodestore.features import Features
from lodestore.live import Live
from lodestore.logs import Logs, utc_now
from lodestore.models import EmbeddingVersion
from lodestore.prompts import parse, render
from lodestore.releases import Release, ReleaseLog, Slot
from lodestore.store import Lodestore
from lodestore.tables import embedding_schema, ensure_logs
from lodestore.templates import Templates
from lodestore.testing import HashEmbedder
from lodestore.tokens import TokenCounter

WORDS = np.array([f"{a}{b}" for a in ("con", "ex", "de", "re", "im", "ge") for b in range(500)])
TEMPLATE = "---\nid: qa_basic\nversion: 1.0.0\nvariables: [context, question]\n---\n{context}\n\nQuestion: {question}\n"
LIMITS = {"render": 0.020, "context": 15.0}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = opened(Path(folder), options.rows, options.dimension)
        steps = contexts(store, options.rounds)
    print(f"{options.rows:,} chunks, {options.rounds} contexts; milliseconds\n")
    print(f"{'step':12} {'p50':>8} {'p95':>8}")
    for name, (middle, high) in steps.items():
        print(f"{name:12} {middle:8.3f} {high:8.3f}")
    told("context", steps["total"][0])
    told("render", rendering())


def told(name: str, value: float) -> None:
    """The measured time against its limit."""
    print(f"\n{name}: {value:.3f} ms, limit {LIMITS[name]:g} ms: {value / LIMITS[name]:.2f} of it")


def opened(folder: Path, rows: int, dimension: int) -> Lodestore:
    """A store over synthetic chunks, as a server's request sees it: one snapshot, everything open."""
    embedder = HashEmbedder(dimension)
    version = EmbeddingVersion("content", "hash", "1", "bench", embedder.fingerprint, dimension)
    tables = LanceStore(str(folder), consistency=timedelta(seconds=1))
    ensure_logs(tables)
    tables.ensure(version.table, embedding_schema(dimension), key="row_id")
    started = time.perf_counter()
    tables.append(version.table, chunks(rows, dimension, embedder.fingerprint))
    tables.index(version.table)
    print(f"built in {time.perf_counter() - started:.0f} s")
    logs = Logs(tables, utc_now)
    templates = Templates(logs)
    templates.add([parse(TEMPLATE, origin="benchmark")])
    features = Features(
        catalog_of(vars(standard).values()), tables, LmdbOnlineStore.open(folder / "online"), logs, utc_now
    )
    features.push("user_profile", [{"user_id": "ada", "event_timestamp": utc_now(), "expertise_level": "expert"}])
    counter = TokenCounter(lambda texts: [len(text.split()) for text in texts])
    release = Release(1, {Slot("template", "qa_basic"): {"1.0.0": 1.0}})
    live = Live(release, {"content": version}, lambda _: embedder, tables, lambda _: counter)
    return Lodestore(
        live=lambda: live,
        features=lambda: features,
        templates=templates,
        releases=ReleaseLog(logs, utc_now),
        clock=utc_now,
        options=ContextOptions(),
        contexts=ContextLog(logs, folder / "contexts"),
    )


def chunks(rows: int, dimension: int, fingerprint: str) -> pa.Table:
    """Rows of an embedding table: random directions, random words."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((rows, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = [" ".join(one) for one in WORDS[random.integers(0, len(WORDS), (rows, 80))]]
    now = datetime.now(UTC)
    columns: dict[str, object] = {
        "row_id": [f"{one:024x}" for one in range(rows)],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimension),
        "text": texts,
        "fingerprint": [fingerprint] * rows,
        "start": np.zeros(rows, np.int64),
        "end": [len(text) for text in texts],
        "norm": np.ones(rows),
        "document_id": [f"docs/{one // 5}" for one in range(rows)],
        "title": [f"{WORDS[one % len(WORDS)]} {one // 5}" for one in range(rows)],
    }
    columns |= dict.fromkeys(("row_hash", "content_hash", "source", "uri", "mime", "author"), ["x"] * rows)
    columns |= {"category": ["a"] * rows, "word_count": np.full(rows, 80)}
    columns |= dict.fromkeys(("embedded_at", "visible_from", "event_timestamp"), [now] * rows)
    return pa.table({one.name: pa.array(columns[one.name], one.type) if not isinstance(columns[one.name], pa.Array)
                     else columns[one.name] for one in embedding_schema(dimension)})  # fmt: skip


def contexts(store: Lodestore, rounds: int) -> dict[str, tuple[float, float]]:
    """Median and 95th percentile of each step; the first contexts open what is opened once."""
    random = np.random.default_rng(1)
    questions = [" ".join(random.choice(WORDS, 6)) for _ in range(rounds + 5)]
    first = store.context(questions[0], user_id="ada")
    assert first.hits
    assert first.prompt.count("[1] ") == 1
    assert first.prompt.endswith(f"Question: {questions[0]}")
    made = [store.context(one, user_id="ada").timings_ms for one in questions][5:]
    names = [name for name in made[0] if name != "embedding"]
    whole = [{**one, "total": one["total"] - one["embedding"]} for one in made]
    return {name: _quantiles([one[name] for one in whole]) for name in [*(n for n in names if n != "total"), "total"]}


def _quantiles(values: list[float]) -> tuple[float, float]:
    middle, high = np.quantile(values, [0.5, 0.95])
    return float(middle), float(high)


def rendering() -> float:
    """Milliseconds for one prompt of some 8,000 characters."""
    template = parse(TEMPLATE, origin="benchmark")
    values = {"context": "word " * 1_600, "question": "what is {context}?"}
    assert "{context}?" in render(template, values).text
    return best(lambda: render(template, values)) * 1000


def best(work: Callable[[], object], *, rounds: int = 2_000) -> float:
    """Seconds of the median round."""
    spent = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        spent.append(time.perf_counter() - started)
    return float(np.median(spent))


if __name__ == "__main__":
    main()
