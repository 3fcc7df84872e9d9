"""Publishing: the newest values of views online, scalars and vectors, by what is live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from lodestore.errors import LodestoreError
from lodestore.features import Published
from lodestore.spaces import Rebuilt
from lodestore.spec import FeatureView
from lodestore.wire import from_rfc3339

if TYPE_CHECKING:
    from lodestore.project import Project

__all__ = ["Publication", "publish", "publish_view"]


@dataclass(frozen=True, slots=True)
class Publication:
    """What one publication did, by view and by embedding feature."""

    views: tuple[Published, ...]
    vectors: tuple[Rebuilt, ...]


def publish(
    project: Project, *, start: str | None = None, end: str | None = None, views: Sequence[str] = ()
) -> Publication:
    """The newest values of these views, of all without a name, are online; with bounds, of the events in [start, end).

    A view that fails keeps its old values and stops no other one; the first error is raised at the end.
    """
    bounds = (_moment(start, "start"), _moment(end, "end"))
    catalog, live = project.catalog, project.releases.live().views
    wanted = [catalog.view(name) for name in views] or served(project, live)
    scalars: list[Published] = []
    vectors: list[Rebuilt] = []
    errors: list[LodestoreError] = []
    for view in wanted:
        try:
            done, made = publish_view(project, view, start=bounds[0], end=bounds[1])
        except LodestoreError as error:
            errors.append(error)
            continue
        scalars.append(done)
        vectors.extend(made)
    if errors:
        raise errors[0]
    return Publication(tuple(scalars), tuple(vectors))


def served(project: Project, live: dict[str, int]) -> list[FeatureView]:
    """The newest declared version of each view, and the live one where that is another."""
    views = project.catalog.views
    older = [views[name, version] for name, version in live.items() if (name, version) in views]
    newest = list(project.catalog.latest.values())
    return [*newest, *(one for one in older if one not in newest)]


def publish_view(
    project: Project, view: FeatureView, *, start: datetime | None = None, end: datetime | None = None
) -> tuple[Published, list[Rebuilt]]:
    """The view's newest values are online, its vectors in the live version of their space, and where a rollback goes."""
    if start is None and end is None:
        done = project.pipeline.publish(view)
    else:
        done = project.features.materialize(view, start=start, end=end)
    if not view.embeddings:
        return done, []
    live = project.releases.live().embeddings
    made = project.spaces.publish(view, live)
    for version in project.versions.predecessors():
        made += project.spaces.bind(version, own=frozenset(live), views=[view])
    return done, made


def _moment(text: str | None, what: str) -> datetime | None:
    return None if text is None else from_rfc3339(text, what)
