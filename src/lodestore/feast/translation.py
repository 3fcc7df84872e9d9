"""A Feast repository as declarations of Lodestore, with a line about each of its objects."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from lodestore.catalog import Catalog, catalog_of, declared
from lodestore.declarations import compare, shape
from lodestore.errors import DeclarationError, RefusedError
from lodestore.events import EventSource
from lodestore.feast.description import Description
from lodestore.feast.report import Remark
from lodestore.feast.services import Stub, services_of, stubs_of
from lodestore.feast.sources import named_from
from lodestore.feast.views import Origin, Views
from lodestore.spec import Entity, FeatureService, FeatureView

__all__ = [
    "Origin",
    "Stub",
    "Translation",
    "declared_beside",
    "others_of",
    "own_views",
    "refuse_taken",
    "revised",
    "translate",
]


@dataclass(frozen=True, slots=True)
class Translation:
    """Declarations, event files and the report; `origins` by the names of the views here.

    `repository` is the folder as the settings would name it; with `prefix` it tells one import from another.
    """

    project: str
    entities: tuple[Entity, ...]
    views: tuple[FeatureView, ...]
    services: tuple[FeatureService, ...]
    stubs: tuple[Stub, ...]
    events: tuple[EventSource, ...]
    origins: Mapping[str, Origin]
    remarks: tuple[Remark, ...]
    repository: str = ""
    prefix: str = ""


def translate(description: Description, *, repository: Path, root: Path, prefix: str = "") -> Translation:
    """The declarations that the repository stands for; `root` is the folder of lodestore.toml.

    `prefix` comes before the names of entities, views and services. The same description gives the same values.
    """
    work = Views(description, repository, root, prefix)
    for entity in description.entities:
        work.entity(entity)
    for view in description.views:
        work.view(view)
    stubs, of_stubs = stubs_of(description.on_demand, work)
    on_demand = frozenset(one.name for one in description.on_demand)
    services, of_services = services_of(description.services, work, on_demand, prefix)
    others = [Remark(kind, name, "left", f"{kind} has no counterpart") for kind, name in description.others]
    return Translation(
        description.project,
        tuple(work.entities.values()),
        tuple(work.views.values()),
        tuple(services),
        tuple(stubs),
        tuple(work.events),
        work.origins,
        (*work.remarks, *of_stubs, *of_services, *others),
        named_from(root, repository),
        prefix,
    )


def declared_beside(modules: Iterable[str], own: str) -> tuple[list[tuple[str, object]], str]:
    """Every value of the modules with its module's name; those of `own` only where it loads, and why it does not.

    What does not load is about to be written anew, so that nothing has to be mended by hand first.
    """
    try:
        return list(declared(modules)), ""
    except DeclarationError:
        why = _broken(own)
        if not why:
            raise
    sys.modules[own] = ModuleType(own)
    try:
        return [(name, value) for name, value in declared(modules) if name != own], why
    finally:
        del sys.modules[own]


def _broken(module: str) -> str:
    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - whatever its text raises
        return f"{type(error).__name__}: {error}"
    return ""


def own_views(values: Iterable[tuple[str, object]], own: str) -> dict[str, FeatureView]:
    """The views that the module `own` declares so far, by their names."""
    return {value.name: value for name, value in values if name == own and isinstance(value, FeatureView)}


def revised(translation: Translation, before: Mapping[str, FeatureView]) -> Translation:
    """The same in the versions of `before`; a view that breaks what its version promised has the next one."""
    views: list[FeatureView] = []
    remarks: list[Remark] = []
    for view in translation.views:
        old = before.get(view.name)
        changes = [] if old is None else compare(shape(old), shape(view))
        broken = [f"{one.subject} {one.what}" for one in changes if not one.compatible]
        version = 1 if old is None else old.version + bool(broken)
        views.append(replace(view, version=version))
        if broken:
            what = f"{', '.join(broken)} since the last import: it becomes version {version}"
            mend = f"lodestore run features fills it and makes it live; {view.name}@{version - 1} is answered as before"
            feast = translation.origins[view.name].feast
            remarks.append(Remark("feature view", feast, "different", what, mend))
    return replace(translation, views=tuple(views), remarks=(*translation.remarks, *remarks))


def others_of(values: Iterable[tuple[str, object]], own: str) -> Catalog:
    """What the project declares beside the module `own`, also where others import from that."""
    values = list(values)
    ours = {id(value) for name, value in values if name == own}
    return catalog_of(value for _, value in values if id(value) not in ours)


def refuse_taken(translation: Translation, catalog: Catalog) -> None:
    """`RefusedError` when the project declares something of the same name, which names all of it."""
    named = [
        f"feature view {one.name}" for one in translation.views if one.name in {*catalog.latest, *catalog.on_demand}
    ]
    named += [f"feature service {one.name}" for one in translation.services if one.name in catalog.services]
    theirs = {view.entity.name: view.entity for view in catalog.views.values()}
    for one in translation.entities:
        other = theirs.get(one.name, one)
        if (one.keys, one.types) != (other.keys, other.types):
            keys = ", ".join(f"{key} ({kind})" for key, kind in zip(other.keys, other.types, strict=True))
            named.append(f"entity {one.name}, whose key here is {keys}")
    if named:
        message = (
            f"the project declares already: {'; '.join(named)}; add --prefix feast_ to give what comes from Feast names "
            "of its own, or take the project's declaration away"
        )
        raise RefusedError(message)
