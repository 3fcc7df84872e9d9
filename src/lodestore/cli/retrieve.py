"""search, context, evaluate: what the corpus answers, and how well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from lodestore.cli.page import Block, Facts, Table, brief
from lodestore.cli.session import Session, command

if TYPE_CHECKING:
    from lodestore.context import Context
    from lodestore.evaluation import Evaluation
    from lodestore.retrieval import Hit, Mode, SearchResult

__all__ = ["context", "evaluate", "search"]

_MODES = click.Choice(["hybrid", "vector", "text"])


@command()
@click.argument("query")
@click.option("--k", default=10, show_default=True, help="How many chunks.")
@click.option("--mode", type=_MODES, default="hybrid", show_default=True, help="By meaning, by words, or both.")
@click.option("--filter", "where", help="Such as: category = 'library' and word_count > 200")
@click.option("--explain", is_flag=True, help="Also say how each chunk was found.")
@click.option("--full", is_flag=True, help="Print whole chunks.")
def search(session: Session, query: str, k: int, mode: Mode, where: str | None, *, explain: bool, full: bool) -> None:
    """Find the chunks that answer QUERY."""
    if mode != "text":
        _loaded(session)
    found = session.project.store.search(query, k=k, mode=mode, filter=where)
    value = found.to_json() | ({"explain": _explained(session, found, where)} if explain else {})
    session.show(value, _hits_page(found, value.get("explain"), full=full))


def _loaded(session: Session) -> None:
    """The model is in memory, so that the times that are told are those of an answer, not of a start."""
    session.project.live().embed(["ready"])


def _explained(session: Session, found: SearchResult, where: str | None) -> dict[str, Any]:
    from lodestore.filters import parse
    from lodestore.store import COLUMNS

    version = session.project.live().version("content")
    return {
        "table": version.table,
        "fingerprint": version.fingerprint,
        "rows": session.project.tables.count(version.table),
        "filter": parse(where, COLUMNS).sql() if where else None,
        "ranks": {hit.chunk_id: {"vector": hit.vector_rank, "text": hit.text_rank} for hit in found.hits},
    }


def _hits_page(found: SearchResult, explained: dict[str, Any] | None, *, full: bool) -> Iterator[Block]:
    for place, hit in enumerate(found.hits, start=1):
        yield f"{place:>2}. {hit.title or hit.document_id}  {click.style(_score(hit), dim=True)}"
        yield click.style(f"    {hit.document_id}", dim=True)
        yield "\n".join(f"    {line}" for line in (hit.text.splitlines() if full else [brief(hit.text)]))
        if explained:
            yield f"    {_ranks(hit)}"
    if not found.hits:
        yield "Nothing was found."
    yield f"\n{_counted(found.hits)}, {found.mode}, {found.version}, release {found.release}, {found.took_ms:.0f} ms"
    if explained:
        yield Facts({name: value for name, value in explained.items() if name != "ranks"}, title="How")


def _counted(hits: Sequence[Hit]) -> str:
    return f"{len(hits)} hit" if len(hits) == 1 else f"{len(hits)} hits"


def _score(hit: Hit) -> str:
    return f"{hit.score:.4f}"


def _ranks(hit: Hit) -> str:
    if hit.vector_rank is None and hit.text_rank is None:
        return f"characters {hit.start} to {hit.end}"
    places = {"meaning": hit.vector_rank, "words": hit.text_rank}
    return ", ".join(
        f"{name}: {'not among the candidates' if n is None else f'place {n}'}" for name, n in places.items()
    )


@command()
@click.argument("query")
@click.option("--user", "user_id", help="Whose features the prompt is made for.")
@click.option("--template", help="The prompt template; by default that of the settings.")
@click.option("--no-record", is_flag=True, help="Do not count this as activity of the user.")
@click.option("--k", type=int, help="How many chunks.")
@click.option("--filter", "where", help="As of search.")
@click.option("--var", "variables", multiple=True, metavar="NAME=VALUE", help="More variables of the template.")
def context(
    session: Session,
    query: str,
    user_id: str | None,
    template: str | None,
    k: int | None,
    where: str | None,
    variables: tuple[str, ...],
    *,
    no_record: bool,
) -> None:
    """Build the personalised prompt for QUERY."""
    from lodestore.cli.session import pairs

    given = dict(pairs(variables, "--var"))
    _loaded(session)
    made = session.project.store.context(
        query, user_id=user_id, template=template, k=k, filter=where, variables=given, record=not no_record
    )
    session.show(made.to_json(), _context_page(made, user_id))


def _context_page(made: Context, user_id: str | None) -> Iterator[Block]:
    yield made.prompt
    who = "nobody in particular" if user_id is None else user_id if made.user_known else f"{user_id} (not known yet)"
    facts = {
        "user": who,
        "template": f"{made.template_id} {made.template_version}",
        "tokens": made.n_tokens,
        "took": f"{made.timings_ms['total']:.0f} ms",
        "release": made.release,
        "context": made.context_id,
    }
    yield Facts(facts, title="Made of")
    rows = [[f"[{n}]", hit.title, hit.document_id, hit.score] for n, hit in enumerate(made.hits, start=1)]
    yield Table(("cited", "title", "document", "score"), rows, empty="no chunk fitted")


@command()
@click.option("--mode", type=_MODES, default="vector", show_default=True, help="By meaning, by words, or both.")
@click.option("--version", "label", help="An embedding version such as minilm@1; by default the live one.")
@click.option("--golden", "name", help="Which golden set; by default all of them.")
def evaluate(session: Session, mode: Mode, label: str | None, name: str | None) -> None:
    """Measure how well the golden queries are answered."""
    from lodestore.evaluation import evaluate as measured

    found = measured(session.project, label=label, name=name, mode=mode)
    session.show(found.to_json(), _measures(found))


def _measures(found: Evaluation) -> Iterator[Block]:
    value = found.to_json()
    yield f"{found.version}, {found.mode}, {value['queries']} judged queries of golden set {found.golden!r}"
    names = [name for name, one in value.items() if isinstance(one, dict) and "low" in one]
    rows = [[name, *(f"{value[name][bound]:.3f}" for bound in ("value", "low", "high"))] for name in names]
    yield Table(("measure", "value", "95 % from", "to"), rows)
