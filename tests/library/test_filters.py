"""Filters: both forms, their refusals, and the law that the table and Python agree on every row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, timezone

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lodestore import filters
from lodestore.errors import DeclarationError, FilterError
from lodestore.filters import And, Column, Comparison, Contains, IsNull, Membership, Not, Or, combine, parse

COLUMNS = (
    Column("category", "string"),
    Column("age", "integer"),
    Column("score", "number"),
    Column("public", "boolean"),
    Column("seen", "timestamp"),
    Column("labels", "list"),
    Column("select", "string"),
    Column("2nd name", "string"),
)
WORDS = (
    "",
    "a",
    "A",
    "b",
    "it's",
    'say "hi"',
    "100%",
    "a_b",
    "back\\slash\\n",
    "--",
    "é",
    "日本",
    "😀",
    "`",
    "x' or '1'='1",
)
INTEGERS = (-(2**63), -(2**31) - 1, -5, 0, 1, 7, 2**31, 2**53 + 1, 2**63 - 1)
NUMBERS = (-1e300, -1.5, -1e-7, 0.0, 0.1, 1.0, 2.0**53, 1e300)
MOMENTS = tuple(
    datetime(*parts, tzinfo=UTC)
    for parts in (
        (1, 1, 1),
        (1950, 6, 1, 12),
        (1970, 1, 1),
        (2024, 1, 31),
        (2024, 1, 31, 10, 0, 0, 1),
        (2024, 1, 31, 10),
        (9999, 12, 31, 23, 59, 59, 999_999),
    )
)
CELLS: Mapping[str, tuple[object, ...]] = {
    "category": WORDS,
    "age": INTEGERS,
    "score": (*NUMBERS, -0.0, math.nan, math.inf, -math.inf),
    "public": (True, False),
    "seen": MOMENTS,
    "labels": ([], ["a"], ["a", "b"], ["it's", "100%"], [None], ["b", None], ["日本", "--"]),
    "select": ("a", "b"),
    "2nd name": ("a", "it's"),
}
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("category", pa.string()),
        ("age", pa.int64()),
        ("score", pa.float64()),
        ("public", pa.bool_()),
        ("seen", pa.timestamp("us", tz="UTC")),
        ("labels", pa.list_(pa.string())),
        ("select", pa.string()),
        ("2nd name", pa.string()),
    ]
)


def rows() -> list[dict[str, object]]:
    """Every value of every column, nulls included, in lengths that share no divisor: many mixtures."""
    found = []
    for place in range(64):
        row: dict[str, object] = {"id": place}
        for shift, (name, cells) in enumerate(CELLS.items()):
            values = (*cells, None)
            row[name] = values[(place * (shift + 1) + place // 7) % len(values)]
        found.append(row)
    return found


ROWS = rows()


# ------------------------------------------------------------- any filter, and how it is written


def literals(column: Column) -> st.SearchStrategy:
    pools = {
        "string": WORDS,
        "integer": INTEGERS,
        "number": NUMBERS,
        "boolean": (True, False),
        "timestamp": MOMENTS,
        "list": ("a", "b", "it's", "--", "zz"),
    }
    return st.sampled_from(pools[column.type])


def several(column: Column) -> st.SearchStrategy:
    return st.lists(literals(column), min_size=1, max_size=4, unique=True).map(tuple)


@st.composite
def conditions(draw) -> filters.Filter:
    column = draw(st.sampled_from(COLUMNS))
    kind = draw(st.sampled_from(["null", "many", "one"]))
    if kind == "null":
        return IsNull(column.name, draw(st.booleans()))
    if column.type == "list":
        return Contains(column.name, draw(several(column)))
    if kind == "many":
        return Membership(column.name, draw(several(column)), draw(st.booleans()))
    signs = ["=", "!="] if column.type == "boolean" else ["=", "!=", "<", "<=", ">", ">="]
    return Comparison(column.name, draw(st.sampled_from(signs)), draw(literals(column)))


def grown(children: st.SearchStrategy) -> st.SearchStrategy:
    parts = st.lists(children, min_size=2, max_size=3).map(tuple)
    return st.one_of(parts.map(And), parts.map(Or), children.map(Not))


ANY_FILTER = st.recursive(conditions(), grown, max_leaves=8)
SIGNS = {"=": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}


def plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def as_json(node: filters.Filter) -> dict[str, object]:
    match node:
        case And(parts):
            return {"and": [as_json(part) for part in parts]}
        case Or(parts):
            return {"or": [as_json(part) for part in parts]}
        case Not(part):
            return {"not": as_json(part)}
        case IsNull(column, negated):
            return {column: {"is_null": not negated}}
        case Contains(column, values):
            return {column: {"contains_any" if len(values) % 2 else "in": list(values)}}
        case Membership(column, values, negated):
            return {column: {"not_in" if negated else "in": [plain(one) for one in values]}}
        case Comparison(column, sign, value):
            return {column: {SIGNS[sign]: plain(value)}}
    raise AssertionError(node)


def as_literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, datetime):
        return (
            value.astimezone(timezone(timedelta(hours=-2))).isoformat() if value.year == 2024 else f"'{plain(value)}'"
        )
    if isinstance(value, str):
        return '"' + value.replace('"', '""') + '"'
    return repr(value)


def as_text(node: filters.Filter) -> str:
    match node:
        case And(parts):
            return "(" + " AND ".join(as_text(part) for part in parts) + ")"
        case Or(parts):
            return "(" + " Or ".join(as_text(part) for part in parts) + ")"
        case Not(part):
            return f"NOT {as_text(part)}"
        case IsNull(column, negated):
            return f"`{column}` IS {'NOT ' if negated else ''}NULL"
        case Contains(column, values):
            return f"`{column}` contains_any({','.join(map(as_literal, values))})"
        case Membership(column, values, negated):
            return f"`{column}`{' not' if negated else ''} in({', '.join(map(as_literal, values))})"
        case Comparison(column, sign, value):
            return f"`{column}`{sign}{as_literal(value)}"
    raise AssertionError(node)


@given(ANY_FILTER)
@settings(max_examples=150, deadline=None)
def test_text_json_and_encoded_json_read_as_the_same_filter(node):
    from_text = parse(as_text(node), COLUMNS)

    assert parse(as_json(node), COLUMNS) == from_text
    assert parse(json.dumps(as_json(node)), COLUMNS) == from_text
    assert hash(parse(as_json(node), COLUMNS)) == hash(from_text)


@given(ANY_FILTER)
@settings(max_examples=150, deadline=None)
def test_the_canonical_form_parses_to_a_filter_with_the_same_canonical_form_and_matches(node):
    again = parse(node.canonical(), COLUMNS)

    assert again.canonical() == node.canonical() == parse(as_json(node), COLUMNS).canonical()
    assert [again.matches(row) for row in ROWS] == [node.matches(row) for row in ROWS]


@given(st.lists(conditions(), min_size=2, max_size=5), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_canonical_form_knows_no_order_and_no_repetition(parts, random):
    shuffled = [*parts, parts[0]]
    random.shuffle(shuffled)

    assert Or(tuple(shuffled)).canonical() == Or(tuple(parts)).canonical()
    assert And(tuple(shuffled)).canonical() == And(tuple(parts)).canonical()


# ------------------------------------------------------------- the table agrees


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    import lancedb

    return lancedb.connect(tmp_path_factory.mktemp("filters"))


@pytest.fixture(scope="module")
def table(database):
    return database.create_table("plain", pa.Table.from_pylist(ROWS, schema=SCHEMA))


@pytest.fixture(scope="module")
def indexed(database):
    from lancedb.index import Bitmap, BTree, LabelList

    # two fragments, the second of which no index covers
    made = database.create_table("indexed", pa.Table.from_pylist(ROWS[:40], schema=SCHEMA))
    configs = {"age": BTree(), "seen": BTree(), "category": Bitmap(), "public": Bitmap(), "labels": LabelList()}
    for name, config in configs.items():
        made.create_index(name, config=config)
    made.add(pa.Table.from_pylist(ROWS[40:], schema=SCHEMA))
    return made


def found(table, node: filters.Filter) -> list[int]:
    answer = table.search().where(node.sql()).select(["id"]).limit(len(ROWS)).to_arrow()
    return sorted(answer["id"].to_pylist())


def expected(node: filters.Filter) -> list[int]:
    return [row["id"] for row in ROWS if node.matches(row)]


@given(ANY_FILTER)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(Not(Comparison("score", "<", 0.0)))
@example(Not(Or((IsNull("age"), Comparison("age", ">", 0)))))
@example(Comparison("age", ">=", -(2**63)))
@example(Or((Membership("age", (1, 7), negated=True), Membership("age", (0,), negated=True))))
@example(Not(And((Membership("category", ("a",)), Membership("category", ("b",))))))
def test_the_table_returns_the_rows_that_match(table, node):
    assert found(table, node) == expected(node)


@given(ANY_FILTER)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_table_with_indices_and_an_unindexed_tail_returns_the_same_rows(indexed, node):
    assert found(indexed, node) == expected(node)


@pytest.mark.parametrize("condition", list(CELLS))
def test_each_value_of_each_column_is_found_by_the_table_as_by_python(table, condition):
    column = next(one for one in COLUMNS if one.name == condition)
    pool = [one for one in CELLS[condition] if not isinstance(one, float) or math.isfinite(one)]
    nodes = [
        Contains(condition, ("a", "日本")) if column.type == "list" else Membership(condition, (value,), negated)
        for value in pool
        for negated in (False, True)
    ]

    assert [found(table, node) for node in nodes] == [expected(node) for node in nodes]


def test_whole_rows_come_back_from_arrow_as_matches_takes_them(table):
    node = parse("seen >= 2024-01-31 and not labels contains 'zz' and score < 2 and public = true or age < 0", COLUMNS)
    stored = table.to_arrow().to_pylist()

    assert [row["id"] for row in stored if node.matches(row)] == found(table, node) != []


def test_columns_of_32_bits_take_literals_of_64(database):
    table = database.create_table("narrow", pa.table({"id": [0, 1], "age": pa.array([5, None], pa.int32())}))

    assert found(table, parse("age < 9223372036854775807", COLUMNS)) == [0]
    assert found(table, parse("age in (5, -9223372036854775808)", COLUMNS)) == [0]


def skewed(depth: int, leaf: Iterator[int]) -> str:
    """A tree as deep as it may be whose other branches are deep too."""
    if depth == 0:
        return f"age = {next(leaf)}"
    lesser = skewed(min(depth - 1, max(0, depth - 28)), leaf)
    joiner = ("and", "or")[depth % 2]
    return f"age in ({next(leaf)}) {joiner} ({lesser}) {joiner} ({skewed(depth - 1, leaf)})"


@pytest.mark.parametrize(
    "text",
    [
        "(" * 32 + "age = 1" + ")" * 32,
        "not " * 32 + "age = 1",
        "not (" * 16 + "age = 1" + ")" * 16,
        "not (age = 2 or age = 3 and " * 16 + "age = 1" + ")" * 16,
        "age = 2 or (age = 3 and (" * 16 + "labels contains 'a'" + "))" * 16,
        skewed(31, iter(range(10_000))),
        " or ".join(f"age={place}" for place in range(500)),
    ],
)
def test_the_deepest_and_widest_filters_that_parse_are_ones_the_table_takes(table, text):
    node = parse(text, COLUMNS)
    narrowed = combine(Comparison("category", "=", "a"), node)

    assert found(table, node) == expected(node)
    assert found(table, narrowed) == expected(narrowed)


def balanced(depth: int) -> dict[str, object]:
    if depth == 0:
        return {"labels": {"contains": "a"}}
    return {("and", "or")[depth % 2]: [balanced(depth - 1), balanced(depth - 1)]}


def test_a_bushy_tree_below_a_deep_one_is_one_the_table_takes(table):
    node = balanced(8)
    for level in range(23):
        node = {("or", "and")[level % 2]: [{"age": 1}, node]}
    read = parse({"not": node}, COLUMNS)

    assert found(table, read) == expected(read)


# ------------------------------------------------------------- what each form says


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("category = 'it''s'", "`category` = 'it''s'"),
        ('category = "it\'s ""so"""', "`category` = 'it''s \"so\"'"),
        ("category NOT IN ('b', \"a\", 'b')", "`category` is not null and `category` not in ('a', 'b')"),
        ("age>=-5", "`age` >= -5"),
        ("score = 1", "`score` = 1.0"),
        ("score < -0.0", "`score` < 0.0"),
        ("score > .5e-3", "`score` > 0.0005"),
        ("public != TRUE", "`public` != true"),
        ("seen = 2024-01-31", "`seen` = timestamp '2024-01-31 00:00:00'"),
        ("seen < '2024-01-31T10:00:00+02:00'", "`seen` < timestamp '2024-01-31 08:00:00'"),
        ("seen < 2024-01-31 10:00Z and age = 1", "`seen` < timestamp '2024-01-31 10:00:00' and `age` = 1"),
        ("labels contains 'x'", "array_has_any(`labels`, ['x'])"),
        ("not labels contains_any ('y', 'x')", "not array_has_any(`labels`, ['x', 'y'])"),
        ("not (age = 1 or age is null)", "`age` != 1 and `age` is not null"),
        ("age = 1 or age = 2 and age = 3", "`age` = 2 and `age` = 3 or `age` = 1"),
        ("not age = 1 and age = 2", "`age` != 1 and `age` = 2"),
        ("select = 'a' and `2nd name` = 'b'", "`select` = 'a' and `2nd name` = 'b'"),
        ("age = '9007199254740993'", "`age` = cast('9007199254740993' as bigint)"),
    ],
)
def test_text_compiles_to_sql_that_is_written_anew(text, sql):
    assert parse(text, COLUMNS).sql() == sql


@pytest.mark.parametrize(
    ("node", "text"),
    [
        ({"category": "a"}, "category = 'a'"),
        ({"category": {"in": ["a"]}, "age": {"ge": 1, "lt": 5}}, "category in ('a') and age >= 1 and age < 5"),
        ({"or": [{"age": 1}, {"not": {"public": True}}]}, "age = 1 or not public = true"),
        ({"labels": {"contains": "x"}}, "labels contains 'x'"),
        ({"seen": {"gt": date(2024, 1, 31)}}, "seen > 2024-01-31"),
        ({"seen": datetime(2024, 1, 31, 2, tzinfo=timezone(timedelta(hours=2)))}, "seen = 2024-01-31"),
        ({"age": {"is_null": False}}, "age is not null"),
    ],
)
def test_json_says_what_the_text_says(node, text):
    assert parse(node, COLUMNS) == parse(text, COLUMNS)


@pytest.mark.parametrize("text", ["age = 1", "age != 1", "not age = 1", "age in (1)", "age not in (1)", "age < 9"])
def test_a_null_or_missing_value_matches_no_comparison(text):
    node = parse(text, COLUMNS)

    assert not node.matches({"age": None})
    assert not node.matches({})
    assert node.truth({}) is None


def test_a_naive_moment_in_a_row_is_taken_for_utc():
    node = parse("seen = 2024-01-31", COLUMNS)

    assert node.matches({"seen": datetime(2024, 1, 31)})  # noqa: DTZ001 - the naive one is the point


def test_a_row_of_another_type_is_an_error_and_not_a_quiet_mismatch():
    with pytest.raises(FilterError, match=r"string in 'age'.*number"):
        parse("age != 1", COLUMNS).matches({"age": "1"})
    with pytest.raises(FilterError, match="string in 'labels'"):
        parse("labels contains 'a'", COLUMNS).matches({"labels": "abc"})


# ------------------------------------------------------------- mandatory filters


@given(ANY_FILTER)
@settings(max_examples=60, deadline=None)
def test_no_request_widens_a_mandatory_filter(request_filter):
    tenant = Comparison("select", "=", "a")

    narrowed = combine(tenant, None, request_filter)

    assert set(expected(narrowed)) == set(expected(tenant)) & set(expected(request_filter))


def test_nothing_combines_to_nothing_and_one_to_itself():
    only = IsNull("age")

    assert combine() is combine(None, None) is None
    assert combine(None, only) is only


# ------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("catgory = 'a'", r"character 1: unknown column 'catgory'; did you mean 'category'"),
        ("age = 1 and zzz = 1", r"character 13: unknown column 'zzz'; known: 2nd name, age"),
        ("1=1; drop table documents", r"character 4: unexpected '; '"),
        ("1 = 1", "character 1: expected a column; found '1'"),
        ("age = 1; drop table x", r"character 8: unexpected '; '"),
        ("age = 1 -- and select = 'a'", r"character 9: unexpected '--'"),
        ("age = 1 /* x */", r"unexpected '/\*'"),
        ("age = 1 # x", r"unexpected '# '"),
        ("age = --5", r"unexpected '--'"),
        ("age = 1 union select", "expected and, or, or the end; found 'union'"),
        ("(age = 1", r"expected and, or, or '\)'; found the end"),
        ("age = 1)", r"character 8: expected and, or, or the end; found '\)'"),
        ("()", r"expected a column; found '\)'"),
        ("age =", "expected a value .*; found the end"),
        ("age", r"expected an operator for 'age' \(=, .*is null\); found the end"),
        ("age == 1", "write ="),
        ("age <> 1", "write !="),
        ("category like '%a'", "expected an operator for 'category'"),
        ("age between 1 and 2", "expected an operator"),
        ("category = a", "text stands in quotes.*found 'a'"),
        ("category = 'a", "character 12: the quote ' is never closed"),
        ("category = 'a''", "the quote ' is never closed"),
        ("category = '''", "the quote ' is never closed"),
        ('category = "a', 'the quote " is never closed'),
        ("`age = 1", "the quote ` is never closed"),
        ("category = 'a'b'", "the quote ' is never closed"),
        ("category = 5", r"column 'category' \(string\): 5 is not text; put it in quotes"),
        ("category = 2024-01-31", "put it in quotes"),
        ("category = null", "null is no value; write is null"),
        ("category in ('a', null)", "null is no value"),
        ("category in ()", "in needs at least one value"),
        ("category in 'a'", r"expected '\(' and a list of values"),
        ("category in ('a' 'b')", r"expected ',' or '\)'"),
        ("category in ('a',)", "expected a value"),
        ("category not 'a'", "expected in"),
        ("category is 'a'", "expected null"),
        ("age = 'x'", r"column 'age' \(integer\): 'x' is not a whole number"),
        ("age = 1.5", "1.5 is not a whole number"),
        ("age = true", "true is not a whole number"),
        ("age = '12'", "'12' is not a whole number"),
        ("age = 9223372036854775808", "does not fit in 64 bits"),
        ("age = " + "9" * 300, "a whole number of 997 bits does not fit"),
        ("age = " + "9" * 5000, "a number of 5000 digits; the limit is 400"),
        ("age contains 'x'", r"'age' \(integer\) does not take contains"),
        ("score = 1e999", "inf is not a finite number"),
        ("score = " + "9" * 399, "is not a finite number"),
        ("score = nan", "found 'nan'"),
        ("public = 1", "neither true nor false"),
        ("public < true", r"'public' \(boolean\) does not take <"),
        ("labels = 'a'", r"does not take =; it takes contains, contains_any, in, is null"),
        ("seen = 2024-01-31T10:00:00", "has no time zone; write 2024-01-31T10:00:00Z for UTC"),
        ("seen = '2024-01-31 10:00'", "has no time zone"),
        ("seen = 2024-02-30", "not in the calendar"),
        ("seen = 0001-01-01T00:00:00+14:00", "not in the calendar"),
        ("seen = 2024-01-31T10:00:00.1234567Z", "six decimals"),
        ("seen = 'yesterday'", "is not a timestamp; write 2024-01-31"),
        ("seen = 5", "5 is not a timestamp"),
        ("category = 'a\0b'", "NUL"),
        ("age\0 = 1", r"unexpected '\\x00 '"),
        ("category = '\ud800'", "surrogate"),
        ("age = 1 and", "expected a column; found the end"),
        ("or age = 1", "expected a column; found 'or'"),
        ("x" * 100_000, "100000 characters; the limit is 10000"),
        ("(" * 10_000, "nested deeper than 32 levels"),
        ("not " * 2_000 + "age = 1", "nested deeper than 32 levels"),
        ("(" * 33 + "age = 1" + ")" * 33, "character 34: nested deeper than 32 levels"),
        ("age in (" + "1," * 1_000 + "1)", "in has 1001 values; the limit is 1000"),
        (" or ".join(["age=1"] * 501), "more than 500 conditions"),
    ],
)
def test_bad_text_is_refused_by_naming_the_part(text, part):
    with pytest.raises(FilterError, match=part) as caught:
        parse(text, COLUMNS)

    assert len(str(caught.value)) < 300


def nested(levels: int) -> dict[str, object]:
    node: dict[str, object] = {"age": 1}
    for _ in range(levels):
        node = {"not": node}
    return node


def cyclic() -> dict[str, object]:
    node: dict[str, object] = {}
    node["not"] = node
    return node


@pytest.mark.parametrize(
    ("node", "part"),
    [
        ({}, "an empty object says nothing"),
        ([], "expected an object"),
        (None, "found null"),
        ({"catgory": "a"}, "at catgory: unknown column 'catgory'; did you mean 'category'"),
        (
            {"or": [{"age": 1}, {"and": [{"ag": 1}]}]},
            r"at or\[1\]\.and\[0\]\.ag: unknown column 'ag'; did you mean 'age'",
        ),
        ({"category": {"equals": "a"}}, "unknown operator 'equals'"),
        ({"category": {"not in": ["a"]}}, "unknown operator 'not in'; did you mean 'not_in'"),
        ({"category": {}}, "no operator"),
        ({"category": ["a"]}, r'write {"category": {"in": \[...\]}}'),
        ({"category": None}, "null is no value"),
        ({"category": {"eq": {"in": ["a"]}}}, "an object is not text"),
        ({"category": {"in": "a"}}, "in takes a list; found 'a'"),
        ({"category": {"in": []}}, "in needs at least one value"),
        ({"category": {"in": ["a"] * 1001}}, "1001 values; the limit is 1000"),
        ({"and": [{"age": {"in": list(range(1000))}} for _ in range(11)]}, "10000 in the whole filter"),
        ({"and": [{"age": 1}] * 501}, "more than 500 conditions"),
        ({"category": "x" * 10_001}, "has 10001 characters; the limit is 10000"),
        ({"category": "a\0"}, "NUL"),
        ({"category": "\ud800"}, "surrogate"),
        ({"\ud800": "a"}, "unknown column"),
        ({"x" * 100_000: "a"}, "unknown column"),
        ({3: "a"}, "a name has to be a string; found 3"),
        ({"age": {"is_null": "yes"}}, "is_null takes true or false"),
        ({"age": 1.0}, "1.0 is not a whole number"),
        ({"age": 10**5000}, "bits does not fit"),
        ({"score": math.nan}, "nan is not a finite number"),
        ({"score": math.inf}, "inf is not a finite number"),
        ({"score": 10**400}, "is not a finite number"),
        ({"score": {"in": [1, math.nan]}}, "not a finite number"),
        ({"seen": datetime(2024, 1, 31)}, "has no time zone"),  # noqa: DTZ001 - the naive one is the point
        ({"seen": "2024-01-31T10:00:00"}, "has no time zone"),
        ({"seen": 1706695200}, "is not a timestamp"),
        ({"and": []}, "expected a list of objects"),
        ({"or": {"age": 1}}, "at or: expected a list of objects, one or more; found an object"),
        ({"not": [{"age": 1}]}, "at not: expected an object"),
        (nested(33), "nested deeper than 32"),
        (nested(5_000), "nested deeper than 32"),
        (cyclic(), "nested deeper than 32"),
        ('{"score": NaN}', "NaN is not a JSON number"),
        ('{"score": -Infinity}', "-Infinity is not a JSON number"),
        ('{"age": 1, "age": 2}', "'age' stands twice"),
        ('{"age": 1', "not JSON"),
        ('{"age": ' + "9" * 5_000 + "}", "not JSON"),
        ('{"not":' * 1_400, "filter: "),
        ('{"age":' + "[" * 9_000, "filter: "),
    ],
)
def test_bad_json_is_refused_by_naming_the_part(node, part):
    with pytest.raises(FilterError, match=part) as caught:
        parse(node, COLUMNS)

    assert len(str(caught.value)) < 300


@given(st.text(alphabet="age=<>!'\"`()., -+1eE2024:TZ\\;\0andornotisul", max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_either_a_filter_or_a_filter_error(text):
    try:
        node = parse(text, COLUMNS)
    except FilterError:
        return
    assert parse(node.canonical(), COLUMNS).canonical() == node.canonical()


@given(
    st.recursive(
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(
                st.sampled_from(["and", "or", "not", "age", "score", "labels", "in", "eq", "is_null"]), inner
            ),
        ),
        max_leaves=8,
    )
)
@settings(max_examples=200, deadline=None)
def test_any_json_is_either_a_filter_or_a_filter_error(node):
    if isinstance(node, str):
        return
    try:
        assert parse(node, COLUMNS).sql()
    except FilterError:
        return


@pytest.mark.parametrize("name", ["", "a`b", "a\0b", "a\nb"])
def test_a_column_that_cannot_be_quoted_cannot_be_declared(name):
    with pytest.raises(DeclarationError, match="filter column"):
        Column(name, "string")
    if name:
        with pytest.raises(FilterError, match="cannot be quoted"):
            IsNull(name).sql()


def test_a_column_of_an_unknown_type_names_the_nearest():
    with pytest.raises(DeclarationError, match="did you mean 'integer'"):
        Column("age", "interger")


def test_a_literal_made_by_hand_is_checked_before_it_is_written():
    with pytest.raises(FilterError, match="not a finite number"):
        Comparison("score", "<", math.nan).sql()


def test_the_public_names_are_these():
    assert set(filters.__all__) == {
        *("MAX_CONDITIONS", "MAX_DEPTH", "MAX_ITEMS", "MAX_TEXT", "MAX_VALUES"),
        *("And", "Column", "ColumnType", "Comparison", "Contains", "Filter", "IsNull", "Membership", "Not", "Or"),
        *("Value", "combine", "parse"),
    }
