"""The tour of `make demo`: from documents to a personalised, cited context, and what it took."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from examples import people

if TYPE_CHECKING:
    from lodestore.context import Context
    from lodestore.project import Project
    from lodestore.retrieval import SearchResult

ROOT = Path(__file__).resolve().parent.parent
QUESTION = "what is a generator and how does yield work?"
_WIDE = 96


def main() -> int:
    """Run the main job and show what came of it; the exit code is that of the jobs."""
    started = time.monotonic()
    people.write(ROOT / "demo")
    print("Lodestore: running the jobs `ingest` and `features` in Dagster\n", flush=True)
    Thread(target=load_libraries).start()
    jobs = subprocess.run([sys.executable, "-m", "lodestore", "run", "ingest", "features"], cwd=ROOT, check=False)
    if jobs.returncode:
        return jobs.returncode
    from lodestore.project import open_project

    project = open_project(ROOT)
    summary(project)
    answers(project)
    print(f"\nDone in {time.monotonic() - started:.0f} s. Go on with:\n")
    print("  make dev                                   the Dagster UI, with the feature server beside it")
    print('  .venv/bin/lodestore search "context manager"')
    print('  .venv/bin/lodestore why "context manager" --document reference/compound')
    print('  .venv/bin/lodestore context "what is a closure?" --user ada')
    print("  .venv/bin/lodestore status                 what is live, declared, fresh, failing")
    print("  .venv/bin/lodestore init ../mine           a project of your own")
    return 0


def load_libraries() -> None:
    """What the search at the end needs: its import takes as long as jobs that find nothing to do."""
    for name in ("lancedb", "sentence_transformers"):
        importlib.import_module(name)


def heading(text: str) -> None:
    """A line that starts a part."""
    print(f"\n{text}\n" + "-" * len(text))


def summary(project: Project) -> None:
    """What the store holds now."""
    from lodestore.status import checks_of
    from lodestore.tables import chunk_table

    heading("In the store")
    documents = project.corpus.figures()
    print(f"  documents   {documents['live']:,} read, {documents['rejected']} rejected, {documents['retired']} retired")
    for chunker in project.pipeline.chunkers():
        counts = project.tables.read(chunk_table(chunker.id), ["n_tokens"])["n_tokens"].to_numpy()
        print(f"  chunks      {len(counts):,} of at most {chunker.size} tokens, {counts.sum():,} tokens in all")
    for version in project.versions.all():
        health = project.pipeline.health(version)
        print(
            f"  vectors     {version.feature:8} {version.label:10} {health.rows:6,} rows, {health.coverage:.0%} covered"
        )
    checks = checks_of(project.logs.rows("checks"))
    print(f"  checks      {checks.passed} passed, {checks.warned} warned, {checks.failed} failed")
    for view in project.features.figures():
        print(f"  view        {view['name']:18} {view['entities']:4,} entities, {view['state']}")
    live = project.releases.live()
    print(f"  release     {live.generation}, templates {', '.join(live.templates)}")


def answers(project: Project) -> None:
    """One search, and the same question asked by a beginner and by an expert."""
    project.warm(project.releases.live())  # the time below is that of a search, not of loading a model
    heading(f"Search: {QUESTION}")
    found = project.store.search(QUESTION, k=4)
    hits(found)
    trust(project, found)
    for user in ("ben", "ada"):
        context(project.store.context(QUESTION, user_id=user, k=4, token_budget=700), user)


def hits(found: SearchResult) -> None:
    """The hits, a line each."""
    for place, hit in enumerate(found.hits, start=1):
        print(f"  {place}. {hit.title[:38]:38}  {' '.join(prose(hit.text, hit.title))[: _WIDE - 48]}")
    print(f"  ({found.mode}, {found.version}, release {found.release}, {found.took_ms:.0f} ms)")


def trust(project: Project, found: SearchResult) -> None:
    """Why the last hit is not the first."""
    last = found.hits[-1].document_id
    print(f"  why is {last} not first? {project.store.why(QUESTION, last, k=1).sentence}")


def prose(text: str, title: str = "") -> list[str]:
    """The lines that say something: no blank ones, no rulers, not the title once more."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    return [line for line in lines if any(map(str.isalnum, line)) and line != title]


def context(made: Context, user: str) -> None:
    """The head of a prompt, and its citations."""
    level = made.features.get("user_profile:expertise_level")
    heading(f"Context for {user}, {level} ({made.template_id} {made.template_version}, {made.n_tokens} tokens)")
    shown = prose(made.prompt)[:5]
    print("\n".join(f"  | {line[:_WIDE]}" for line in shown))
    print("  | ...")
    for place, hit in enumerate(made.hits, start=1):
        print(f"  [{place}] {hit.title}: {hit.uri}, characters {hit.start} to {hit.end}")


if __name__ == "__main__":
    sys.exit(main())
