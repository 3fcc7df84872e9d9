# ruff: noqa: INP001 - a script that `lodestore import feast` starts by its path, with the Python that has Feast
"""Tells what a Feast repository holds, or what Feast answers, as one JSON object on standard output.

It runs in Feast's own environment, where there is no Lodestore: it imports the standard library, Feast and what
Feast brings, and is written for Python 3.9. The order comes as JSON on standard input: `act` ("describe", "values"
or "online"), `repository`, and for the last two `asks`. Whatever the repository prints goes to the error stream.
The repository's registry and stores are only read: values are asked of a registry in a temporary folder.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Optional

OLDEST = (0, 40)


class TellError(Exception):
    """What the other side has to tell its user: a kind, and what happened."""

    def __init__(self, message: str, *, kind: str = "repository") -> None:
        self.kind = kind
        super().__init__(message)


def feast_version() -> str:
    """The version of the Feast that is installed here; too old ones are refused."""
    try:
        import feast
    except ImportError as error:
        kind = "absent" if getattr(error, "name", None) == "feast" else "broken"
        raise TellError(str(error), kind=kind) from error
    version = str(feast.__version__)
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        message = f"Feast {version}; {'.'.join(map(str, OLDEST))} or newer is needed"
        raise TellError(message, kind="old")
    return version


# Reading a repository


def contents_of(repository: Path) -> tuple[str, dict[str, list[Any]]]:
    """The repository's objects by their kind, and whether its files or its registry told them."""
    from feast.repo_operations import parse_repo

    try:
        found = parse_repo(repository)
    except (Exception, SystemExit) as error:
        message = f"{type(error).__name__}: {error}{place_of(error, repository)}"
        raise TellError(message) from error
    listed = {
        "entities": [one for one in found.entities if one.name != "__dummy"],
        "views": [*found.feature_views, *found.stream_feature_views],
        "on_demand": found.on_demand_feature_views,
        "services": found.feature_services,
        "others": [],
    }
    if any(listed.values()):
        kinds = ("label_views", "permissions", "projects")
        others = [one for kind in kinds for one in getattr(found, kind, None) or ()]
        return "files", {**listed, "others": [*others, *unused(found, listed)]}
    return "registry", registered(repository)


def unused(found: Any, listed: Mapping[str, list[Any]]) -> list[Any]:  # noqa: ANN401 - RepoContents
    """The data sources that no view reads."""
    used = {id(getattr(one, name, None)) for one in listed["views"] for name in ("batch_source", "stream_source")}
    read = [one for each in listed["on_demand"] for one in getattr(each, "source_request_sources", {}).values()]
    names = {one.name for one in read}
    inner = {id(getattr(one, "batch_source", None)) for one in found.data_sources}
    return [one for one in found.data_sources if id(one) not in used | inner and one.name not in names]


def registered(repository: Path) -> dict[str, list[Any]]:
    """The objects of the registry that feature_store.yaml names."""
    if not is_applied(repository):
        return {kind: [] for kind in ("entities", "views", "on_demand", "services", "others")}
    from feast import FeatureStore

    try:
        store = FeatureStore(repo_path=str(repository))
        views = {one.name: one for one in (*store.list_feature_views(), *store.list_stream_feature_views())}
        return {
            "entities": store.list_entities(),
            "views": list(views.values()),
            "on_demand": store.list_on_demand_feature_views(),
            "services": store.list_feature_services(),
            "others": [],
        }
    except Exception as error:
        message = f"its registry cannot be read: {type(error).__name__}: {error}"
        raise TellError(message) from error


def place_of(error: BaseException, repository: Path) -> str:
    """The line of the repository where the error came up."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename.startswith(str(repository))]
    if not frames:
        return ""
    return f" ({os.path.relpath(frames[-1].filename, repository)}, line {frames[-1].lineno})"


def settings_of(repository: Path) -> dict[str, Any]:
    """What feature_store.yaml says, with the variables of the environment in their places."""
    import yaml

    try:
        text = (repository / "feature_store.yaml").read_text(encoding="utf-8")
        said = yaml.safe_load(os.path.expandvars(text))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        message = f"feature_store.yaml cannot be read: {error}"
        raise TellError(message) from error
    if not isinstance(said, dict) or not said.get("project"):
        message = "feature_store.yaml names no project"
        raise TellError(message)
    return said


def is_applied(repository: Path) -> bool:
    """Whether the registry is there, as far as can be seen without opening it: Feast writes one that is not."""
    said = settings_of(repository).get("registry")
    told = said if isinstance(said, Mapping) else {"path": said}
    path = str(told.get("path") or "data/registry.db").removeprefix("file://")
    elsewhere = "://" in path or str(told.get("registry_type") or "file") != "file"
    return elsewhere or (repository / path).exists()


def kind_of_store(said: Any) -> str:  # noqa: ANN401 - whatever the file says
    """How feature_store.yaml names a store: a word, or a table with its type."""
    if isinstance(said, Mapping):
        return str(said.get("type", ""))
    return str(said or "")


# Describing


def describe(repository: Path) -> dict[str, Any]:
    """The whole repository in JSON types."""
    said = settings_of(repository)
    told_by, found = contents_of(repository)
    return {
        "project": str(said["project"]),
        "offline_store": kind_of_store(said.get("offline_store")),
        "online_store": kind_of_store(said.get("online_store")),
        "told_by": told_by,
        "entities": [entity(one) for one in found["entities"]],
        "views": [view(one, repository) for one in found["views"]],
        "on_demand": [on_demand(one) for one in found["on_demand"]],
        "services": [service(one) for one in found["services"]],
        "others": [{"kind": type(one).__name__, "name": str(one.name)} for one in found["others"]],
    }


def words(one: Any) -> dict[str, Any]:  # noqa: ANN401 - any object of Feast
    """What every object of Feast says about itself."""
    return {
        "name": str(one.name),
        "description": str(getattr(one, "description", "") or ""),
        "owner": str(getattr(one, "owner", "") or ""),
        "tags": {str(name): str(value) for name, value in (getattr(one, "tags", None) or {}).items()},
    }


def more(one: Any, usual: Mapping[str, Any]) -> list[str]:  # noqa: ANN401 - any object of Feast
    """The settings of the object that are not as they are by themselves; `usual` tells how that is."""
    return [name for name, value in usual.items() if getattr(one, name, value) not in (value, None, "", {})]


def entity(one: Any) -> dict[str, Any]:  # noqa: ANN401 - an Entity
    """An entity; Feast gives it one join key."""
    return {**words(one), "join_key": str(one.join_key), "value_type": one.value_type.name}


def field(one: Any) -> dict[str, Any]:  # noqa: ANN401 - a Field
    """A field of a schema."""
    told = {**words(one), "type": str(one.dtype), "vector_index": bool(getattr(one, "vector_index", False))}
    del told["owner"]
    return told


def view(one: Any, repository: Path) -> dict[str, Any]:  # noqa: ANN401 - a view that stores values
    """A feature view of any kind, with its sources."""
    ttl = getattr(one, "ttl", None)
    return {
        **words(one),
        "kind": type(one).__name__,
        "entities": [str(name) for name in one.entities if name != "__dummy"],
        "keys": [field(each) for each in one.entity_columns if each.name != "__dummy_id"],
        "fields": [field(each) for each in one.features],
        "ttl": None if ttl is None else ttl.total_seconds(),
        "online": bool(getattr(one, "online", True)),
        "enabled": bool(getattr(one, "enabled", True)),
        "source": source(getattr(one, "batch_source", None), repository),
        "stream": source(getattr(one, "stream_source", None), repository),
        "views": [str(each.name) for each in getattr(one, "source_views", None) or []],
        "aggregations": len(getattr(one, "aggregations", None) or []),
        "code": code_of(one),
        "more": more(one, {"offline": False, "enable_validation": False, "version": "latest", "org": ""}),
    }


def code_of(one: Any) -> str:  # noqa: ANN401 - a view with or without a transformation
    """The text of the view's function; empty where there is none or it cannot be had."""
    made = getattr(one, "feature_transformation", None)
    text = getattr(one, "udf_string", "") or getattr(made, "udf_string", "") or getattr(made, "template_string", "")
    return str(text or "")


def source(one: Any, repository: Path) -> Optional[dict[str, Any]]:  # noqa: ANN401, UP045 - Python 3.9
    """Where values come from: a file with its columns, or the kind of anything else."""
    if one is None:
        return None
    usual = {"description": "", "owner": "", "tags": {}, "date_partition_column": "", "s3_endpoint_override": ""}
    told = {
        "name": str(one.name),
        "kind": type(one).__name__,
        "more": more(one, usual),
        "timestamp_field": str(getattr(one, "timestamp_field", "") or ""),
        "created_timestamp_column": str(getattr(one, "created_timestamp_column", "") or ""),
        "field_mapping": {str(theirs): str(ours) for theirs, ours in (one.field_mapping or {}).items()},
    }
    if told["kind"] == "FileSource":
        path = str(one.path).removeprefix("file://")
        told |= {"path": path, "format": type(one.file_format).__name__ if one.file_format else ""}
        told |= columns_of(path, repository)
    return told


def columns_of(path: str, repository: Path) -> dict[str, Any]:
    """The columns of a local Parquet file with their Arrow types, and what its statistics say about numbers."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if "://" in path:
        return {"columns": None, "problem": "it is not on this machine"}
    place = repository / path
    files = sorted(place.rglob("*.parquet")) if place.is_dir() else [place]
    try:
        opened = [pq.ParquetFile(one) for one in files]
        columns = {one.name: str(one.type) for each in reversed(opened) for one in each.schema_arrow}
        return {"columns": columns, "problem": "" if files else "the folder has no Parquet file", **extremes(opened)}
    except (OSError, ValueError, pa.ArrowException) as error:  # ValueError: a null byte in the path
        return {"columns": None, "problem": str(error).replace(str(repository), ".")}


def extremes(files: Iterable[Any]) -> dict[str, list[str]]:
    """The columns that have whole numbers beyond 2^53 - 1, and those that have infinite ones."""
    wide: set[str] = set()
    infinite: set[str] = set()
    for file in files:
        for group in range(file.metadata.num_row_groups):
            row = file.metadata.row_group(group)
            for place in range(row.num_columns):
                column = row.column(place)
                known = column.statistics if column.is_stats_set else None
                bounds = [known.min, known.max] if known is not None and known.has_min_max else []
                name = column.path_in_schema.split(".")[0]
                if any(isinstance(one, int) and abs(one) >= 1 << 53 for one in bounds):
                    wide.add(name)
                if any(isinstance(one, float) and math.isinf(one) for one in bounds):
                    infinite.add(name)
    return {"wide": sorted(wide), "infinite": sorted(infinite)}


def on_demand(one: Any) -> dict[str, Any]:  # noqa: ANN401 - an OnDemandFeatureView
    """An on-demand view: what it reads, what requests bring, what it gives, and its text."""
    reads = getattr(one, "source_feature_view_projections", None) or {}
    requests = getattr(one, "source_request_sources", None) or {}
    return {
        **words(one),
        "mode": str(getattr(one, "mode", "pandas")),
        "singleton": bool(getattr(one, "singleton", False)),
        "reads": [projection(each) for each in reads.values()],
        "inputs": [field(each) for request in requests.values() for each in request.schema],
        "fields": [field(each) for each in one.features],
        "code": code_of(one),
        "more": more(one, {"write_to_online_store": False, "track_metrics": False, "aggregations": [], "org": ""}),
    }


def projection(one: Any) -> dict[str, Any]:  # noqa: ANN401 - a FeatureViewProjection
    """The part of a view that something reads; no features means all of them."""
    return {
        "view": str(one.name),
        "alias": str(one.name_alias or ""),
        "features": [str(each.name) for each in one.features] or [str(each) for each in one.desired_features],
        "join_key_map": {str(theirs): str(ours) for theirs, ours in (one.join_key_map or {}).items()},
    }


def service(one: Any) -> dict[str, Any]:  # noqa: ANN401 - a FeatureService
    """A feature service."""
    return {
        **words(one),
        "projections": [projection(each) for each in one.feature_view_projections],
        "more": more(one, {"logging_config": None, "precompute_online": False}),
    }


# Asking Feast for values


def values(repository: Path, asks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each ask, Feast's historical features of its entity rows lie in its file, or why they do not."""
    said = settings_of(repository)
    _, found = contents_of(repository)
    with tempfile.TemporaryDirectory() as folder:
        store = temporary_store(said, repository, Path(folder))
        return [answered(store, found, one) for one in asks]


def temporary_store(said: Mapping[str, Any], repository: Path, folder: Path) -> Any:  # noqa: ANN401 - a FeatureStore
    """A feature store over the repository's files whose registry and online store nobody else has."""
    from feast import FeatureStore, RepoConfig

    config = RepoConfig(
        project=said["project"],
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        offline_store=said.get("offline_store") or {"type": "file"},
        entity_key_serialization_version=3,
    )
    config.repo_path = repository
    return FeatureStore(config=config)


def answered(store: Any, found: Mapping[str, list[Any]], ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """One ask, in the words of Feast: `VIEW:FEATURE` of every entity row of a Parquet file."""
    import pandas as pd

    try:
        wanted = next(one for one in found["views"] if one.name == ask["view"])
        store.apply([*[one for one in found["entities"] if one.name in wanted.entities], wanted])
        rows = pd.read_parquet(ask["entities"])
        features = [f"{ask['view']}:{one}" for one in ask["features"]]
        given = store.get_historical_features(entity_df=rows, features=features).to_df()
        given[[ask["row"], *ask["features"]]].to_parquet(ask["out"], index=False)
    except Exception as error:  # noqa: BLE001 - whatever Feast raises is its answer
        return {"view": ask["view"], "problem": f"{type(error).__name__}: {error}"}
    return {"view": ask["view"], "problem": "", "rows": len(given)}


def online(repository: Path, asks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each ask, what Feast's own online store says of its keys now; "nothing" where nobody has applied it yet."""
    if not is_applied(repository):
        return [{"view": one["view"], "problem": "", "nothing": True} for one in asks]
    from feast import FeatureStore

    try:
        store = FeatureStore(repo_path=str(repository))
    except Exception as error:  # noqa: BLE001 - whatever Feast raises is its answer
        return [{"view": one["view"], "problem": f"{type(error).__name__}: {error}"} for one in asks]
    return [read(store, one) for one in asks]


def read(store: Any, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - a FeatureStore
    """One ask: the values of each feature in the order of the keys, in a Parquet file."""
    import pandas as pd

    try:
        keys = pd.read_parquet(ask["entities"])
        features = [f"{ask['view']}:{one}" for one in ask["features"]]
        found = store.get_online_features(features=features, entity_rows=keys.to_dict("records")).to_dict()
        pd.DataFrame({one: found[one] for one in ask["features"]}).to_parquet(ask["out"], index=False)
    except Exception as error:  # noqa: BLE001 - whatever Feast raises is its answer
        return {"view": ask["view"], "problem": f"{type(error).__name__}: {error}"}
    return {"view": ask["view"], "problem": "", "rows": len(keys)}


def main() -> None:
    """Read the order, do it, and print what came of it."""
    order = json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever the repository prints, standard output is JSON alone
    sys.stdout = sys.stderr
    repository = Path(order["repository"])
    # As Feast's own command does it: the repository is the working folder and the first place to import from.
    os.chdir(repository)
    sys.path[:] = [str(repository), *(one for one in sys.path if one != str(Path(__file__).parent))]
    os.environ.setdefault("FEAST_USAGE", "False")  # older versions tell their makers about each call
    try:
        told: dict[str, Any] = {"feast": feast_version()}
        if order["act"] == "describe":
            told |= describe(repository)
        else:
            told["answers"] = {"values": values, "online": online}[order["act"]](repository, order["asks"])
    except TellError as error:
        told = {"error": {"kind": error.kind, "message": str(error)}}
    json.dump(told, out, ensure_ascii=True)
    out.flush()


if __name__ == "__main__":
    main()
