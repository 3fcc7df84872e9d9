"""search, context, evaluate: what the corpus answers, and how well."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from lodestore.cli import given
from lodestore.cli.page import Block, Facts, Table, ago, brief
from lodestore.cli.session import Session, command
from lodestore.wire import rfc3339

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
@click.option("--as-of", help="Search what was there at this moment, such as 2026-01-31 or 2026-01-31T12:00:00Z.")
@click.option("--by-document", "per_document", type=int, metavar="N", help="One hit a document, with N of its chunks.")
@click.option("--neighbours", default=0, metavar="N", help="Also the N chunks before and after each hit.")
@click.option("--highlight", is_flag=True, help="Mark the words that match.")
@click.option("--diversity", type=float, help="From 0 to 1: pass over what was said already.")
@click.option("--titles", is_flag=True, default=None, help="Let the titles' own vectors join a hybrid search.")
@click.option("--rerank", is_flag=True, help="Let the cross-encoder of [context] reranker order the candidates.")
@click.option("--explain", is_flag=True, help="Also say how each chunk was found.")
@click.option("--full", is_flag=True, help="Print whole chunks.")
def search(
    session: Session,
    query: str,
    k: int,
    mode: Mode,
    where: str | None,
    as_of: str | None,
    *,
    full: bool,
    **extras: Any,  # noqa: ANN401 - those of the facade, by its names
) -> None:
    """Find the chunks that answer QUERY."""
    from lodestore.past import moment_of

    moment = None if as_of is None else moment_of(as_of)
    search = partial(session.project.store.search, query, k=k, mode=mode, filter=where, as_of=moment, **extras)
    if mode != "text":
        _say_it_loads(session)
    found = search()
    if mode != "text" and moment is None:
        # The first one loaded the model: the time that is told is that of an answer, not of a start.
        found = search()
    session.show(found.to_json(), _hits_page(found, full=full))


def _say_it_loads(session: Session) -> None:
    if sys.stderr.isatty():
        session.note("The model is loaded for this one answer, which takes some seconds; lodestore serve keeps it.")


def _hits_page(found: SearchResult, *, full: bool) -> Iterator[Block]:
    for place, hit in enumerate(found.hits, start=1):
        yield f"{place:>2}. {hit.title or hit.document_id}  {click.style(_score(hit), dim=True)}"
        yield click.style(f"    {hit.document_id}", dim=True)
        for chunk in (hit, *hit.others):
            yield from _chunk_lines(chunk, full=full)
        if found.explain:
            yield f"    {_ranks(hit)}"
    if not found.hits:
        yield "Nothing was found."
    when = f", as of {ago(rfc3339(found.as_of))}" if found.as_of else ""
    by = f"{found.mode}, {found.version}, release {found.release}{when}, {found.took_ms:.0f} ms"
    yield f"\n{_counted(found.hits)}, {by}"
    yield from (click.style(f"({note})", dim=True) for note in found.notes)
    if found.explain:
        yield Facts(
            {name: value for name, value in found.explain.items() if name not in {"ranks", "scores"}}, title="How"
        )


def _chunk_lines(hit: Hit, *, full: bool) -> Iterator[str]:
    for text in hit.before:
        yield click.style(f"    ... {brief(text)}", dim=True)
    text = _marked(hit)
    yield "\n".join(f"    {line}" for line in (text.splitlines() if full else [brief(text)]))
    for text in hit.after:
        yield click.style(f"    ... {brief(text)}", dim=True)


def _marked(hit: Hit) -> str:
    """The text with asterisks around the words that matched."""
    text = hit.text
    for start, end in reversed(hit.highlights):
        text = f"{text[:start]}*{text[start:end]}*{text[end:]}"
    return text


def _counted(hits: Sequence[Hit]) -> str:
    return f"{len(hits)} hit" if len(hits) == 1 else f"{len(hits)} hits"


def _score(hit: Hit) -> str:
    return f"{hit.score:.4f}"


def _ranks(hit: Hit) -> str:
    if hit.vector_rank is None and hit.text_rank is None:
        return f"characters {hit.start} to {hit.end}"
    sides = {"meaning": (hit.vector_rank, hit.vector_score), "words": (hit.text_rank, hit.text_score)}
    if hit.title_rank is not None:
        sides["titles"] = (hit.title_rank, None)
    if hit.fused_score is not None:
        sides["fused"] = (None, hit.fused_score)
    return ", ".join(f"{name}: {_place(*one)}" for name, one in sides.items())


def _place(rank: int | None, score: float | None) -> str:
    if rank is None and score is not None:
        return f"{score:.3g}"
    if rank is None:
        return "not among the candidates"
    return f"place {rank}" + ("" if score is None else f" with {score:.3g}")


@command()
@click.argument("query")
@click.option("--user", "user_id", help="Whose features the prompt is made for.")
@click.option("--template", help="The prompt template; by default that of the settings.")
@click.option("--no-record", is_flag=True, help="Do not count this as activity of the user.")
@click.option("--k", type=int, help="How many chunks.")
@click.option("--filter", "where", help="As of search.")
@click.option("--mode", type=_MODES, default="hybrid", show_default=True, help="As of search.")
@click.option("--budget", "token_budget", type=int, metavar="TOKENS", help="How many tokens the chunks may take.")
@click.option("--history", metavar="TURNS", help="Earlier turns: a JSON list, or a text for templates that take one.")
@click.option("--var", "variables", multiple=True, metavar="NAME=VALUE", help="More variables of the template.")
@click.option("--request-id", help="Counted and logged once, however often it is sent.")
def context(
    session: Session,
    query: str,
    template: str | None,
    where: str | None,
    variables: tuple[str, ...],
    history: str | None,
    *,
    no_record: bool,
    **options: Any,  # noqa: ANN401 - those of the facade, by its names
) -> None:
    """Build the personalised prompt for QUERY."""
    project = session.project
    live = project.releases.live()
    name = project.settings.context.template if template is None else template
    values = given.variables(project.templates.live(name, live, sticky=options["user_id"] or ""), variables)
    options |= {"template": template, "filter": where, "variables": values, "history": given.turns(history)}
    if options["mode"] != "text":
        _say_it_loads(session)
        project.live().embed(["ready"])  # the times that are told are those of an answer, not of a start
    made = project.store.context(query, record=not no_record, **options)
    session.show(made.to_json(), _context_page(made, options["user_id"]))


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
@click.option("--k", default=10, show_default=True, help="How many documents of each answer count.")
def evaluate(session: Session, mode: Mode, label: str | None, name: str | None, k: int) -> None:
    """Measure how well the golden queries are answered."""
    from lodestore.evaluation import evaluate as measured

    found = measured(session.project, label=label, name=name, mode=mode, k=k)
    session.show(found.to_json(), _measures(found))


def _measures(found: Evaluation) -> Iterator[Block]:
    value = found.to_json()
    yield f"{found.version}, {found.mode}, {value['queries']} judged queries of golden set {found.golden!r}"
    if found.unanswerable:
        yield f"{found.unanswerable} of them have no relevant document in the store, and count as not answered"
    names = [name for name, one in value.items() if isinstance(one, dict) and "low" in one]
    rows = [[name, *(f"{value[name][bound]:.3f}" for bound in ("value", "low", "high"))] for name in names]
    yield Table(("measure", "value", "95 % from", "to"), rows)
    if found.segments:
        yield _segments(value["segments"])
    if value["worst"]:
        measure = next(name for name in value["worst"][0] if name.startswith("ndcg"))
        worst = [[one["id"], one[measure], one["text"], one["wanted"][:2], one["found"][:2]] for one in value["worst"]]
        yield Table(("query", measure, "text", "wanted", "found"), worst, title="Worst", text=frozenset({"text"}))


def _segments(segments: dict[str, Any]) -> Table:
    names = [name for name in next(iter(segments.values())) if name != "queries"]
    rows = [
        [
            name,
            one["queries"],
            *(f"{one[key]['value']:.3f} ({one[key]['low']:.3f} to {one[key]['high']:.3f})" for key in names),
        ]
        for name, one in segments.items()
    ]
    return Table(("segment", "queries", *names), rows, title="By segment")
