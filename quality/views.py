"""Checks of feature views, generated from their declarations."""

from collections.abc import Iterable, Iterator

import dagster as dg

from assets.house import House
from lodestore import monitor
from lodestore.project import Project
from lodestore.spec import FeatureView
from quality.bridge import Measured, evaluated, spec

__all__ = ["view_checks"]

_SHOWN = 3


def view_checks(house: House, views: Iterable[FeatureView]) -> list[dg.AssetChecksDefinition]:
    """One group of checks for each view."""
    return [_checks(house, view) for view in views]


def _checks(house: House, view: FeatureView) -> dg.AssetChecksDefinition:
    key = house.key(view.name)

    @dg.multi_asset_check(
        name=f"{view.name}_checks",
        specs=[spec(one, key) for one in ("event_ids_unique", "rows_taken", "fresh")],
        can_subset=True,
    )
    def checks(
        context: dg.AssetCheckExecutionContext, project: dg.ResourceParam[Project]
    ) -> Iterator[dg.AssetCheckResult]:
        monitor.pin_first(project, view)  # the first materialisation with enough rows is what later ones are held to
        yield from evaluated(context, project, _measured(project, view, key))

    return checks


def _measured(project: Project, view: FeatureView, key: dg.AssetKey) -> Iterator[Measured]:
    yield _unique(project, view, key)
    yield _taken(project, view, key)
    yield _fresh(project, view, key)


def _unique(project: Project, view: FeatureView, key: dg.AssetKey) -> Measured:
    doubled = project.corpus.doubled(f"fv__{view.name}__v{view.version}", "event_id")
    return Measured(
        "event_ids_unique", key, doubled == 0, doubled, 0, f"{doubled:,} events stand twice", "lodestore doctor"
    )


def _taken(project: Project, view: FeatureView, key: dg.AssetKey) -> Measured:
    away = project.features.turned_away(view, [one.name for one in project.settings.events if one.view == view.name])
    reasons = "; ".join(f"{uri}: {why}" for uri, why in list(away.items())[:_SHOWN])
    more = f"; and {len(away) - _SHOWN:,} more" if len(away) > _SHOWN else ""
    return Measured(
        "rows_taken", key, not away, len(away), 0,
        f"{len(away):,} rows were turned away{': ' if away else ''}{reasons}{more}",
        "mend or remove these rows, then: lodestore run features", warning=True,
    )  # fmt: skip


def _fresh(project: Project, view: FeatureView, key: dg.AssetKey) -> Measured:
    age, limit = project.features.age(view), view.fresh_within
    late = age is not None and limit is not None and age > limit
    shown = "no rows yet" if age is None else f"the newest event is {age.total_seconds():,.0f} s old"
    return Measured(
        "fresh", key, not late, age.total_seconds() if age else 0.0, limit.total_seconds() if limit else 0.0, shown,
        "look at the event source, then: lodestore run features", warning=True, plotted=True,
    )  # fmt: skip
