"""online, push, materialize, historical: feature values, now and as of then."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from lodestore.cli.page import Block, Facts, Table, cell
from lodestore.cli.session import Session, command, pairs

if TYPE_CHECKING:
    from lodestore.catalog import Catalog
    from lodestore.features import OnlineAnswer
    from lodestore.spec import Feature, FeatureRef, FeatureView

__all__ = ["historical", "materialize", "online", "push"]


@command(epilog="`lodestore get` is the same.")
@click.argument("features", nargs=-1, metavar="VIEW:FEATURE...")
@click.option("--service", help="Read the features of a feature service.")
@click.option("--entity", "entities", multiple=True, metavar="KEY=VALUE", help="Whose; once for each row.")
@click.option("--input", "inputs", multiple=True, metavar="NAME=VALUE", help="What on-demand features need.")
def online(
    session: Session, features: tuple[str, ...], service: str | None, entities: tuple[str, ...], inputs: tuple[str, ...]
) -> None:
    """Read feature values as an application sees them now."""
    if not entities and not inputs:
        message = "name whose features: --entity user_id=u1"
        raise click.UsageError(message, click.get_current_context())
    catalog = session.project.catalog
    refs = [*_refs(features), *(catalog.service(service).features if service else ())]
    rows = _grouped(pairs(entities, "--entity"))
    numbers = _number_keys(catalog, refs)
    keys = {name: [_key(one, number=name in numbers) for one in column] for name, column in rows.items()}
    count = max(map(len, keys.values()), default=1)
    given = {name: _input(catalog, name, column, count) for name, column in _grouped(pairs(inputs, "--input")).items()}
    found = session.project.store.online(refs, keys, inputs=given)
    session.show(found.to_json(), _values_page(found, list(keys)))


def _refs(features: Sequence[str]) -> list[FeatureRef]:
    from lodestore.spec import FeatureRef

    return [FeatureRef.parse(one) for one in features]


def _grouped(given: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for name, value in given:
        out.setdefault(name, []).append(value)
    return out


def _number_keys(catalog: Catalog, refs: Sequence[FeatureRef]) -> frozenset[str]:
    """The keys of the views that are asked which are whole numbers; another view's key of that name may be text."""
    asked = [
        *refs,
        *(ref for one in refs if one.view in catalog.on_demand for ref in catalog.on_demand[one.view].reads),
    ]
    views = [catalog.views.get((one.view, one.version or 0), catalog.latest.get(one.view)) for one in asked]
    kinds = [pair for view in views if view for pair in zip(view.entity.keys, view.entity.types, strict=True)]
    return frozenset(key for key, kind in kinds if kind == "integer")


def _key(text: str, *, number: bool) -> str | int:
    """The key in the type that is declared; text that is no number stays text, and the answer says so."""
    return int(text) if number and re.fullmatch(r"-?[0-9]{1,30}", text) else text


def _input(catalog: Catalog, name: str, texts: Sequence[str], rows: int) -> list[Any]:
    """The input's values, one a row; a single one counts for every row."""
    declared = [view.inputs[name] for view in catalog.on_demand.values() if name in view.inputs]
    values = [_typed(declared[0], one) if declared else one for one in texts]
    return values * rows if len(values) == 1 else values


def _typed(feature: Feature, text: str) -> Any:  # noqa: ANN401 - any JSON value
    if feature.kind in {"text", "category", "prompt", "timestamp"}:
        return text
    try:
        return json.loads(text)
    except ValueError:
        message = f"--input {feature.name}: {text!r} is no {feature.kind}"
        raise click.UsageError(message, click.get_current_context()) from None


def _values_page(found: OnlineAnswer, keys: Sequence[str]) -> Iterator[Block]:
    """One line for each feature of each entity: many features fit a narrow window so."""
    rows = []
    for name, statuses in found.statuses.items():
        for place, state in enumerate(statuses):
            whose = [found.columns[key][place] for key in keys]
            moment = found.event_timestamps[name][place]
            since = None if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"
            rows.append([*map(str, whose), name, cell(found.columns[name][place]), str(state), since])
    rows.sort(key=lambda row: row[: len(keys)])
    yield Table((*keys, "feature", "value", "status", "event (UTC)"), rows, text=frozenset({"value"}))


@command()
@click.argument("view")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
def push(session: Session, view: str, file: Path) -> None:
    """Push the rows of FILE into VIEW.

    FILE is JSON lines, CSV or Parquet; - reads JSON lines from the input. All or nothing: when a row does not fit, every bad one is named and none is stored.
    """
    declared = session.project.catalog.view(view)
    rows = _file_rows(declared, Path("/dev/stdin") if str(file) == "-" else file)
    written = session.project.store.push(view, rows)
    value = {"accepted": written.accepted, "duplicates": written.duplicates, "late": written.late}
    session.show(value, [Facts(value, title=f"Pushed into {view}")])


def _file_rows(view: FeatureView, path: Path) -> list[Mapping[str, Any]]:
    from lodestore import events
    from lodestore.errors import SourceError

    if not path.exists() or path.is_dir():
        message = f"{path} is not a file; name one with rows of {view.name}"
        raise SourceError(message)
    found = list(events.rows(events.EventSource("file", view.name, str(path)), path))
    if not found:
        message = f"{path} has no rows; nothing was pushed into {view.name}"
        raise SourceError(message)
    if any(isinstance(row, str) for _, row in found):
        _refuse(view, found)
    return [row for _, row in found if not isinstance(row, str)]


def _refuse(view: FeatureView, found: Sequence[tuple[int, Mapping[str, Any] | str]]) -> NoReturn:
    """Every bad row is named, those that cannot be read among those that do not fit."""
    from lodestore.errors import InvalidRowsError
    from lodestore.logs import utc_now
    from lodestore.rows import check_rows

    problems: list[tuple[int, str]] = []
    for number, row in found:
        if isinstance(row, str):
            problems.append((number, row))
        else:
            problems += [(number, one.what) for one in check_rows(view, [row], now=utc_now()).problems]
    raise InvalidRowsError(view.name, [f"row {number}: {what}" for number, what in problems])


def _moment(ctx: click.Context, parameter: click.Parameter, text: str | None) -> datetime | None:
    from lodestore.wire import from_rfc3339

    del ctx
    return None if text is None else from_rfc3339(text, f"--{parameter.name}".replace("_", "-"))


@command()
@click.argument("view")
@click.option("--start", callback=_moment, metavar="TIME", help="Only events from this moment on.")
@click.option("--end", callback=_moment, metavar="TIME", help="Only events before this moment.")
def materialize(session: Session, view: str, start: datetime | None, end: datetime | None) -> None:
    """Bring the newest values of VIEW online.

    Looks at what is new since the last time, or at the events between two moments.
    """
    from lodestore.publishing import publish_view

    project = session.project
    declared = project.catalog.pinned(view)
    with project.pipeline.writing(f"materializing {view}"):
        done, vectors = publish_view(project, declared, start=start, end=end)
    value: dict[str, Any] = {"view": view, "keys": done.keys, "written": done.written, "late": done.late}
    value |= {"removed": done.removed, "vectors": {one.feature: one.written for one in vectors}}
    shown = {"keys online": done.keys, "written": done.written, "older than online": done.late, "removed": done.removed}
    shown |= {f"vectors of {one.feature} ({one.version})": one.written for one in vectors}
    session.show(value, [Facts(shown, title=view)])


@command(epilog="`lodestore history` is the same.")
@click.option(
    "--entities", "source", type=click.Path(path_type=Path), required=True, help="CSV, JSON lines or Parquet."
)
@click.option("--features", multiple=True, required=True, metavar="VIEW:FEATURE", help="Repeat it for more.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="CSV, JSON lines or Parquet.")
@click.option("--as-known-at", callback=_moment, metavar="TIME", help="Leave out what was recorded later.")
def historical(
    session: Session, source: Path, features: tuple[str, ...], out: Path, as_known_at: datetime | None
) -> None:
    """Join features to rows, as of the moment of each.

    Every row of the file comes out once, with the features as they were known at its event_timestamp.
    """
    from lodestore.tablefiles import check_name, read_table, with_moments, write_table

    check_name(out)  # before the work, not after it
    names = list(dict.fromkeys(one for given in features for one in given.split(",")))
    entities = with_moments(read_table(source, texts=_text_keys(session.project.catalog, _refs(names))))
    joined = session.project.store.historical(entities, names, as_known_at=as_known_at)
    write_table(joined, out)
    known = {name: joined.num_rows - joined[name].null_count for name in names}
    value = {"rows": joined.num_rows, "out": str(out), "columns": joined.column_names, "known": known}
    session.show(
        value, [f"{joined.num_rows:,} rows are in {out}", Table(("feature", "rows with a value"), list(known.items()))]
    )


def _text_keys(catalog: Catalog, refs: Sequence[FeatureRef]) -> list[str]:
    """The columns of a CSV that are text whatever they look like: every key that is not a number of the views asked."""
    keys = [key for view in catalog.latest.values() for key in view.entity.keys]
    return [one for one in dict.fromkeys(keys) if one not in _number_keys(catalog, refs)]
