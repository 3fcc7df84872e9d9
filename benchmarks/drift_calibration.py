"""False-alarm rate and power of the drift detectors, beside three simpler rules.

    python benchmarks/drift_calibration.py --runs 12

Each number is the percentage of runs that raised something. `1 of 20` is Lodestore with the drifted
feature among nineteen quiet ones, `alone` with that feature by itself; both windows have n rows. The
simpler rules look at the drifted feature alone: `guide` is a mean that moved by more than a tenth of
the standard deviation, `KS` a p-value under 0.05, `PSI` an index above 0.1. Without drift, a run counts
when any of the twenty features raises anything.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data import topics as manual

import numpy as np
import pyarrow as pa
from scipy.stats import ks_2samp

from lodestore.adapters.factory import embedder
from lodestore.drift import category_drift, compare, embedding_drift, numeric_drift, psi
from lodestore.models import EmbeddingModel, identify

SIZES = (500, 5_000, 50_000)
FEATURES = 20
DIMENSION = 384
CATEGORIES = np.array(["beginner", "expert", "intermediate", "other"])
SHARES = np.array([0.4, 0.3, 0.25, 0.05])
HEAD = ("1 of 20", "alone", "guide", "KS", "PSI")

Change = Callable[[np.random.Generator, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Case:
    """A change of the first feature of a window."""

    name: str
    change: Change
    categorical: bool = False


def shifted(by: float) -> Change:
    return lambda _, values: values + by


def spread(factor: float) -> Change:
    return lambda _, values: values * factor


def nulls(share: float) -> Change:
    return lambda rng, values: np.where(rng.random(len(values)) < share, np.nan, values)


def replaced(share: float, value: str) -> Change:
    return lambda rng, values: np.where(rng.random(len(values)) < share, value, values)


def swapped(_: np.random.Generator, values: np.ndarray) -> np.ndarray:
    return np.where(values == "expert", "other", np.where(values == "other", "expert", values))


CASES = (
    Case("no drift, numbers", shifted(0.0)),
    Case("no drift, categories", lambda _, values: values, categorical=True),
    *(Case(f"shift of {by} sigma", shifted(by)) for by in (0.03, 0.1, 0.25, 0.5)),
    *(Case(f"spread x {factor}", spread(factor)) for factor in (1.25, 1.5)),
    Case("a constant that moves", lambda _, values: np.full(len(values), 1.0)),
    Case("nulls +2 points", nulls(0.02)),
    Case("nulls +5 points", nulls(0.05)),
    Case("two categories swapped", swapped, categorical=True),
    Case("a new category, 2 %", replaced(0.02, "alien"), categorical=True),
)


def column(rng: np.random.Generator, case: Case, rows: int) -> np.ndarray:
    if case.categorical:
        return CATEGORIES[np.searchsorted(np.cumsum(SHARES)[:-1], rng.random(rows), "right")]
    return rng.standard_normal(rows)


def guide_rule(before: np.ndarray, after: np.ndarray) -> bool:
    return bool(before.std() > 0 and abs(after.mean() - before.mean()) / before.std() > 0.1)


def ks_rule(before: np.ndarray, after: np.ndarray) -> bool:
    return bool(ks_2samp(before, after[~np.isnan(after)], method="asymp").pvalue < 0.05)


def rivals(before: np.ndarray, after: np.ndarray) -> list[bool]:
    return [guide_rule(before, after), ks_rule(before, after), psi(before, after) > 0.1]


def one_run(case: Case, rows: int, seed: int, rows_before: int) -> list[float]:
    """What each rule said of one pair of windows, 1 for drift; NaN where a rule does not apply."""
    rng = np.random.default_rng(seed)
    before = {f"f{at}": column(rng, case, rows_before) for at in range(FEATURES)}
    after = {f"f{at}": column(rng, case, rows) for at in range(FEATURES)}
    if case.name.startswith("a constant"):
        before["f0"] = np.zeros(rows_before)
    after["f0"] = case.change(rng, after["f0"])
    drifted = compare(pa.table(before), pa.table(after)).drifted
    quiet = case.name.startswith("no drift")
    if case.categorical:
        alone = category_drift(before["f0"], after["f0"]).drifted
        return [bool(drifted) if quiet else "f0" in drifted, alone, np.nan, np.nan, np.nan]
    alone = numeric_drift(before["f0"], after["f0"]).drifted
    if not quiet:
        return ["f0" in drifted, alone, *rivals(before["f0"], after["f0"])]
    others = np.array([rivals(before[name], after[name]) for name in before])
    return [bool(drifted), alone, *others.any(axis=0)]


def cloud(rng: np.random.Generator, rows: int, topics: np.ndarray) -> np.ndarray:
    """Unit vectors scattered about topics, shape (rows, dimension)."""
    noise = rng.standard_normal((rows, DIMENSION), dtype=np.float32) / np.float32(np.sqrt(DIMENSION))
    found = topics[rng.integers(len(topics), size=rows)] + noise
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def documents(share: float, rows: int, seed: int) -> bool:
    """Whether a share of documents of other topics was seen; a share of 1 is the swapped model."""
    world = np.random.default_rng(1)
    topics = world.standard_normal((25, DIMENSION)) + 0.5 * world.standard_normal(DIMENSION)
    topics = (topics / np.linalg.norm(topics, axis=1, keepdims=True)).astype(np.float32)
    rng = np.random.default_rng(seed)
    before, off = cloud(rng, rows, topics[:20]), int(share * rows)
    if share < 1:
        after = np.concatenate([cloud(rng, rows - off, topics[:20]), cloud(rng, off, topics[20:])])
    else:
        turn = np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))[0].astype(np.float32)
        after = cloud(rng, rows, topics[:20]) @ turn
    return embedding_drift(before, after, seed).drifted


def letters(rng: np.random.Generator, count: int) -> list[str]:
    """Everyday letters, none of them about a programming language."""
    people, places = ["Anna", "Ben", "Clara", "Leo", "Nora"], ["museum", "harbour", "garden", "bakery", "station"]
    days = ["Monday", "Friday", "Sunday", "the 4th", "the 19th"]
    forms = [
        "Dear {a}, shall we meet at the {b} on {c}? I would bring cake and the children.",
        "The bill of the {b} is overdue since {c}; {a} called twice and wants to be paid.",
        "{a}, the train leaves from the {b} early on {c}, please do not forget the tickets.",
        "On {c} the {b} stays closed because of the storm. Could you tell {a}?",
    ]
    picks = rng.integers(0, 1_000, (count, 4))
    return [forms[i % 4].format(a=people[j % 5], b=places[k % 5], c=days[m % 5]) for i, j, k, m in picks.tolist()]


def real_text(share: float, runs: int) -> float:
    """The percentage of runs in which letters among paragraphs of the Python manual were seen, n = 500."""
    model = EmbeddingModel(name="words", version="1", source="package:wordllama")
    embed = embedder(model, identify(model, root=Path.cwd())).embed_documents
    paragraphs = [one for text in manual.topics.values() for one in re.split(r"\n\s*\n", text) if len(one) > 80]
    known, strange = np.asarray(embed(paragraphs)), np.asarray(embed(letters(np.random.default_rng(0), 400)))
    off, caught = int(share * 500), 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(known))
        after = np.concatenate([known[order[500 : 1_000 - off]], strange[rng.permutation(len(strange))[:off]]])
        caught += embedding_drift(known[order[:500]], after, seed).drifted
    return 100 * caught / runs


def line(name: str, rows: str, runs: int, cells: Sequence[float]) -> None:
    shown = "".join(f"{'-' if np.isnan(cell) else f'{cell:.1f}':>9}" for cell in cells)
    print(f"{name:<34}{rows:>12}{runs:>7}{shown}", flush=True)


def speed() -> float:
    """Seconds for 20 columns of 100,000 rows, the second time."""
    rng = np.random.default_rng(0)
    before, after = (pa.table({f"f{at}": rng.standard_normal(100_000) for at in range(20)}) for _ in range(2))
    compare(before, after)
    start = time.perf_counter()
    compare(before, after)
    return time.perf_counter() - start


def grid(runs: int) -> None:
    for case in CASES:
        for rows, before in (*((size, size) for size in SIZES), (500, 5_000)):
            # without drift the rate is small, and takes more runs to be seen
            count = max(
                2, runs * (5 if case.name.startswith("no drift") else 1) // {500: 1, 5_000: 2, 50_000: 10}[rows]
            )
            cells = 100 * np.mean([one_run(case, rows, seed, before) for seed in range(count)], axis=0)
            line(case.name, f"{rows:,}" if rows == before else f"{before:,}/{rows:,}", count, cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", type=int, default=12, help="runs at n = 500; fewer where n is larger (200 to publish)"
    )
    runs = parser.parse_args().runs
    print(f"{'percentage of runs that raise':<34}{'n':>12}{'runs':>7}" + "".join(f"{name:>9}" for name in HEAD))
    grid(runs)
    missing = [np.nan] * 3
    for share in (0.0, 0.02, 0.05, 0.2, 1.0):
        name = "model swapped" if share == 1 else f"{share:.0%} off-topic documents"
        for rows in SIZES:
            count = max(2, runs // {500: 1, 5_000: 4, 50_000: 20}[rows])
            caught = 100 * float(np.mean([documents(share, rows, seed) for seed in range(count)]))
            line(name, f"{rows:,}", count, [np.nan, caught, *missing])
    for share in (0.0, 0.02, 0.05, 0.2):
        line(f"{share:.0%} letters in the Python manual", "500", runs, [np.nan, real_text(share, runs), *missing])
    print(f"20 columns x 100,000 rows: {speed():.3f} s")


if __name__ == "__main__":
    main()
