"""False-alarm rate and power of the drift detectors, beside three simpler rules.

    python benchmarks/drift_calibration.py --runs 200

Each number is the percentage of runs that raised something. The simpler rules look at one feature each: `guide` is a
mean that moved by more than a tenth of the standard deviation, `KS` a p-value under 0.05, `PSI` an index above 0.1.
Without drift a run is twenty quiet features, and counts when any of them raises anything. With drift, `1 of 20` is
Lodestore with the drifted feature among nineteen quiet ones: it has to pass Holm's first and hardest step,
a twentieth of the budget, so that the quiet ones need not be drawn. `alone` is the feature by itself; the rules
see it alone, too. `best` is the two-sided z test with known variance at the same level: no test does better.
`5,000/500` means a baseline of 5,000 rows and a window of 500.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data import topics as manual

import numpy as np
import pyarrow as pa
from scipy.stats import ks_2samp, norm

from lodestore.adapters.factory import embedder
from lodestore.drift import ALPHA, Baseline, category_drift, compare, embedding_drift, numeric_drift, sketch, variation
from lodestore.drift.numeric import psi
from lodestore.models import EmbeddingModel, identify

SIZES = (500, 5_000, 50_000)
PAIRS = ((500, 500), (1_000, 500), (4_000, 500), (5_000, 5_000), (50_000, 50_000))
FEATURES = 20
ASKED = 0.25  # the shift, in standard deviations, that has to be found among 500 rows
DIMENSION = 96  # of the drawn documents: a quarter of a model's, so that the whole grid takes an hour and not four
POOL = 150_000  # vectors that windows of documents are drawn from
CATEGORIES = np.array(["beginner", "expert", "intermediate", "other"])
SHARES = np.array([0.4, 0.3, 0.25, 0.05])
HEAD = ("1 of 20", "alone", "best", "guide", "KS", "PSI")
NONE = float("nan")

Change = Callable[[np.random.Generator, np.ndarray], np.ndarray]
Rule = Callable[[np.ndarray, np.ndarray], bool]


@dataclass(frozen=True)
class Case:
    """A change of one feature. `sigma` is the shift of a number, where that is all."""

    name: str
    change: Change
    categorical: bool = False
    sigma: float | None = None


def shifted(by: float) -> Case:
    return Case(f"shift of {by} sigma", lambda _, values: values + by, sigma=by)


def nulls(share: float) -> Change:
    return lambda rng, values: np.where(rng.random(len(values)) < share, np.nan, values)


def replaced(share: float, value: str) -> Change:
    return lambda rng, values: np.where(rng.random(len(values)) < share, value, values)


def swapped(one: str, other: str) -> Change:
    return lambda _, values: np.where(values == one, other, np.where(values == other, one, values))


CASES = (
    *map(shifted, (0.03, 0.1, ASKED, 0.5)),
    Case("spread x 1.25", lambda _, values: values * 1.25),
    Case("spread x 1.5", lambda _, values: values * 1.5),
    Case("a constant that moves", lambda _, values: np.ones(len(values))),
    Case("nulls +2 points", nulls(0.02)),
    Case("nulls +5 points", nulls(0.05)),
    Case("categories swapped, 30 and 5 %", swapped("expert", "other"), categorical=True),
    Case("categories swapped, 30 and 25 %", swapped("expert", "intermediate"), categorical=True),
    Case("a new category, 2 %", replaced(0.02, "alien"), categorical=True),
)


def column(rng: np.random.Generator, rows: int, *, categorical: bool) -> np.ndarray:
    if categorical:
        return CATEGORIES[np.searchsorted(np.cumsum(SHARES)[:-1], rng.random(rows), "right")]
    return rng.standard_normal(rows)


# -- the simpler rules


def guide_rule(before: np.ndarray, after: np.ndarray) -> bool:
    """As the guide has it: means and spreads of all values, so that one NaN makes every comparison false."""
    return bool(before.std() > 0 and abs(after.mean() - before.mean()) / before.std() > 0.1)


def ks_rule(before: np.ndarray, after: np.ndarray) -> bool:
    return bool(ks_2samp(before, after[~np.isnan(after)], method="asymp").pvalue < 0.05)


def psi_rule(before: np.ndarray, after: np.ndarray) -> bool:
    return psi(before, after) > 0.1


RULES: tuple[Rule, ...] = (guide_rule, ks_rule, psi_rule)


# -- numbers and categories


def one_run(case: Case, seed: int, before: int, after: int) -> list[float]:
    """What each rule said of one pair of windows, 1 for drift; NaN where it does not apply."""
    rng = np.random.default_rng(seed)
    old = column(rng, before, categorical=case.categorical)
    new = case.change(rng, column(rng, after, categorical=case.categorical))
    old = np.zeros(before) if case.name.startswith("a constant") else old
    judged = category_drift if case.categorical else numeric_drift
    ours = [judged(old, new, alpha=ALPHA / FEATURES).drifted, judged(old, new).drifted]
    theirs = [NONE] * len(RULES) if case.categorical else [rule(old, new) for rule in RULES]
    return [*ours, best(case, before, after), *theirs]


def best(case: Case, before: int, after: int) -> float:
    """The power of the z test with known variance at the level of one feature among twenty."""
    if case.sigma is None:
        return NONE
    size, crossed = case.sigma / np.sqrt(1 / before + 1 / after), norm.isf(ALPHA / FEATURES / 2)
    return float(norm.sf(crossed - size) + norm.cdf(-crossed - size))


def quiet_run(seed: int, before: int, after: int, *, categorical: bool) -> list[float]:
    """Whether any of twenty features without drift raised anything, by each rule."""
    rng = np.random.default_rng(seed)
    old = {f"f{at}": column(rng, before, categorical=categorical) for at in range(FEATURES)}
    new = {f"f{at}": column(rng, after, categorical=categorical) for at in range(FEATURES)}
    ours = bool(compare(pa.table(old), pa.table(new)).drifted)
    theirs = [NONE] * 3 if categorical else [any(rule(old[one], new[one]) for one in old) for rule in RULES]
    return [ours, NONE, NONE, *theirs]


def weeks(rng: np.random.Generator, count: int, rows: int, between: float) -> list[pa.Table]:
    """Windows of twenty features, the means of which differ from week to week."""
    return [
        pa.table({f"f{at}": rng.standard_normal(rows) + between * rng.standard_normal() for at in range(FEATURES)})
        for _ in range(count)
    ]


def restless_run(seed: int, rows: int, between: float) -> list[float]:
    """A quiet week among 26 that differ by themselves: whether fitted limits raised something, and default ones."""
    *history, now = weeks(np.random.default_rng(seed), 27, rows, between)
    held: list[Baseline] = [sketch(one) for one in history]
    pinned = sketch(pa.concat_tables(history[-8:]))
    fitted = compare(pinned, now, natural=variation(held)).drifted
    moved = now.set_column(0, "f0", pa.array(now["f0"].to_numpy() + 10 * between))
    seen = "f0" in compare(pinned, moved, natural=variation(held)).drifted
    return [bool(fitted), bool(compare(pinned, now).drifted), seen]


# -- documents


def cloud(rng: np.random.Generator, rows: int, topics: np.ndarray) -> np.ndarray:
    """Unit vectors scattered about topics, shape (rows, dimension)."""
    noise = rng.standard_normal((rows, DIMENSION), dtype=np.float32) / np.float32(np.sqrt(DIMENSION))
    noise += topics[rng.integers(len(topics), size=rows)]
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    return noise


class World:
    """Documents on twenty subjects, and some on five others."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        topics = rng.standard_normal((25, DIMENSION)) + 0.5 * rng.standard_normal(DIMENSION)
        topics = (topics / np.linalg.norm(topics, axis=1, keepdims=True)).astype(np.float32)
        self.known, self.strange = cloud(rng, POOL, topics[:20]), cloud(rng, POOL // 10, topics[20:])

    def raised(self, share: float, rows: int, seed: int) -> bool:
        """Whether a share of documents of other subjects was seen; a share of 1 is the swapped model."""
        rng = np.random.default_rng(seed)
        order, off = rng.permutation(POOL)[: 2 * rows], int(share * rows) if share < 1 else 0
        before, after = self.known[order[:rows]], self.known[order[rows + off :]]
        if off:
            after = np.concatenate([after, self.strange[rng.permutation(POOL // 10)[:off]]])
        if share == 1:
            after = after @ np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))[0].astype(np.float32)
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


class Manual:
    """Real text: paragraphs of Python's manual and everyday letters, embedded by a small real model."""

    def __init__(self) -> None:
        model = EmbeddingModel(name="words", version="1", source="package:wordllama")
        embed = embedder(model, identify(model, root=Path.cwd())).embed_documents
        paragraphs = [one for text in manual.topics.values() for one in re.split(r"\n\s*\n", text) if len(one) > 80]
        self.known = np.asarray(embed(paragraphs))
        self.strange = np.asarray(embed(letters(np.random.default_rng(0), 400)))

    def raised(self, share: float, rows: int, seed: int) -> bool:
        """Whether letters among the paragraphs were seen."""
        rng, off = np.random.default_rng(seed), int(share * rows)
        order = rng.permutation(len(self.known))
        after = np.concatenate(
            [self.known[order[rows : 2 * rows - off]], self.strange[rng.permutation(len(self.strange))[:off]]]
        )
        return embedding_drift(self.known[order[:rows]], after, seed).drifted


# -- the table


def line(name: str, rows: str, runs: int, cells: Sequence[float]) -> None:
    shown = "".join(f"{'-' if np.isnan(cell) else f'{100 * cell:.1f}':>9}" for cell in cells)
    print(f"{name:<34}{rows:>15}{runs:>7}{shown}", flush=True)


def sizes(before: int, after: int) -> str:
    return f"{after:,}" if before == after else f"{before:,}/{after:,}"


def averaged(cells: Iterator[Sequence[float]]) -> list[float]:
    return list(np.mean(list(cells), axis=0))


def numbers(runs: int) -> None:
    for word, categorical in (("numbers", False), ("categories", True)):
        for before, after in PAIRS:
            # the rate is small: it takes more runs to be seen
            count = runs * (5 if after <= 500 else 1)
            cells = averaged(quiet_run(seed, before, after, categorical=categorical) for seed in range(count))
            line(f"no drift, 20 {word}", sizes(before, after), count, cells)
    for case in CASES:
        for before, after in PAIRS:
            # what is asked of this one is near what can be reached: a few per cent matter
            count = runs * (10 if case.sigma == ASKED and after <= SIZES[0] else 1)
            cells = averaged(one_run(case, seed, before, after) for seed in range(count))
            line(case.name, sizes(before, after), count, cells)


def documents(runs: int) -> None:
    world = World()
    for share in (0.0, 0.02, 0.05, 0.2, 1.0):
        name = "model swapped, same dimension" if share == 1 else f"{share:.0%} off-topic documents"
        for rows in SIZES:
            count = runs if share or rows > SIZES[0] else 5 * runs
            caught = float(np.mean([world.raised(share, rows, seed) for seed in range(count)]))
            line(name if share else "no drift, documents", f"{rows:,}", count, [NONE, caught, *[NONE] * 4])
    real = Manual()
    for share in (0.0, 0.02, 0.05, 0.2):
        caught = float(np.mean([real.raised(share, 500, seed) for seed in range(runs)]))
        line(f"{share:.0%} letters in Python's manual", "500", runs, [NONE, caught, *[NONE] * 4])


def history(runs: int) -> None:
    print(
        "\n20 quiet features, 26 weeks that differ by themselves, a baseline of the last eight: a run raises something"
    )
    print(f"{'':<34}{'n':>15}{'runs':>7}{'fitted':>9}{'default':>9}{'moved':>9}   (moved: by ten times the usual)")
    for rows, between in ((500, 0.1), (5_000, 0.05), (5_000, 0.1), (5_000, 0.3)):
        cells = averaged(restless_run(seed, rows, between) for seed in range(runs))
        line(f"weeks differ by {between} sigma", f"{rows:,}", runs, cells)


def speed() -> None:
    """Seconds for 20 columns of 100,000 rows, and for their sketches alone."""
    rng = np.random.default_rng(0)
    before, after = (pa.table({f"f{at}": rng.standard_normal(100_000) for at in range(20)}) for _ in range(2))
    assert not compare(before, after).drifted
    moved = after.set_column(3, "f3", pa.array(after["f3"].to_numpy() + 0.25))
    assert compare(before, moved).drifted == ("f3",)
    pinned, taken = sketch(before), []
    for one in (before, pinned):
        start = time.perf_counter()
        compare(one, after)
        taken.append(time.perf_counter() - start)
    print(f"\n20 columns x 100,000 rows: {taken[0]:.3f} s two tables, {taken[1]:.3f} s against a pinned baseline")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=12, help="runs of every cell (200 to publish)")
    parser.add_argument(
        "--only", choices=("numbers", "documents", "history", "speed"), action="append", help="a part of it alone"
    )
    given = parser.parse_args()
    parts = {"numbers": numbers, "documents": documents, "history": lambda runs: history(max(1, runs // 2))}
    chosen = given.only or [*parts, "speed"]
    print(f"{'percentage of runs that raise':<34}{'n':>15}{'runs':>7}" + "".join(f"{name:>9}" for name in HEAD))
    for name, part in parts.items():
        if name in chosen:
            part(given.runs)
    if "speed" in chosen:
        speed()


if __name__ == "__main__":
    main()
