"""The figures of several workers, told by any of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestore.server.board import Board, Note
from lodestore.server.metrics import BOUNDS, Figures, Metrics, as_text

counts = st.dictionaries(
    st.tuples(
        st.sampled_from(["a_total", "b_total"]), st.lists(st.tuples(st.text(), st.text()), max_size=2).map(tuple)
    ),
    st.integers(0, 2**40).map(float),
)
times = st.dictionaries(
    st.lists(st.tuples(st.text(), st.text()), max_size=2).map(tuple),
    st.lists(st.integers(0, 2**40).map(float), min_size=len(BOUNDS) + 2, max_size=len(BOUNDS) + 2).map(tuple),
)
figures = st.builds(Figures, counts, times)


def asked(endpoint: str, times: int) -> Figures:
    metrics = Metrics()
    for _ in range(times):
        metrics.request(endpoint, "users", 200, 0.002)
    return metrics.figures()


@given(figures)
def test_figures_come_back_from_their_json(one):
    assert Figures.from_json(one.to_json()) == one


@given(figures, figures, figures)
def test_adding_up_knows_no_order(one, other, third):
    assert one + other == other + one
    assert (one + other) + third == one + (other + third)
    assert one + Figures() == one


def test_every_worker_tells_the_figures_of_all_and_a_dead_one_counts_on(tmp_path):
    first, second = Board("w1", tmp_path), Board("w2", tmp_path)
    first.pin(lambda: Note("w1", asked("/v1/features", 3), {("lodestore_release", ()): 7.0}))
    second.pin(lambda: Note("w2", asked("/v1/features", 4), {("lodestore_release", ()): 6.0}))

    told = [sum((one.figures for one in board.read()), Figures()) for board in (first, second)]

    assert told[0] == told[1] == asked("/v1/features", 7)
    assert [(one.worker, one.gauges) for one in second.read()] == [
        ("w1", {("lodestore_release", ()): 7.0}),
        ("w2", {("lodestore_release", ()): 6.0}),
    ]


def test_a_worker_that_is_gone_has_no_gauges_any_more(tmp_path):
    Board("w1", tmp_path, clock=lambda: 1_000.0).pin(
        lambda: Note("w1", asked("/v1/search", 2), {("lodestore_release", ()): 7.0})
    )

    (note,) = Board("w2", tmp_path, clock=lambda: 1_011.0).read()

    assert (note.figures, note.gauges) == (asked("/v1/search", 2), {})


def test_a_note_that_cannot_be_pinned_leaves_the_last_one(tmp_path):
    board = Board("w1", tmp_path)
    board.pin(lambda: Note("w1", asked("/v1/search", 2), {}))
    (tmp_path / "w1.new").mkdir()

    with pytest.raises(OSError, match="directory"):
        board.pin(lambda: Note("w1", asked("/v1/search", 3), {}))

    (note,) = board.read()
    assert note.figures == asked("/v1/search", 2)


def test_the_text_has_each_type_once_and_buckets_that_add_up():
    text = as_text(asked("/v1/features", 5), {("lodestore_release", (("worker", w),)): 1.0 for w in ("a", "b")})

    lines = text.splitlines()
    assert lines.count("# TYPE lodestore_release gauge") == 1
    assert {'lodestore_release{worker="a"} 1', 'lodestore_release{worker="b"} 1'} <= set(lines)
    assert 'lodestore_request_seconds_bucket{endpoint="/v1/features",view="users",le="0.001"} 0' in lines
    assert 'lodestore_request_seconds_bucket{endpoint="/v1/features",view="users",le="+Inf"} 5' in lines
    assert 'lodestore_requests_total{endpoint="/v1/features",view="users",status="200"} 5' in lines
