"""The catalog: every view, on-demand view and service that the declared modules hold."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from keyword import kwlist
from types import MappingProxyType, ModuleType
from typing import TypeVar

from lodestore.errors import DeclarationError, RequestError, UnknownServiceError, UnknownViewError
from lodestore.spec import FeatureRef, FeatureService, FeatureView, OnDemandView

__all__ = ["RESERVED", "TAKEN", "Catalog", "catalog_of", "collect", "declared"]

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Catalog:
    """What is declared, by name; `latest` is each view in its highest declared version."""

    views: Mapping[tuple[str, int], FeatureView] = field(default_factory=dict)
    on_demand: Mapping[str, OnDemandView] = field(default_factory=dict)
    services: Mapping[str, FeatureService] = field(default_factory=dict)
    latest: Mapping[str, FeatureView] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        latest = {name: self.views[name, version] for name, version in sorted(self.views)}
        object.__setattr__(self, "latest", MappingProxyType(latest))

    def view(self, name: str, version: int | None = None) -> FeatureView:
        """The view of that name; without a version the highest."""
        if version is None and name in self.latest:
            return self.latest[name]
        if version is not None and (name, version) in self.views:
            return self.views[name, version]
        known = [*self.latest, *(f"{one}@{number}" for one, number in self.views)]
        note = f" ({name} is computed when it is asked for: nothing of it is stored)" if name in self.on_demand else ""
        raise UnknownViewError(name if version is None else f"{name}@{version}", known, note=note)

    def pinned(self, text: object) -> FeatureView:
        """The view that `NAME`, or `NAME@VERSION`, means."""
        if not isinstance(text, str):
            message = f"feature view {text!r} is no name; write one such as user_profile, or user_profile@1"
            raise DeclarationError(message)
        name, at, version = text.partition("@")
        if at and re.fullmatch("[0-9]{1,9}", version) is None:
            raise UnknownViewError(text, [*self.latest, *(f"{one}@{number}" for one, number in self.views)])
        return self.view(name, int(version) if at else None)

    def served(self, ref: FeatureRef, live: Mapping[str, int]) -> FeatureView:
        """The view that answers a reference: the pinned version, or the one that is live, or the newest declared one.

        A live version that is no longer declared cannot answer; then the newest declared one does.
        """
        version = live.get(ref.view) if ref.version is None else ref.version
        view = self.view(ref.view, ref.version if (ref.view, version) not in self.views else version)
        view.feature(ref.feature)
        return view

    def service(self, name: object) -> FeatureService:
        """The service of that name."""
        if not isinstance(name, str):
            message = f"feature service {name!r} is no name; write one such as {next(iter(self.services), 'assistant')}"
            raise RequestError(message)
        if name not in self.services:
            raise UnknownServiceError(name, self.services)
        return self.services[name]

    def check(self, ref: FeatureRef) -> None:
        """The reference names a declared feature; otherwise the error names the nearest."""
        if ref.view in self.on_demand:
            self.on_demand_view(ref.view, ref.version)[ref.feature]
        elif ref.view in self.latest:
            self._known(ref)
        else:
            raise UnknownViewError(ref.view, [*self.latest, *self.on_demand])

    def _known(self, ref: FeatureRef) -> None:
        """The pinned version has the feature; without a pin, one of the versions has it."""
        newest = self.view(ref.view, ref.version)
        others = (view for (name, _), view in self.views.items() if name == ref.view)
        if ref.version is not None or not any(ref.feature in view.features for view in others):
            newest.feature(ref.feature)

    def on_demand_view(self, name: str, version: int | None = None) -> OnDemandView:
        """The on-demand view of that name; only its declared version can be asked for."""
        view = self.on_demand.get(name)
        if view is None or version not in {None, view.version}:
            known = [f"{one.name}@{one.version}" for one in self.on_demand.values()]
            raise UnknownViewError(name if version is None else f"{name}@{version}", known)
        return view


def collect(modules: Iterable[str]) -> Catalog:
    """The catalog of these modules, their submodules included."""
    return catalog_of(value for _, value in declared(modules))


def declared(modules: Iterable[str]) -> Iterator[tuple[str, object]]:
    """Every value of these modules, their submodules included, each with the name of the module that has it."""
    for name in modules:
        for module in _modules(name):
            for value in vars(module).values():
                yield module.__name__, value


def catalog_of(values: Iterable[object]) -> Catalog:
    """The catalog of these declarations; other values are passed over."""
    views: dict[tuple[str, int], FeatureView] = {}
    on_demand: dict[str, OnDemandView] = {}
    services: dict[str, FeatureService] = {}
    for value in values:
        if isinstance(value, FeatureView):
            _put(views, (value.name, value.version), value, f"feature view {value.name}@{value.version}")
        elif isinstance(value, OnDemandView):
            _put(on_demand, value.name, value, f"on-demand view {value.name}")
        elif isinstance(value, FeatureService):
            _put(services, value.name, value, f"feature service {value.name}")
    catalog = Catalog(MappingProxyType(views), MappingProxyType(on_demand), MappingProxyType(services))
    _complete(catalog)
    return catalog


def _put(known: dict[_K, _V], key: _K, value: _V, what: str) -> None:
    """Keep the value; the same one may be imported in many modules, two different ones may not share a name."""
    if known.setdefault(key, value) != value:
        message = f"{what} is declared twice with different contents; rename one, or raise its version"
        raise DeclarationError(message)


# What the graph and the jobs around the views are called: an asset of the same name would clash with them.
TAKEN = frozenset(
    [
        "documents",
        "chunks",
        "embeddings",
        "live_embeddings",
        "templates",
        "release",
        "online",
        "store_health",
        "ingest",
        "reembed",
        "features",
        "monitor",
        "maintain",
        "promote",
        "rollback",
        "rebaseline",
        "drain",
        "backup",
    ]
)

# What Dagster allows no asset to be called.
RESERVED = frozenset(kwlist) | frozenset(
    [
        "arg_dict",
        "bool",
        "conf",
        "config",
        "context",
        "dict",
        "float",
        "input",
        "input_arg_dict",
        "int",
        "meta",
        "output",
        "output_arg_dict",
        "str",
        "type",
    ]
)


def _complete(catalog: Catalog) -> None:
    reserved = sorted(RESERVED & set(catalog.latest))
    if reserved:
        message = f"feature view {reserved[0]}: Dagster allows no asset of this name; call it something else"
        raise DeclarationError(message)
    taken = sorted(TAKEN & set(catalog.latest))
    if taken:
        message = f"feature view {taken[0]}: an asset or a job of Lodestore has this name; call it something else"
        raise DeclarationError(message)
    shared = set(catalog.latest) & set(catalog.on_demand)
    if shared:
        message = f"{', '.join(sorted(shared))}: a view and an on-demand view share the name; rename one"
        raise DeclarationError(message)
    entities: dict[str, tuple[object, object]] = {}
    for view in catalog.views.values():
        one = view.entity
        _put(entities, one.name, (one.keys, one.types), f"entity {one.name} (of view {view.name})")
    for service in catalog.services.values():
        for ref in service.features:
            catalog.check(ref)
    for made in catalog.on_demand.values():
        for ref in made.reads:
            if ref.view in catalog.on_demand:
                message = f"on-demand view {made.name} reads {ref}; it can read stored features only"
                raise DeclarationError(message)
            catalog.check(ref)


def _modules(name: str) -> Iterator[ModuleType]:
    module = _imported(name)
    yield module
    for found in pkgutil.iter_modules(getattr(module, "__path__", ())):
        yield from _modules(f"{name}.{found.name}")


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except DeclarationError:
        raise
    except Exception as error:
        message = (
            f"features.modules: {name} cannot be imported: {type(error).__name__}: {error}; "
            "modules are looked for in the folder of lodestore.toml and among the installed packages"
        )
        raise DeclarationError(message) from error
