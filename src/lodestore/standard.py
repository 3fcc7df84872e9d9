"""The standard views: users, their activity, documents, prompt templates, and the personalised context.

`assets/features/` of a project chooses among them and adds its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from lodestore.errors import RequestError
from lodestore.expertise import Practice, practices
from lodestore.outcomes import template_performance, template_version, with_performance
from lodestore.spec import (
    Entity,
    FeatureService,
    FeatureView,
    Source,
    category,
    embedding,
    integer,
    number,
    on_demand,
    prompt,
    struct,
    text,
    timestamp,
)
from lodestore.wire import digest, from_rfc3339

if TYPE_CHECKING:
    import pyarrow as pa

    from lodestore.inputs import Inputs

__all__ = [
    "INSTRUCTIONS",
    "assistant",
    "document",
    "document_features",
    "personalized",
    "prompt_templates",
    "template",
    "template_performance",
    "template_version",
    "user",
    "user_activity",
    "user_profile",
]

user = Entity("user", key="user_id", doc="a person who asks")
document = Entity("document", key="document_id", doc="a document that answers")
template = Entity("template", key="template_id", doc="a prompt template")

# What each level of expertise asks of an answer, and how long the answer may be for it.
INSTRUCTIONS: Mapping[str, str] = {
    "beginner": "Explain in plain words, define each term when it first comes up, and give an example.",
    "intermediate": "Explain the essentials and the technical details that matter in practice.",
    "expert": "Be brief and technical; leave out what a specialist knows.",
}
_OPENINGS: Mapping[str, str] = {
    "beginner": "Explain in simple terms",
    "intermediate": "Explain in detail",
    "expert": "Give a technical deep dive on",
}
# Event ids of profile rows that were computed begin so; every other row is stated by somebody.
_COMPUTED = "computed/"
_LENGTHS: Mapping[str, float] = {"beginner": 1.5, "intermediate": 1.0, "expert": 0.8}


def _document_rows(inputs: Inputs) -> pa.Table:
    """One row per live document: what its file says, its summary, and how often it was cited."""
    import pyarrow as pa

    columns = ["document_id", "title", "category", "author", "metadata", "word_count", "ingested_at"]
    table = inputs.documents(columns)
    ids, read = table["document_id"].to_pylist(), table["ingested_at"].to_pylist()
    summaries, accesses = inputs.summaries(document_features), inputs.accesses()
    counts = [accesses[one].count if one in accesses else 0 for one in ids]
    # What is told of a document holds from the moment of the newest thing that is told.
    known = [max(at, accesses[one].last) if one in accesses else at for one, at in zip(ids, read, strict=True)]
    table = table.drop_columns("ingested_at").append_column("summary", pa.array(map(summaries.get, ids), pa.string()))
    table = table.append_column("access_count", pa.array(counts, pa.int64()))
    return table.append_column("event_timestamp", pa.array(known, pa.timestamp("us", tz="UTC")))


def _template_rows(inputs: Inputs) -> pa.Table:
    """One row per prompt template: its live version, and how its answers did."""
    return with_performance(inputs.templates(), inputs.store)


def _profile_rows(inputs: Inputs) -> pa.Table:
    """A row for each user whose level nobody states and whose questions make one; the rest of the profile stays.

    It holds from the user's newest question on, or from the newest stated row. What that row says beside the level
    goes on only while it has not expired: being active renews no old preference.
    """
    import pyarrow as pa

    columns = ["user_id", "event_timestamp", "session_queries_count"]
    stated = _stated_profiles(inputs)
    rows = [
        _computed_profile(one, stated.get(one.user_id, {}))
        for one in practices(inputs.history(user_activity, columns))
        if one.level is not None and stated.get(one.user_id, {}).get("expertise_level") is None
    ]
    return pa.Table.from_pylist(rows)


def _stated_profiles(inputs: Inputs) -> dict[str, dict[str, Any]]:
    """The newest row of each user that somebody stated."""
    rows = inputs.history(user_profile)
    if not rows.num_rows:
        return {}
    order = [(name, "ascending") for name in ("event_timestamp", "created_timestamp", "ingested_at")]
    stated = (row for row in rows.sort_by(order).to_pylist() if not row["event_id"].startswith(_COMPUTED))
    return {row["user_id"]: row for row in stated}


def _computed_profile(practice: Practice, stated: Mapping[str, Any]) -> dict[str, Any]:
    since = stated.get("event_timestamp", practice.last)
    at = max(practice.last, since)
    fresh = user_profile.ttl is None or at - since <= user_profile.ttl
    kept = {name: stated.get(name) for name in ("user_preferences", "preferred_language") if fresh}
    signed_up = stated.get("signed_up_at")
    # Without the day of sign-up the age goes on as it was stated; with it the row's own moment gives it.
    age = stated.get("account_age_days") if fresh and signed_up is None else None
    row = {"user_id": practice.user_id, "event_timestamp": at, "expertise_level": practice.level, **kept}
    row |= {"signed_up_at": signed_up, "account_age_days": age}
    said = {name: value for name, value in row.items() if value is not None}
    return {**said, "event_id": _COMPUTED + digest(said)}


def _account_age(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The whole days from sign-up to the event, where the row has both moments and no age of its own."""
    if row.get("account_age_days") is not None or row.get("signed_up_at") is None:
        return {}
    try:
        since, until = (_moment(row[name]) for name in ("signed_up_at", "event_timestamp"))
    except (KeyError, RequestError):
        return {}  # the check of the row names what is wrong with them
    return {} if since is None or until is None else {"account_age_days": max(0, (until - since).days)}


def _moment(value: object) -> datetime | None:
    if isinstance(value, str):
        return from_rfc3339(value)
    return value if isinstance(value, datetime) and value.tzinfo is not None else None


user_profile = FeatureView(
    "user_profile",
    entity=user,
    ttl=timedelta(days=1),
    fresh_within=timedelta(hours=2),
    owner="team:personalisation",
    doc="Slow facts about a user.",
    compute=_profile_rows,
    derive=_account_age,
    upstream=("user_activity",),
    features={
        "user_preferences": struct(doc="settings that the user chose"),
        "expertise_level": category(
            "beginner",
            "intermediate",
            "expert",
            doc="how deep answers may go; from the user's questions where nobody states it",
        ),
        "preferred_language": text(max_length=35, doc="BCP 47 tag of the language of answers"),
        "account_age_days": integer(minimum=0, doc="days since sign-up; from signed_up_at where a row leaves it out"),
        "signed_up_at": timestamp(doc="when the account was made"),
    },
)

user_activity = FeatureView(
    "user_activity",
    entity=user,
    source=Source.STREAMING,
    ttl=timedelta(hours=1),
    owner="team:personalisation",
    doc="What the user did just now.",
    features={
        "last_query_embedding": embedding("interaction", made_from="question", doc="the vector of the last question"),
        "interaction_history_embedding": embedding(
            "interaction", made_from="questions", doc="recency-weighted mean of recent questions"
        ),
        "session_queries_count": integer(minimum=0, doc="questions in this session"),
        "last_active": timestamp(doc="when the user last asked something"),
    },
)

document_features = FeatureView(
    "document_features",
    entity=document,
    owner="team:search",
    doc="What is known about a document.",
    compute=_document_rows,
    upstream=("documents",),
    features={
        "title": text(),
        "category": text(),
        "author": text(),
        "metadata": struct(),
        "summary": text(doc="the sentences nearest to the document's centroid"),
        "word_count": integer(minimum=0),
        "access_count": integer(minimum=0, doc="in how many recorded contexts it was cited"),
        "content_embedding": embedding("content", made_from="document", doc="normalised mean of the document's chunks"),
        "title_embedding": embedding("title", made_from="document", doc="the vector of the title"),
    },
)

prompt_templates = FeatureView(
    "prompt_templates",
    entity=template,
    owner="team:prompts",
    doc="The live version of each prompt template.",
    compute=_template_rows,
    upstream=("templates",),
    features={
        "template_content": prompt(),
        "variables": struct(),
        "model_family": text(),
        "version": text(),
        "content_hash": text(),
        "performance_metrics": struct(doc="how its answers did, where outcomes are recorded"),
    },
)


@on_demand(
    reads=(user_profile["expertise_level"],),
    inputs={"query_text": text()},
    features={
        "personalized_context": text(doc="the question, put at the user's level"),
        "expertise_modifier": number(minimum=0, doc="how long an answer may be, 1 being usual"),
    },
    owner="team:personalisation",
)
def personalized(expertise_level: str | None, query_text: str | None) -> Mapping[str, object]:
    """The question at the user's level of expertise; an unknown level leaves it as it is, and no question stays none."""
    opening = _OPENINGS.get(expertise_level or "")
    return {
        "personalized_context": f"{opening}: {query_text}" if opening and query_text is not None else query_text,
        "expertise_modifier": _LENGTHS.get(expertise_level or "", 1.0),
    }


assistant = FeatureService(
    "assistant",
    [
        user_profile["expertise_level"],
        user_profile["preferred_language"],
        user_activity["session_queries_count"],
        personalized,
    ],
    owner="team:personalisation",
    doc="What an assistant reads about its user before it answers.",
)
