"""The users and document vectors of `benchmarks/serving.py` in Feast's own online store, ready for `feast serve`.

Runs in the environment that `make bench-feast` makes. FOLDER has users.parquet and documents.parquet, and becomes
a Feast repository.

.venv-feast/bin/python benchmarks/feast/repo.py FOLDER
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Int64, String

SETTINGS = """project: bench
provider: local
registry: registry.db
online_store:
  type: sqlite
  path: online.db
offline_store:
  type: file
entity_key_serialization_version: 3
"""


def main() -> None:
    folder = Path(sys.argv[1])
    (folder / "feature_store.yaml").write_text(SETTINGS)
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    document = Entity(name="document", join_keys=["document_id"], value_type=ValueType.STRING)
    kinds = {"expertise_level": String, "preferred_language": String, "account_age_days": Int64}
    users = view("user_profile", user, folder / "users.parquet", kinds)
    documents = view("document_features", document, folder / "documents.parquet", {"content_embedding": Array(Float32)})
    store = FeatureStore(repo_path=str(folder))
    store.apply([user, document, users, documents])
    for name in ("users", "documents"):
        store.write_to_online_store(
            {"users": "user_profile", "documents": "document_features"}[name],
            pd.read_parquet(folder / f"{name}.parquet"),
        )


def view(name: str, entity: Entity, path: Path, kinds: dict[str, object]) -> FeatureView:
    source = FileSource(path=str(path), timestamp_field="event_timestamp")
    schema = [Field(name=one, dtype=kind) for one, kind in kinds.items()]
    return FeatureView(name=name, entities=[entity], ttl=timedelta(0), schema=schema, source=source)


if __name__ == "__main__":
    main()
