"""Rows on their whole way: pushed, read online, drained, joined; in process, over HTTP and on the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lodestore import cli
from lodestore.client import Client
from lodestore.errors import InvalidRowsError, LodestoreError, RequestError
from lodestore.project import Project, open_project
from lodestore.wire import rfc3339
from tests.served import client_of

DECLARATIONS = """
from datetime import timedelta
from lodestore import Entity, FeatureView, integer, number, on_demand, text

account = Entity("account", key=("tenant", "number"), type=("string", "integer"))
accounts = FeatureView("accounts", entity=account, source="streaming", features={"cents": integer(), "plan": text()})
seats = FeatureView("seats", entity=account, source="streaming", features={"used": integer()})
meter = Entity("meter", key="device_id", type="integer")
meters = FeatureView("meters", entity=meter, source="streaming", features={"power": integer()})
device = Entity("device", key="device_id")
weather = FeatureView("weather", entity=device, source="streaming", fresh_within=timedelta(hours=2),
                      features={"celsius": number()})
devices = FeatureView("devices", entity=device, source="streaming", features={"power": integer()})


@on_demand(reads=(accounts["cents"],), inputs={"rate": number(minimum=0)}, features={"euros": number()})
def converted(cents: int | None, rate: float) -> dict[str, object]:
    return {"euros": None if cents is None else cents * rate / 100}
"""
KEYS = [("a", 42), ("42", 42), ("a", 7), ("b", 42)]
CENTS = ["accounts:cents", "seats:used"]


class Way(Protocol):
    """One of the ways in; all give the same values."""

    def push(self, view: str, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, int]: ...

    def online(self, refs: Sequence[str], entities: Mapping[str, list[Any]], **more: Any) -> Any: ...

    def historical(self, entities: pa.Table, refs: Sequence[str]) -> pa.Table: ...


class InProcess:
    def __init__(self, project: Project) -> None:
        self.project = project

    def push(self, view: str, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, int]:
        done = self.project.store.push(view, rows)
        return {"accepted": done.accepted, "duplicates": done.duplicates, "late": done.late}

    def online(self, refs: Sequence[str], entities: Mapping[str, list[Any]], **more: Any) -> Any:
        return self.project.store.online(refs, entities, **more).to_json()

    def historical(self, entities: pa.Table, refs: Sequence[str]) -> pa.Table:
        return self.project.store.historical(entities, refs)


class OverHttp(InProcess):
    """Training sets are made where the data lies: there is no `historical` over HTTP."""

    def __init__(self, project: Project, client: Client) -> None:
        super().__init__(project)
        self.client = client

    def push(self, view: str, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, int]:
        done = self.client.push(view, rows)
        return {"accepted": done.accepted, "duplicates": done.duplicates, "late": done.late}

    def online(self, refs: Sequence[str], entities: Mapping[str, list[Any]], **more: Any) -> Any:
        found = self.client.online(refs, entities, **more)
        return {"columns": found.columns, "statuses": found.statuses, "stale": list(found.stale)}


class OnTheCommandLine:
    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def push(self, view: str, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, int]:
        file = self.folder / "rows.jsonl"
        file.write_text("".join(f"{json.dumps(one, default=rfc3339)}\n" for one in rows))
        told: Mapping[str, int] = self._run("push", view, str(file))
        return told

    def online(self, refs: Sequence[str], entities: Mapping[str, list[Any]], **more: Any) -> Any:
        given = [
            f"{name}={value}"
            for row in zip(*entities.values(), strict=True)
            for name, value in zip(entities, row, strict=True)
        ]
        words = [word for one in given for word in ("--entity", one)]
        words += [
            word
            for name, column in more.get("inputs", {}).items()
            for value in column
            for word in ("--input", f"{name}={value}")
        ]
        return self._run("online", *refs, *words)

    def historical(self, entities: pa.Table, refs: Sequence[str]) -> pa.Table:
        """By way of CSV, which has no types: the declaration says what a key is."""
        rows = entities.to_pylist()
        header = ",".join(rows[0])
        lines = [",".join(rfc3339(one) if hasattr(one, "tzinfo") else str(one) for one in row.values()) for row in rows]
        (self.folder / "asked.csv").write_text("\n".join([header, *lines]))
        words = [word for one in refs for word in ("--features", one)]
        out = str(self.folder / "joined.parquet")
        self._run("historical", "--entities", str(self.folder / "asked.csv"), *words, "--out", out)
        return pq.read_table(out)

    def _run(self, *words: str) -> Any:
        code = cli.run(["--config", str(self.folder), *words, "--json"])
        told = self.capsys.readouterr()
        assert code == 0, told
        return json.loads(told.out)


@pytest.fixture
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Project:
    # A module of its own name for each test: Python remembers modules by name.
    module = f"chained_{abs(hash(request.node.name))}"
    (tmp_path / f"{module}.py").write_text(DECLARATIONS)
    (tmp_path / "lodestore.toml").write_text(f'[features]\nmodules = ["{module}"]\n')
    return open_project(tmp_path)


@pytest.fixture(params=["in process", "over http", "command line"])
def way(request: pytest.FixtureRequest, project: Project, capsys: pytest.CaptureFixture[str]) -> Iterator[Way]:
    if request.param == "in process":
        yield InProcess(project)
    elif request.param == "command line":
        yield OnTheCommandLine(project.settings.root, capsys)
    else:
        with client_of(project) as client:
            yield OverHttp(project, client)


def account_rows(project: Project) -> list[dict[str, Any]]:
    at = project.clock() - timedelta(minutes=5)
    return [
        {"tenant": tenant, "number": number, "event_timestamp": at, "cents": 100 * place}
        for place, (tenant, number) in enumerate(KEYS, 1)
    ]


def asked(keys: Sequence[tuple[str, int]]) -> dict[str, list[Any]]:
    return {"tenant": [one for one, _ in keys], "number": [one for _, one in keys]}


def test_rows_of_two_keys_go_from_the_push_to_the_training_set(way: Way, project: Project) -> None:
    rows = account_rows(project)
    used = {name: rows[0][name] for name in ("tenant", "number", "event_timestamp")} | {"used": 5}
    wanted = [KEYS[2], ("b", 7), KEYS[0], KEYS[0], KEYS[1], KEYS[3]]

    pushed = [way.push("accounts", rows), way.push("accounts", rows), way.push("seats", [used])]
    read = way.online(CENTS, asked(wanted))
    project.features.drain()
    moments = [project.clock()] * len(wanted)
    joined = way.historical(pa.table({**asked(wanted), "event_timestamp": moments, "label": list("abcdef")}), CENTS)

    assert [(one["accepted"], one["duplicates"]) for one in pushed] == [(4, 0), (0, 4), (1, 0)]
    assert read["columns"]["accounts:cents"] == [300, None, 100, 100, 200, 400]
    assert read["columns"]["seats:used"] == [None, None, 5, 5, None, None]
    assert read["columns"]["number"] == [7, 7, 42, 42, 42, 42]
    assert read["statuses"]["accounts:cents"] == ["PRESENT", "NOT_FOUND", *["PRESENT"] * 4]
    assert joined["accounts:cents"].to_pylist() == [300, None, 100, 100, 200, 400]
    assert joined["seats:used"].to_pylist() == [None, None, 5, 5, None, None]
    assert joined["label"].to_pylist() == list("abcdef")


def test_the_number_42_and_the_text_42_are_two_users_all_the_way(way: Way, project: Project) -> None:
    at = project.clock() - timedelta(minutes=5)

    way.push("meters", [{"device_id": 42, "event_timestamp": at, "power": 1}])
    way.push("devices", [{"device_id": "42", "event_timestamp": at, "power": 2}])
    number, text = (42, "42") if not isinstance(way, OnTheCommandLine) else ("42", "42")
    read = [
        way.online([f"{view}:power"], {"device_id": [key]})["columns"]
        for view, key in (("meters", number), ("devices", text))
    ]
    project.features.drain()
    moment = [project.clock()]
    joined = [
        way.historical(pa.table({"device_id": [key], "event_timestamp": moment}), [f"{view}:power"])[f"{view}:power"]
        for view, key in (("meters", 42), ("devices", "42"))
    ]

    assert read == [{"device_id": [42], "meters:power": [1]}, {"device_id": ["42"], "devices:power": [2]}]
    assert [one.to_pylist() for one in joined] == [[1], [2]]


@pytest.mark.parametrize(("view", "key", "told"), [
    ("meters", "42", "row 2: device_id: '42' is no whole number; write it without quotes"),
    ("devices", 42, "row 2: device_id: 42 is int; the key is declared as a string, write it in quotes"),
])  # fmt: skip
def test_a_key_of_the_other_type_is_refused_whole_and_nothing_is_stored(
    project: Project, view: str, key: Any, told: str
) -> None:
    at = project.clock()
    fine = 7 if isinstance(key, str) else "7"
    rows = [{"device_id": one, "event_timestamp": at, "power": 1} for one in (fine, key)]

    with client_of(project) as client:
        for way in (InProcess(project), OverHttp(project, client)):
            with pytest.raises(InvalidRowsError, match=told):
                way.push(view, rows)
            with pytest.raises(RequestError, match=f"key device_id is {key!r}"):
                way.online([f"{view}:power"], {"device_id": [key]})

    assert project.online.count(f"{view}@1") == project.online.journal_size() == 0


def test_one_call_cannot_mean_a_number_and_a_text(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.run(["--config", str(project.settings.root), "online", "meters:power", "devices:power", "--entity", "device_id=42"])  # fmt: skip

    assert code == 2
    assert "device_id" in capsys.readouterr().err


def test_a_request_input_is_one_value_for_each_row_of_two_keys(way: Way, project: Project) -> None:
    way.push("accounts", account_rows(project))
    wanted = [KEYS[1], ("nobody", 1), KEYS[0]]
    rates = [2.0, 1.0, 0.5]

    read = way.online(["converted:euros"], asked(wanted), inputs={"rate": rates})
    project.features.drain()
    table = pa.table({**asked(wanted), "event_timestamp": [project.clock()] * 3, "rate": rates})
    joined = way.historical(table, ["converted:euros"])

    assert read["columns"]["converted:euros"] == joined["converted:euros"].to_pylist() == [4.0, None, 0.5]


# Bad input, whichever way it comes


BAD_PUSHES = [
    ("account", [{}], "unknown feature view 'account'; did you mean 'accounts'"),
    ("converted", [{}], "converted is computed when it is asked for"),
    ("accounts@9", [{}], "unknown feature view 'accounts@9'; did you mean 'accounts@1'"),
    (None, [{}], "None is no name|lacks view"),
    ("accounts", None, "accounts: rows are a NoneType; give a list of rows"),
    ("accounts", {"tenant": "a"}, "accounts: rows are a dict; give a list of rows"),
    ("accounts", "abc", "accounts: rows are a str; give a list of rows"),
    ("accounts", [5, None], "row 1: int is no row.*row 2: NoneType is no row"),
    ("accounts", [{"tenant": "a", "number": 1, "event_timestamp": "2026-01-01T00:00:00Z", "cent": 1}],
     "accounts: nothing was stored: row 1: unknown column 'cent'; did you mean 'cents'"),
    ("accounts", [{"tenant": "a", "event_timestamp": "2026-01-01T00:00:00"}],
     "row 1: event_timestamp: .* has no time zone.*number is missing"),
    ("accounts", [{"tenant": "a", "number": 1, "event_timestamp": "2026-01-01T00:00:00Z", "cents": float("inf")}],
     "row 1: cents"),
]  # fmt: skip
GOOD = {"tenant": ["a"], "number": [42]}
BAD_READS: list[tuple[list[str], Any, Any, str]] = [
    (["account:cents"], GOOD, None, "unknown feature view 'account'; did you mean 'accounts'"),
    (["accounts:cent"], GOOD, None, "unknown feature 'accounts:cent'; did you mean 'accounts:cents'"),
    (["accounts"], GOOD, None, "write VIEW:FEATURE"),
    (["accounts:cents"], {"tenant": ["a"]}, None, "accounts needs the key 'number'"),
    (["accounts:cents"], {"tenant": "a", "number": [1]}, None, "entities.tenant is 'a'; give a list"),
    (["accounts:cents"], ["a"], None, "entities is .*give columns by name"),
    (["accounts:cents"], {**GOOD, "tenat": ["a"]}, None, "no view has the key 'tenat'; did you mean 'tenant'"),
    (["converted:euros"], GOOD, None, "converted needs the request input rate; none were given"),
    (["converted:euros"], GOOD, {"rat": [1.0]}, "converted needs the request input rate; did you mean 'rat'"),
    (
        ["converted:euros"],
        GOOD,
        {"rate": [1.0], "raet": [1]},
        "no view has the request input 'raet'; did you mean 'rate'",
    ),
    (["converted:euros"], GOOD, {"rate": ["x"]}, "converted: inputs.rate, row 1: 'x' is no finite number"),
    (["converted:euros"], GOOD, {"rate": [-1]}, "converted: inputs.rate, row 1: -1.* is below 0"),
    (["converted:euros"], GOOD, {"rate": [1, 2]}, "inputs.rate has 2"),
    (["converted:euros"], GOOD, {"rate": 1.0}, "inputs.rate is 1.0; give a list"),
    (["converted:euros"], GOOD, ["rate"], "inputs is .*give columns by name"),
]


def test_what_cannot_be_pushed_or_read_is_told_alike_in_process_and_over_http(project: Project) -> None:
    with client_of(project) as client:
        for there in (project.store, client):
            for view, rows, told in BAD_PUSHES:
                with pytest.raises(LodestoreError, match=told):
                    there.push(view, rows)
            for refs, entities, inputs, told in BAD_READS:
                with pytest.raises(LodestoreError, match=told):
                    there.online(refs, entities, inputs=inputs)

    assert project.online.count("accounts@1") == project.online.journal_size() == 0


BAD_COMMANDS = [
    (["push", "account", "rows.jsonl"], 2, "did you mean 'accounts'"),
    (["push", "accounts", "none.jsonl"], 2, "none.jsonl is not a file"),
    (["push", "accounts", "rows.jsonl"], 1, "row 1: cents: 'x' is no whole number\n  row 2: not JSON.*\n  row 3: unknown column 'cent'; did you mean 'cents'"),
    (["online", "accounts:cent", "--entity", "tenant=a", "--entity", "number=1"], 2, "did you mean 'accounts:cents'"),
    (["online", "accounts:cents", "--entity", "tenant=a"], 2, "accounts needs the key 'number'"),
    (["online", "accounts:cents", "--entity", "tenant=a", "--entity", "number=x"], 2, "key number is 'x', a str; account is keyed by integer"),
    (["online", "accounts:cents", "--entity", "a"], 2, "write NAME=VALUE"),
    (["online", "converted:euros", "--entity", "tenant=a", "--entity", "number=1", "--input", "rate=x"], 2, "--input rate: 'x' is no number"),
    (["online", "converted:euros", "--entity", "tenant=a", "--entity", "number=1", "--input", "rat=1"], 2, "needs the request input rate; did you mean 'rat'"),
    (["historical", "--entities", "asked.csv", "--features", "accounts:cent", "--out", "o.csv"], 2, "did you mean 'accounts:cents'"),
    (["historical", "--entities", "asked.csv", "--features", "accounts:cents", "--out", "o.xyz"], 2, "ends in .csv"),
    (["historical", "--entities", "asked.csv", "--features", "accounts:cents", "--out", "o.csv"], 2, "accounts: .*'number'; did you mean 'numbr'"),
    (["historical", "--entities", "when.csv", "--features", "accounts:cents", "--out", "o.csv"], 2, "row 1: event_timestamp 'yesterday' is not a timestamp"),
    (["materialize", "account"], 2, "did you mean 'accounts'"),
    (["materialize", "accounts@9"], 2, "did you mean 'accounts@1'"),
    (["materialize", "converted"], 2, "converted is computed when it is asked for"),
    (["materialize", "accounts", "--start", "yesterday"], 2, "--start 'yesterday' is not a timestamp"),
    (["materialize", "accounts", "--start", "2026-02-01T00:00:00Z", "--end", "2026-01-01T00:00:00Z"], 2, "is not before end"),
    (["views", "show", "account"], 2, "did you mean 'accounts'"),
    (["views", "show", "accounts@x"], 2, "did you mean 'accounts@1'"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code", "told"), BAD_COMMANDS)
def test_a_command_that_makes_no_sense_is_one_line_with_the_way_out(
    project: Project,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    told: str,
) -> None:
    folder = project.settings.root
    good = {"tenant": "a", "number": 1, "event_timestamp": "2026-01-01T00:00:00Z"}
    (folder / "rows.jsonl").write_text(
        "\n".join([json.dumps({**good, "cents": "x"}), "{", json.dumps({**good, "cent": 1})])
    )
    (folder / "asked.csv").write_text("tenant,numbr,event_timestamp\na,1,2026-01-01T00:00:00Z\n")
    (folder / "when.csv").write_text("tenant,number,event_timestamp\na,1,yesterday\n")
    monkeypatch.chdir(folder)

    found = cli.run(["--config", str(folder), *words])
    err = capsys.readouterr().err

    assert found == code, err
    assert re.search(told, err), err
    assert "Traceback" not in err


# Freshness


def test_a_view_without_an_event_for_too_long_is_stale_in_every_answer_and_in_the_status(
    way: Way, project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    def states() -> dict[str, str]:
        assert cli.run(["--config", str(project.settings.root), "status", "--json"]) == 0
        return {one["name"]: one["state"] for one in json.loads(capsys.readouterr().out)["views"]}

    old = {"device_id": "d", "event_timestamp": project.clock() - timedelta(hours=3), "celsius": 20.5}
    way.push("weather", [old])
    late = way.online(["weather:celsius"], {"device_id": ["d"]})
    project.features.drain()
    before = states()
    way.push("weather", [{**old, "event_timestamp": project.clock()}])
    project.features.drain()

    assert late["columns"]["weather:celsius"] == [20.5]
    assert late["stale"] == ["weather:celsius"]
    assert (before["weather"], before["devices"]) == ("stale", "empty")
    assert states()["weather"] == "fresh"
