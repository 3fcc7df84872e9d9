"""Both sides compared: what counts as the same, what is explained, and what is a difference."""

from __future__ import annotations

import json
import runpy
import sys
import types
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lodestore
from lodestore.catalog import catalog_of
from lodestore.cli.imports import _proven_page, _proven_value
from lodestore.errors import SourceError
from lodestore.events import EventSource
from lodestore.feast.description import described
from lodestore.feast.proof import _plain, prove
from lodestore.feast.sample import ROW, entity_rows, told_by
from lodestore.feast.translation import Origin, Translation, translate
from lodestore.project import open_project
from lodestore.spec import Entity, FeatureView, integer, struct
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
    def run(answers, *, rows=60, refused=None, empty="", undeclared=False):
        return prove(
            translated,
            answers,
            repository,
            root=project.settings.root,
            catalog=without(project.catalog, "trips") if undeclared else project.catalog,
            joined=lambda entities, refs: project.store.historical(entities, list(refs)),
            read=lambda refs, keys: project.store.online(list(refs), keys.to_pydict()).columns,
            now=NOW,
            counted=lambda view: 0 if view.name == empty else project.tables.count(view_table(view)),
            refused=lambda _: refused or {},
            rows=rows,
        )

    return run


def without(catalog, name):
    return catalog_of(one for one in catalog.views.values() if one.name != name)


def told_of(repository, translated, name):
    events = {one.view: one for one in translated.events}
    views = {one.name: one for one in translated.views}
    return told_by(events[name], views[name], root=repository.parent)


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
    assert all(one.values == one.equal >= one.present > 0 for one in historical)
    assert sum(one.equal for one in historical) > sum(one.present for one in historical)


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
    told = told_of(repository, translated, "driver_hourly_stats")
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
    told = told_of(repository, translated, "driver_hourly_stats")
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


@pytest.mark.parametrize("wrong", [None, "free"])
def test_online_nothing_of_feasts_explains_a_value_that_we_do_not_owe(compare, repository, project, monkeypatch, wrong):
    rightly = project.store.online

    def wrongly(refs, keys):
        answer = rightly(refs, keys)
        name = "customer_profile@1:plan"
        columns = dict(answer.columns)
        if name in columns:
            columns[name] = [wrong] * len(columns[name])
        return types.SimpleNamespace(columns=columns)

    monkeypatch.setattr(project.store, "online", wrongly)

    assert not compare(Answers(repository)).holds


def test_an_online_store_that_has_nothing_is_not_compared(compare, repository):
    proven = compare(Answers(repository, online=dict.fromkeys))

    assert {one.note for one in proven.proofs if one.kind == "online"} == {"Feast's online store has nothing of it"}
    assert proven.holds


def test_a_repository_that_nobody_applied_has_nothing_online(compare, repository):
    class Unapplied(Answers):
        def values(self, _, asks, *, online=False):
            if online:
                return [{"view": ask["view"], "problem": "", "nothing": True} for ask in asks]
            return super().values(_, asks)

    proven = compare(Unapplied(repository))

    assert {one.note for one in proven.proofs if one.kind == "online"} == {"Feast's online store has nothing of it"}
    assert proven.holds


@pytest.mark.parametrize(
    ("registry", "applied"),
    [
        ("", False),
        ("registry: data/registry.db", False),
        ("registry: other.db", True),
        ("registry: {path: data/registry.db}", False),
        ("registry: {registry_type: sql, path: data/registry.db}", True),
        ("registry: s3://bucket/registry.db", True),
    ],
)
def test_whether_a_repository_was_applied_is_seen_without_opening_it(tmp_path, registry, applied):
    (tmp_path / "feature_store.yaml").write_text(f"project: p\n{registry}\n", encoding="utf-8")
    (tmp_path / "other.db").touch()
    side = runpy.run_path(str(Path(lodestore.__file__).parent / "scaffold" / "feast_side.py"))

    assert side["is_applied"](tmp_path) is applied
    if not applied:
        assert side["online"](tmp_path, [{"view": "v"}]) == [{"view": "v", "problem": "", "nothing": True}]
        assert not (tmp_path / "data").exists()


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


# --- one view of a few rows, both sides made up


HOURS = [START + timedelta(hours=one) for one in range(3)]


class Made:
    """Feast's answers, each a value for an entity row; None as the whole answer loses the row."""

    def __init__(self, historical, online):
        self.historical, self.online = historical, online

    def values(self, _, asks, *, online=False):
        for ask in asks:
            rows = pq.read_table(ask["entities"]).to_pylist()
            given = [self.online(row["id"]) if online else self.historical(row) for row in rows]
            kept = pa.array([one != "lost" for one in given])
            answers = pa.array([None if one == "lost" else one for one in given], pa.int64())
            out = dict.fromkeys(ask["features"], answers)
            out |= {} if online else {ROW: pa.array([row[ROW] for row in rows])}
            pq.write_table(pa.table(out).filter(kept), ask["out"])
        return [{"view": ask["view"], "problem": ""} for ask in asks]


def owed(rows, *, ttl=None):
    """What the file's rows (id, moment, value) give for an entity row."""

    def value(row):
        found = [one for one in rows if one[0] == row["id"] and one[1] <= row["event_timestamp"]]
        newest = max(found, key=lambda one: one[1], default=None)
        return newest[2] if newest and (ttl is None or row["event_timestamp"] - newest[1] <= ttl) else None

    return value


def proven(folder, rows, *, ours=None, theirs=None, online=({}.get, {}.get), ttl=None, **more):
    """The proof of a view with these rows in its file; by itself both sides answer what the file says."""
    own = view_of(ttl=ttl)
    ids, moments, values = ([row[at] for row in rows] for at in range(3))
    table = {
        "id": pa.array(ids, pa.int64()),
        "event_timestamp": pa.array(moments, pa.timestamp("us", "UTC")),
        "x": values,
    }
    pq.write_table(pa.table(table), folder / "a.parquet")
    said = more.pop("features", {"x": "x"})
    came = Translation(
        "p", (), (own,), (), (), (EventSource("v", "v", "a.parquet"),), {"v": Origin("v", "v", {"id": "id"}, said)}, ()
    )
    right = owed(rows, ttl=ttl)

    def joined(asked, refs):
        answers = pa.array(list(map(ours or right, asked.to_pylist())), pa.int64())
        for ref in refs:
            asked = asked.append_column(ref, answers)
        return asked

    return prove(
        came,
        Made(theirs or right, online[1]),
        folder,
        root=folder,
        catalog=catalog_of([own]),
        joined=joined,
        read=lambda refs, keys: {ref: list(map(online[0], keys["id"].to_pylist())) for ref in refs},
        now=more.pop("now", NOW),
        counted=lambda _: more.get("counted", len(rows)),
        refused=lambda _: more.get("refused", {}),
        rows=20,
    )  # fmt: skip


THREE = [(1, HOURS[0], 10), (1, HOURS[1], 11), (1, HOURS[2], 12), (2, HOURS[0], 20), (2, HOURS[1], 21)]


def test_a_few_rows_that_both_sides_read_are_the_same(tmp_path):
    assert proven(tmp_path, THREE).holds


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [
        (12, 11, "older"),
        (12, None, "older"),
        (11, 12, None),  # ours is not the newest
        (None, 12, None),
        (12, 13, None),  # no row of the file has it
        (None, None, ""),
    ],
)
def test_online_only_the_newest_row_here_and_an_earlier_one_there_are_explained(tmp_path, ours, theirs, reason):
    online = (lambda key: ours if key == 1 else 21, lambda key: theirs if key == 1 else 21)

    (one,) = [each for each in proven(tmp_path, THREE, online=online).proofs if each.kind == "online"]

    assert (one.explained, one.different_count) == ({reason: 1} if reason else {}, int(reason is None))


def test_online_a_row_of_later_than_now_explains_nothing(tmp_path):
    online = (lambda key: 11 if key == 1 else 21, lambda key: 12 if key == 1 else 21)

    assert not proven(tmp_path, THREE, online=online, now=HOURS[1]).holds


@pytest.mark.parametrize(("ours", "holds"), [(None, True), (12, False)])
def test_online_what_is_expired_is_null_here(tmp_path, ours, holds):
    online = (lambda key: ours if key == 1 else None, lambda key: 11 if key == 1 else 21)
    now = HOURS[2] + timedelta(hours=1, microseconds=1)

    assert proven(tmp_path, THREE, online=online, now=now, ttl=timedelta(hours=1)).holds is holds


def test_a_view_of_which_every_row_is_refused_fails(tmp_path):
    refused = {f"a.parquet#{row}": "x: inf is no finite number" for row in range(5)}

    made = proven(tmp_path, THREE, counted=0, refused=refused)

    assert not made.holds
    assert made.proofs[0].problem == "all rows of its files are refused"
    assert made.proofs[0].refused == 5
    assert len(made.proofs[0].refusals) == 5


@pytest.mark.parametrize("wrong", [{"counted": 0}, {"gone": True}, {"undeclared": True}])
def test_a_view_with_a_file_that_could_not_be_compared_fails_where_others_are_the_same(compare, repository, wrong):
    class Partly(Answers):
        def values(self, _, asks, *, online=False):
            answers = super().values(_, asks, online=online)
            return [one | ({"problem": "KeyError"} if one["view"] == "trips" else {}) for one in answers]

    answers = (Partly if "gone" in wrong else Answers)(repository)
    made = compare(answers, empty="trips" if "counted" in wrong else "", undeclared="undeclared" in wrong)

    assert made.compared
    assert {one.view for one in made.proofs if not one.holds} == {"trips"}
    assert not made.holds


def test_a_file_without_rows_is_a_note(tmp_path):
    made = proven(tmp_path, [], counted=0)

    assert made.proofs[0].note == "its file has no rows"
    assert made.proofs[0].holds


def test_nothing_but_nulls_is_no_proof_where_the_file_has_values(tmp_path):
    rows = [(1, NOW + timedelta(days=400), 5)] * 2  # neither side has it at any moment that is asked

    made = proven(tmp_path, rows, ours=lambda _: None, theirs=lambda _: None)

    assert not made.holds


def test_nothing_but_nulls_is_enough_where_the_file_has_nothing_else(tmp_path):
    assert proven(tmp_path, [(1, HOURS[0], None), (2, HOURS[0], None)]).holds


def test_a_row_that_feast_loses_is_a_difference_where_the_file_has_one_with_a_null(tmp_path):
    rows = [(1, HOURS[0], None), (2, HOURS[0], 5)]
    theirs = lambda row: "lost" if row["id"] == 1 else owed(rows)(row)  # noqa: E731

    made = proven(tmp_path, rows, theirs=theirs)

    assert made.proofs[0].different_count > 0


def test_a_feature_that_the_project_lacks_is_told(tmp_path):
    made = proven(tmp_path, THREE, features={"x": "x", "y": "Y y"})

    assert made.proofs[0].missing == ("Y y",)
    assert made.proofs[0].equal > 0
    assert not made.holds


def test_why_a_comparison_fails_is_shown(tmp_path):
    refused = proven(tmp_path, THREE, counted=0, refused={"a.parquet#3": "x: inf"}, features={"x": "x", "y": "Y y"})

    value = _proven_value(refused)
    shown = " ".join(str(one) for one in _proven_page(refused))

    assert value["ok"] is False
    assert value["not_compared"] == [
        {
            "view": "v",
            "kind": "historical",
            "why": "all rows of its files are refused",
            "ok": False,
            "refused": 1,
            "refusals": ["a.parquet#3: x: inf"],
            "missing": ["Y y"],
        }
    ]
    for told in ("all rows of its files are refused", "a.parquet#3: x: inf", "does not have Y y", "fails"):
        assert told in shown


def test_texts_that_are_no_json_are_compared_as_they_are():
    assert _plain("{not json", struct()) == "{not json"
    assert _plain('{"a": 1}', struct()) == {"a": 1}


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


@pytest.mark.parametrize("each", [1, 5, 10])
def test_a_sample_asks_the_first_and_the_last_row_of_its_keys_at_their_own_time(tmp_path, each):
    moments = [START + timedelta(hours=one) for one in range(each)]
    count = 1_000 // each
    rows = {
        "id": [key for key in range(count) for _ in moments],
        "event_timestamp": pa.array(moments * count, pa.timestamp("us", "UTC")),
        "x": range(each * count),
    }

    asked = entity_rows(write(tmp_path, rows), ttl=timedelta(hours=2), rows=300).to_pylist()

    found = {(row["id"], row["event_timestamp"]) for row in asked}
    keys = {key for key, _ in found}
    assert len(asked) <= 300
    assert len(keys) >= 50
    assert all({(key, moments[0]), (key, moments[-1])} <= found for key in keys)


def test_a_sample_asks_every_step_of_rows_that_lie_in_any_order(tmp_path):
    moments = [START + timedelta(days=one) for one in range(5)] * 200
    keys = [one // 5 for one in range(1_000)]
    told = write(tmp_path, {"id": keys, "event_timestamp": pa.array(moments, pa.timestamp("us", "UTC")), "x": keys})

    asked = entity_rows(told, ttl=timedelta(hours=2), rows=1_000).to_pylist()

    steps = {(at, (row["event_timestamp"] - moment)) for row in asked for at, moment in enumerate(moments[:5])}
    ticks = timedelta(microseconds=1)
    for step in (0 * ticks, -2 * ticks, timedelta(hours=1), timedelta(hours=2), timedelta(hours=2) + ticks):
        assert {at for at in range(5) if (at, step) in steps} == set(range(5))


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
