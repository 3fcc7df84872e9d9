"""Both sides compared: what counts as the same, what is explained, and what is a difference."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lodestore.errors import SourceError
from lodestore.events import EventSource
from lodestore.feast.description import described
from lodestore.feast.proof import prove
from lodestore.feast.sample import ROW, entity_rows, told_by
from lodestore.feast.translation import translate
from lodestore.project import open_project
from lodestore.spec import Entity, FeatureView, integer
from lodestore.tables import view_table
from tests.feast.data import START, build

RECORDED = json.loads((Path(__file__).parents[1] / "feast" / "described.json").read_text(encoding="utf-8"))
NAMES = ("driver_hourly_stats", "customer_profile", "trips", "driver_now")
NOW = datetime(2026, 6, 1, tzinfo=UTC)


class Answers:
    """What Feast would answer, from the files themselves, changed as a test wants it."""

    def __init__(self, repository, change=lambda row: row, *, online=lambda row: row):
        self.repository = repository
        self.change = {False: change, True: online}

    def values(self, _, asks, *, online=False):
        return [self.answer(ask, online=online) for ask in asks]

    def answer(self, ask, *, online):
        view = next(one for one in RECORDED["views"] if one["name"] == ask["view"])
        mapping = view["source"]["field_mapping"]
        told = pq.read_table(self.repository / view["source"]["path"])
        told = told.rename_columns([mapping.get(name, name) for name in told.column_names]).to_pylist()
        out = []
        for row in pq.read_table(ask["entities"]).to_pylist():
            keys = [name for name in row if name not in {ROW, "event_timestamp"}]
            found = newest(view, [one for one in told if all(one[key] == row[key] for key in keys)], row, online=online)
            given = self.change[online]({name: found.get(name) for name in ask["features"]} | {ROW: row.get(ROW)})
            out += [given] if given else []
        pq.write_table(pa.Table.from_pylist(out, schema(out, ask)), ask["out"])
        return {"view": ask["view"], "problem": "", "rows": len(out)}


def schema(rows, ask):
    inferred = pa.Table.from_pylist(rows or [dict.fromkeys([*ask["features"], ROW])]).schema
    return pa.schema([inferred.field(name) for name in (*ask["features"], ROW)])


def newest(view, rows, asked, *, online):
    """The newest row that is not older than the TTL; online none is too old."""
    field, created = view["source"]["timestamp_field"], view["source"]["created_timestamp_column"]
    moment = NOW if online else asked["event_timestamp"]
    ttl = timedelta(seconds=view["ttl"]) if view["ttl"] and not online else timedelta(days=10_000)
    aware = [one | {field: whole(one[field])} for one in rows]
    fitting = [one for one in aware if moment - ttl <= one[field] <= moment]
    order = lambda pair: (pair[1][field], pair[1].get(created) or START, pair[0])  # noqa: E731
    return max(enumerate(fitting), key=order)[1] if fitting else {}


def whole(moment):
    plain = moment.to_pydatetime(warn=False) if hasattr(moment, "to_pydatetime") else moment
    return plain if plain.tzinfo is not None else plain.replace(tzinfo=UTC)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return build(tmp_path_factory.mktemp("feast") / "repository", drivers=6, hours=30)


@pytest.fixture(scope="module")
def translated(repository):
    views = [one for one in RECORDED["views"] if one["name"] in NAMES]
    said = RECORDED | {"views": views, "services": [], "on_demand": []}
    return translate(described(said), repository=repository, root=repository.parent)


@pytest.fixture(scope="module")
def project(tmp_path_factory, repository, translated):
    """A project whose histories have the rows of the files."""
    from lodestore.feast.module import module_text
    from lodestore.feast.placement import event_sections

    (repository.parent / "proven.py").write_text(module_text(translated), encoding="utf-8")
    text = f'[features]\nmodules = ["proven"]\n\n{event_sections(translated.events)}'
    (repository.parent / "lodestore.toml").write_text(text, encoding="utf-8")
    path = list(sys.path)
    opened = open_project(repository.parent)
    for view in opened.pipeline.views():
        opened.pipeline.record(view)
        opened.pipeline.publish(view)
    yield opened
    sys.path[:] = path
    sys.modules.pop("proven", None)


@pytest.fixture
def compare(project, repository, translated):
    def run(answers, *, rows=60, refused=None):
        return prove(
            translated,
            answers,
            repository,
            root=project.settings.root,
            catalog=project.catalog,
            joined=lambda entities, refs: project.store.historical(entities, list(refs)),
            read=lambda refs, keys: project.store.online(list(refs), keys.to_pydict()).columns,
            now=NOW,
            counted=lambda view: project.tables.count(view_table(view)),
            refused=lambda _: refused or {},
            rows=rows,
        )

    return run


def explained(proven, kind="historical"):
    out = {}
    for one in proven.proofs:
        if one.kind == kind:
            for reason, count in (one.explained or {}).items():
                out[reason] = out.get(reason, 0) + count
    return out


def test_files_read_by_both_sides_give_the_same_values(compare, repository):
    proven = compare(Answers(repository))

    historical = [one for one in proven.proofs if one.kind == "historical"]
    assert proven.holds
    assert len(historical) == 4
    assert explained(proven) == {}
    assert all(one.values == one.equal > one.present > 0 for one in historical)


def test_a_row_that_feast_loses_is_explained_where_we_know_nothing(compare, repository):
    dropped = lambda row: row if any(value is not None for name, value in row.items() if name != ROW) else None  # noqa: E731

    proven = compare(Answers(repository, dropped))

    assert proven.holds
    assert set(explained(proven)) == {"lost"}


def test_a_row_that_feast_loses_is_a_difference_where_we_know_something(compare, repository):
    proven = compare(Answers(repository, lambda row: row if row[ROW] % 7 else None))

    assert not proven.holds


def test_another_value_is_a_difference_and_is_shown(compare, repository):
    proven = compare(Answers(repository, lambda row: row | ({"speed": 1.25} if "speed" in row else {})))

    (now,) = [one for one in proven.proofs if (one.view, one.kind) == ("driver_now", "historical")]
    assert not proven.holds
    assert now.different_count > 0
    assert now.different[0].theirs == 1.25
    assert now.different[0].keys == {"driver_id": 1}


def test_a_personal_value_is_never_shown(compare, repository):
    proven = compare(Answers(repository, lambda row: row | ({"mail": "stolen"} if "mail" in row else {})))

    shown = [each for one in proven.proofs for each in one.different]
    assert {each.feature for each in shown} == {"customer_profile@1:mail"}
    assert all((each.ours, each.theirs) == ("(personal)", "(personal)") for each in shown)


def test_the_other_row_of_a_tie_is_explained_by_what_tells_them_apart(compare, repository, translated):
    events = {one.view: one for one in translated.events}
    views = {one.name: one for one in translated.views}
    told = told_by(events["driver_hourly_stats"], views["driver_hourly_stats"], root=repository.parent)
    rates = told.table.group_by(["driver_id", "event_timestamp"]).aggregate([("acc_rate", "list")])["acc_rate_list"]
    other = {one: pair[1 - at] for pair in rates.to_pylist() if len(pair) == 2 for at, one in enumerate(pair)}

    proven = compare(
        Answers(
            repository,
            lambda row: row | {"acc_rate": other.get(row["acc_rate"], row["acc_rate"])} if "acc_rate" in row else row,
        )
    )

    assert proven.holds
    assert set(explained(proven)) == {"late"}


def test_a_tie_that_we_settle_wrongly_is_a_difference(compare, repository, translated, project, monkeypatch):
    events = {one.view: one for one in translated.events}
    views = {one.name: one for one in translated.views}
    told = told_by(events["driver_hourly_stats"], views["driver_hourly_stats"], root=repository.parent)
    rates = told.table.group_by(["driver_id", "event_timestamp"]).aggregate([("acc_rate", "list")])["acc_rate_list"]
    other = {one: pair[1 - at] for pair in rates.to_pylist() if len(pair) == 2 for at, one in enumerate(pair)}
    rightly = project.store.historical

    def wrongly(entities, refs):
        joined = rightly(entities, refs)
        name = "driver_hourly_stats@1:acc_rate"
        if name not in joined.column_names:
            return joined
        turned = [other.get(one, one) for one in joined[name].to_pylist()]
        return joined.set_column(joined.column_names.index(name), name, pa.array(turned))

    monkeypatch.setattr(project.store, "historical", wrongly)

    assert not compare(Answers(repository)).holds


def test_online_values_beyond_the_ttl_are_explained(compare, repository):
    proven = compare(Answers(repository))

    assert set(explained(proven, "online")) == {"expired"}


def test_what_feast_published_earlier_is_explained(compare, repository):
    proven = compare(Answers(repository, online=lambda row: row | ({"plan": None} if "plan" in row else {})))

    assert proven.holds
    assert explained(proven, "online")["older"] == 6


def test_an_online_store_that_has_nothing_is_not_compared(compare, repository):
    proven = compare(Answers(repository, online=dict.fromkeys))

    assert {one.problem for one in proven.proofs if one.kind == "online"} == {"Feast's online store has nothing of it"}
    assert proven.holds


def test_refused_rows_mean_that_both_are_not_the_same(compare, repository):
    proven = compare(Answers(repository), refused={"a.parquet#3": "speed: inf is no finite number"})

    assert not proven.holds
    assert proven.proofs[0].refused == 1
    assert proven.proofs[0].refusals == ("a.parquet#3: speed: inf is no finite number",)


def test_what_feast_cannot_answer_is_told(compare, repository):
    class Broken(Answers):
        def values(self, _, asks, *, online=False):
            return [{"view": ask["view"], "problem": f"KeyError: {online}"} for ask in asks]

    proven = compare(Broken(repository))

    assert not proven.holds
    assert {one.problem for one in proven.proofs} == {"Feast: KeyError: False", "Feast: KeyError: True"}


# --- the sample


def view_of(**more):
    return FeatureView("v", entity=Entity("e", "id", type="integer"), features={"x": integer()}, **more)


def write(folder, rows):
    pq.write_table(pa.table(rows), folder / "a.parquet")
    return told_by(EventSource("v", "v", "a.parquet"), view_of(), root=folder)


def test_a_sample_is_always_the_same_and_has_each_row_once(tmp_path):
    moments = pa.array([START + timedelta(minutes=one) for one in range(400)], pa.timestamp("us", "UTC"))
    told = write(tmp_path, {"id": [one % 7 for one in range(400)], "event_timestamp": moments, "x": range(400)})

    once, twice = (entity_rows(told, ttl=timedelta(hours=1), rows=50) for _ in range(2))

    assert once.equals(twice)
    assert once.num_rows == once.group_by(["id", "event_timestamp"]).aggregate([]).num_rows
    assert 45 <= once.num_rows <= 50


def test_a_sample_asks_where_rows_have_the_same_time(tmp_path):
    moments = pa.array([START] * 4, pa.timestamp("us", "UTC"))
    told = write(tmp_path, {"id": [1, 1, 2, None], "event_timestamp": moments, "x": [1, 2, 3, 4]})

    asked = entity_rows(told, ttl=None, rows=1).to_pylist()

    assert (1, START) in {(one["id"], one["event_timestamp"]) for one in asked}
    assert told.newest((1,), START).num_rows == 2
    assert told.newest((2,), START - timedelta(microseconds=1)).num_rows == 0


def test_an_empty_file_gives_an_empty_sample(tmp_path):
    told = write(
        tmp_path,
        {
            "id": pa.array([], pa.int64()),
            "event_timestamp": pa.array([], pa.timestamp("us")),
            "x": pa.array([], pa.int64()),
        },
    )

    assert entity_rows(told, ttl=None, rows=10).num_rows == 0


def test_a_file_that_lacks_a_column_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"a\.parquet"):
        write(tmp_path, {"id": [1], "event_timestamp": pa.array([START]), "y": [1]})
