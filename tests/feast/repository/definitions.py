"""A Feast repository with an object of every kind, ordinary ones and hostile ones."""

from datetime import timedelta

import pandas as pd
from feast import (
    BigQuerySource,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    KafkaSource,
    PushSource,
    RequestSource,
    StreamFeatureView,
    ValueType,
)
from feast.data_format import JsonFormat
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.file_source import FileLoggingDestination
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Bytes, Float32, Float64, Int32, Int64, Json, Map, Set, String, UnixTimestamp

print("a repository may print what it likes")  # noqa: T201 - and standard output stays JSON alone

HOSTILE = "quotes \"\"\" and ''' end here\n# no comment\\\nimport os; os.abort()\r\x00\u2028{question} ${HOME} %s"

driver = Entity(
    name="driver",
    join_keys=["driver_id"],
    value_type=ValueType.INT64,
    description="who drives",
    tags={"team": "fleet"},
    owner="fleet@example.com",
)
customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
shop = Entity(name="Shop", join_keys=["shopCode"], value_type=ValueType.STRING, description=HOSTILE)
scale = Entity(name="scale", join_keys=["weight"], value_type=ValueType.DOUBLE)

hourly = FeatureView(
    name="driver_hourly_stats",
    entities=[driver],
    ttl=timedelta(days=1),
    schema=[
        Field(name="conv_rate", dtype=Float32, description="rides taken of rides offered"),
        Field(name="acc_rate", dtype=Float64),
        Field(name="avg_daily_trips", dtype=Int64),
    ],
    source=FileSource(
        name="hourly_file",
        path="data/hourly.parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    ),
    owner="fleet@example.com",
    tags={"tier": "gold"},
    description="how a driver did",
)
profile = FeatureView(
    name="customer_profile",
    entities=[customer],
    ttl=timedelta(0),
    schema=[
        Field(name="plan", dtype=String),
        Field(name="mail", dtype=String, tags={"pii": "true"}),
        Field(name="active", dtype=Bool),
        Field(name="signed_up", dtype=UnixTimestamp),
        Field(name="logins", dtype=Int32),
    ],
    source=FileSource(
        name="profile_file",
        path="data/profile.parquet",
        timestamp_field="updated",
        field_mapping={"Plan Name": "plan"},
    ),
    owner="Growth Team",
    online=False,
)
trips = FeatureView(
    name="trips",
    entities=[driver, customer],
    ttl=timedelta(hours=2, microseconds=5),
    schema=[Field(name="rides_together", dtype=Int64)],
    source=FileSource(
        name="trips_file", path="data/trips.parquet", timestamp_field="ts", description="who rode", owner="fleet"
    ),
)
inferred = FeatureView(
    name="inferred_stats",
    entities=[driver],
    source=FileSource(name="inferred_file", path="data/inferred.parquet", timestamp_field="event_timestamp"),
)
rates = FeatureView(
    name="rates",
    entities=[],
    schema=[Field(name="euro", dtype=Float64)],
    source=FileSource(name="rates_file", path="data/rates.parquet", timestamp_field="event_timestamp"),
)
pushed = FeatureView(
    name="driver_now",
    entities=[driver],
    ttl=timedelta(minutes=30),
    schema=[Field(name="speed", dtype=Float64)],
    source=PushSource(
        name="driver_push",
        batch_source=FileSource(name="now_file", path="data/now.parquet", timestamp_field="event_timestamp"),
    ),
)
spare = FileSource(name="spare_file", path="data/now.parquet", timestamp_field="event_timestamp")
warehouse = FeatureView(
    name="customer_value",
    entities=[customer],
    ttl=timedelta(days=30),
    schema=[Field(name="value", dtype=Float64)],
    source=BigQuerySource(name="value_table", table="shop.value", timestamp_field="day"),
)
far = FeatureView(
    name="far_away",
    entities=[driver],
    schema=[Field(name="rank", dtype=Int64)],
    source=FileSource(name="far_file", path="s3://bucket/far.parquet", timestamp_field="event_timestamp"),
)
clicks = KafkaSource(
    name="clicks",
    kafka_bootstrap_servers="localhost:9092",
    topic="clicks",
    timestamp_field="event_timestamp",
    batch_source=FileSource(name="clicks_file", path="data/now.parquet", timestamp_field="event_timestamp"),
    message_format=JsonFormat(schema_json="speed double"),
)
stream = StreamFeatureView(
    name="driver_clicks",
    entities=[driver],
    ttl=timedelta(hours=1),
    schema=[Field(name="speed", dtype=Float64)],
    source=clicks,
    timestamp_field="event_timestamp",
)
weighed = FeatureView(
    name="weighed",
    entities=[scale],
    schema=[Field(name="price", dtype=Float64)],
    source=FileSource(name="weighed_file", path="data/weighed.parquet", timestamp_field="event_timestamp"),
)
missing = FeatureView(
    name="gone",
    entities=[customer],
    schema=[Field(name="a", dtype=Int64)],
    source=FileSource(name="gone_file", path="data/no such.parquet", timestamp_field="event_timestamp"),
)
every = FeatureView(
    name="Every Type-of",
    entities=[shop],
    ttl=timedelta(days=365),
    schema=[
        Field(name="numbers", dtype=Array(Float32), vector_index=True),
        Field(name="words", dtype=Array(String)),
        Field(name="labels", dtype=Set(String)),
        Field(name="attributes", dtype=Map),
        Field(name="payload", dtype=Json),
        Field(name="raw", dtype=Bytes),
        Field(name="huge", dtype=Int64, description=HOSTILE),
        Field(name="import", dtype=Int32),
        Field(name="event_id", dtype=String),
        Field(name="camelCase", dtype=Int64),
        Field(name="Camel_Case", dtype=Int64),
        Field(name="ratio", dtype=Float64),
        Field(name="absent", dtype=Float64),
    ],
    source=FileSource(name="every_file", path="data/every.parquet", timestamp_field="event_timestamp"),
    description=HOSTILE,
    tags={HOSTILE: HOSTILE},
)
# Names that mean something to Python or to Lodestore.
named_class = FeatureView(
    name="class",
    offline=True,
    org="fleet",
    entities=[driver],
    schema=[Field(name="lambda", dtype=Float64)],
    source=FileSource(
        name="class_file", path="data/now.parquet", timestamp_field="event_timestamp", field_mapping={"speed": "lambda"}
    ),
)
named_documents = FeatureView(
    name="documents",
    entities=[driver],
    schema=[Field(name="speed", dtype=Float64)],
    source=FileSource(name="documents_file", path="data/now.parquet", timestamp_field="event_timestamp"),
)

request = RequestSource(name="request", schema=[Field(name="bonus", dtype=Int64), Field(name="hour", dtype=Int64)])


@on_demand_feature_view(
    sources=[hourly, request],
    schema=[Field(name="conv_rate_plus", dtype=Float64)],
    mode="pandas",
    description="the rate and a bonus",
)
def conv_rate_plus(rows: pd.DataFrame) -> pd.DataFrame:
    out = pd.DataFrame()
    out["conv_rate_plus"] = rows["conv_rate"] + rows["bonus"]
    return out


@on_demand_feature_view(
    sources=[profile[["plan"]]], schema=[Field(name="is_free", dtype=Bool)], mode="python", singleton=True
)
def plan_kind(row: dict) -> dict:
    return {"is_free": row["plan"] == 'free"""\n'}


ranking = FeatureService(
    name="ranking",
    features=[hourly, profile[["plan", "active"]], conv_rate_plus],
    description="what the ranking reads",
    tags={"model": "rank-3"},
    owner="rank",
    logging_config=LoggingConfig(destination=FileLoggingDestination(path="data")),
)
matching = FeatureService(
    name="Matching v2",
    features=[
        hourly[["conv_rate"]].with_name("origin_stats").with_join_key_map({"driver_id": "origin_id"}),
        profile.with_name("who"),
        trips,
        rates,
    ],
)
nothing = FeatureService(name="nothing_left", features=[rates])
