"""why: what keeps a document out of an answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from lodestore.cli.page import Block, Facts
from lodestore.cli.session import Session, command

if TYPE_CHECKING:
    from lodestore.retrieval import Mode
    from lodestore.why import Why

__all__ = ["why"]


@command()
@click.argument("query")
@click.option("--document", required=True, help="The document that should answer, as source/id.")
@click.option("--k", default=10, show_default=True, help="Among how many chunks it should be.")
@click.option(
    "--mode",
    type=click.Choice(["hybrid", "vector", "text"]),
    default="hybrid",
    show_default=True,
    help="As of search.",
)
@click.option("--filter", "where", help="As of search.")
def why(session: Session, query: str, document: str, k: int, mode: Mode, where: str | None) -> None:
    """Tell why a document is not found for QUERY: never read, rejected, retired, cut, filtered away, or its rank."""
    found = session.project.store.why(query, document, k=k, mode=mode, filter=where)
    session.show(found.to_json(), _page(found))


def _page(found: Why) -> Iterator[Block]:
    yield found.sentence
    if found.mend:
        yield f"To mend: {found.mend}"
    facts = {
        "document": found.document_id,
        "reason": found.reason.value,
        "mode": found.mode,
        "version": found.version,
        "release": found.release,
    }
    yield Facts(facts, title="Looked at")
