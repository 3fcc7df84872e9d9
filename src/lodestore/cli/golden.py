"""golden: draft golden queries from the corpus, look at golden sets, build point-in-time datasets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lodestore.cli.page import Block, Facts, Table
from lodestore.cli.session import Session, command, group

if TYPE_CHECKING:
    from lodestore.retrieval import Mode

__all__ = ["golden"]

_SHOWN = 10

golden = group("golden", "Golden queries: what good answers are, and how to come by them.")


@command(golden, "list")
def list_(session: Session) -> None:
    """List the declared golden sets."""
    from lodestore.evaluation import golden_set

    sets = [golden_set(session.project, one.name) for one in session.project.settings.golden]
    value = [
        {"name": one.name, "queries": len(one.queries), "judged": len(one.judged), "documents": len(one.documents)}
        for one in sets
    ]
    rows = [list(one.values()) for one in value]
    hint = "no golden set is declared; draft one with: lodestore golden draft"
    session.show({"golden": value}, [Table(("name", "queries", "judged", "documents"), rows, empty=hint)])


@command(golden)
@click.option("--count", default=100, show_default=True, help="How many queries at most.")
@click.option("--seed", default=20, show_default=True, help="Another seed, another choice.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("golden"),
    show_default=True,
    help="The folder for queries.jsonl and qrels.tsv, from the folder of the settings.",
)
def draft(session: Session, count: int, seed: int, out: Path) -> None:
    """Draft queries from the headings and sentences of the documents, marked as synthetic."""
    from lodestore.drafting import drafted_from, write

    project = session.project
    made = drafted_from(project.tables, project.corpus.documents, count=count, seed=seed)
    folder = project.settings.root / out
    write(made, folder / "queries.jsonl", folder / "qrels.tsv")
    files = {"queries": str(out / "queries.jsonl"), "qrels": str(out / "qrels.tsv")}
    rows = [[one.text, one.segment, one.document_id] for one in made[:_SHOWN]]
    lines = f'[golden]\nqueries = "{files["queries"]}"\nqrels = "{files["qrels"]}"'
    page: list[Block] = [
        Table(("query", "segment", "document"), rows, title=f"{len(made)} drafted queries, the first of them"),
        Facts(files, title="Written"),
        f"\nTo use them, add to lodestore.toml:\n\n{lines}\n",
        "They are synthetic: replace them by questions that people ask, as soon as there are some.",
    ]
    session.show({"drafted": len(made), **files, "synthetic": True}, page)


@command(golden)
@click.option("--questions", required=True, type=click.Path(path_type=Path), help="Parquet, CSV or JSONL.")
@click.option("--features", multiple=True, metavar="VIEW:FEATURE", help="Features as of each question.")
@click.option("--k", default=10, show_default=True, help="How many chunks for each question.")
@click.option(
    "--mode", type=click.Choice(["vector", "hybrid", "text"]), default="vector", show_default=True, help="As of search."
)
@click.option("--filter", "where", help="As of search.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The file to write: Parquet, CSV or JSONL.")
def dataset(
    session: Session, questions: Path, features: tuple[str, ...], k: int, mode: Mode, where: str | None, out: Path
) -> None:
    """Write the chunks and features that each past question would have got, for training rerankers.

    QUESTIONS has the columns query and event_timestamp, the keys of the features' entities (user_id),
    and whatever else should come along.
    """
    from lodestore.conditions import compiled
    from lodestore.datasets import build, leaks
    from lodestore.tablefiles import read_table, with_moments, write_table

    project = session.project
    made = build(
        with_moments(read_table(questions, texts=["query", "user_id"])),
        past=project.past,
        history=lambda entities, wanted: project.store.historical(entities, list(wanted)),
        features=features,
        k=k,
        mode=mode,
        where=compiled(where) if where else None,
    )
    write_table(made, out)
    value = {"rows": made.num_rows, "columns": made.column_names, "leaks": leaks(made), "out": str(out)}
    session.show(value, [Facts(value)])
