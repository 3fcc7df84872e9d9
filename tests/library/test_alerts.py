"""Alerts as pure decisions: what is told, once, in which message, and when again."""

from __future__ import annotations

import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestore.alerts import (
    Alert,
    AlertOptions,
    Desk,
    Evaluation,
    Route,
    alerts_of,
    messages,
    outbox,
    send,
    transitions,
    urls_for,
    worded,
)
from lodestore.heartbeats import beat
from lodestore.logs import Logs
from lodestore.testing import MemoryStore

START = datetime(2026, 1, 5, 8, tzinfo=UTC)
HOUR = timedelta(hours=1)


def evaluated(passed: bool, *, minutes: float = 0, check: str = "drift", run: str = "run1", **more) -> Evaluation:
    values = {"asset": "user_profile", "partition": "", "severity": "warning", "value": 3.0, "limit": 0.0}
    values |= {"detail": "three columns drifted", "mend": "lodestore drift check", **more}
    return Evaluation(check, passed=passed, run_id=run, at=START + timedelta(minutes=minutes), **values)


def test_a_failing_check_is_told_once_and_its_recovery_once():
    runs = [True, False, False, False, True, True]
    evaluations = [evaluated(passed, minutes=60 * at) for at, passed in enumerate(runs)]

    made = transitions([], evaluations, cooldown=HOUR)

    assert [(one.state, one.at.hour) for one in made] == [("failing", 9), ("recovered", 12)]


def test_what_was_looked_at_before_makes_nothing_new():
    evaluations = [evaluated(False), evaluated(True, minutes=90)]
    made = transitions([], evaluations, cooldown=HOUR)

    again = transitions(made, evaluations, cooldown=HOUR)

    assert again == ()


def test_a_check_that_flaps_is_muted_within_the_cool_down_and_told_after_it():
    flaps = [evaluated(at % 2 == 1, minutes=10 * at) for at in range(4)]
    later = [evaluated(False, minutes=50), evaluated(False, minutes=61), evaluated(False, minutes=70)]

    made = transitions([], [*flaps, *later], cooldown=HOUR)

    assert [(one.state, one.delivery) for one in made] == [
        ("failing", "pending"),
        ("recovered", "pending"),
        ("failing", "muted"),
        ("recovered", "muted"),
        ("failing", "muted"),
        ("failing", "pending"),
    ]


def test_a_warning_that_becomes_an_error_is_told_again():
    made = transitions([], [evaluated(False), evaluated(False, minutes=5, severity="error")], cooldown=HOUR)

    assert [one.severity for one in made] == ["warning", "error"]


def test_partitions_are_told_apart():
    one, other = evaluated(False, partition="a"), evaluated(True, partition="b")

    made = transitions([], [one, other], cooldown=HOUR)

    assert [alert.key for alert in made] == ["user_profile:drift[a]"]


def test_a_check_that_could_not_run_recovers_when_one_of_its_partitions_is_measured_again():
    crashed = evaluated(False, check="canary")
    back = evaluated(True, check="canary", partition="minilm@1", minutes=5)

    made = transitions([], [crashed, back], cooldown=HOUR)

    assert [(one.key, one.state) for one in made] == [
        ("user_profile:canary", "failing"),
        ("user_profile:canary", "recovered"),
    ]


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 120), st.integers(0, 29))
def test_looking_in_two_goes_tells_what_one_look_tells(results, minutes, cut):
    evaluations = [evaluated(passed, minutes=minutes * at) for at, passed in enumerate(results)]

    whole = transitions([], evaluations, cooldown=HOUR)
    first = transitions([], evaluations[:cut], cooldown=HOUR)
    second = transitions(first, evaluations, cooldown=HOUR)

    assert (*first, *second) == whole


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 120))
def test_states_alternate_unless_a_muted_failure_is_told_at_last(results, minutes):
    evaluations = [evaluated(passed, minutes=minutes * at) for at, passed in enumerate(results)]

    made = transitions([], evaluations, cooldown=HOUR)

    for before, after in pairwise(made):
        assert before.state != after.state or (before.delivery, after.delivery) == ("muted", "pending")
    told = [one for one in made if one.delivery == "pending" and one.state == "failing"]
    assert all(b.at - a.at >= HOUR for a, b in pairwise(told))


def test_one_run_is_one_message_and_two_runs_are_two():
    found = [evaluated(False, check=name) for name in ("drift", "skew")]
    found.append(evaluated(False, check="canary", run="run2", minutes=1))
    made = transitions([], found, cooldown=HOUR)

    sent = messages(made, AlertOptions(urls=("json://all",)), {})

    assert [one.title for one in sent] == [
        "Lodestore: 2 checks failing (user_profile:drift, ...)",
        "Lodestore: 1 check failing (user_profile:canary)",
    ]


def test_findings_go_to_the_routes_of_their_owner_and_severity_and_else_to_everybody():
    options = AlertOptions(
        urls=("json://all",),
        routes=(Route(urls=("json://search",), owner="team:search"), Route(urls=("json://pager",), severity="error")),
    )
    owners = {"user_profile": "team:search", "documents": "team:data"}
    mine, theirs, bad = transitions(
        [],
        [
            evaluated(False),
            evaluated(False, asset="documents", minutes=1),
            evaluated(False, severity="error", check="canary", minutes=2),
        ],
        cooldown=HOUR,
    )

    assert urls_for(mine, options, owners) == ("json://search",)
    assert urls_for(theirs, options, owners) == ("json://all",)
    assert urls_for(bad, options, owners) == ("json://search", "json://pager")


def test_a_message_says_what_since_limit_effect_cause_link_and_command():
    text = worded(evaluated(False), "failing", since=START, link="http://ui")

    for part in (
        "WARNING drift of user_profile",
        "Measured 3, limit 0",
        "Since 2026-01-05T08:00:00Z",
        "Effect on answers:",
        "Usual cause:",
        "Settle it: lodestore drift check",
        "http://ui/runs/run1",
    ):
        assert part in text


def test_a_failed_delivery_waits_longer_each_time():
    (alert,) = transitions([], [evaluated(False)], cooldown=HOUR)
    tried = [replace(alert, delivery="failed: json did not take it", attempt=n, last=START) for n in (1, 2, 20)]

    due = [[len(outbox([one], START + timedelta(seconds=s))) for s in (29, 30, 60, 3600)] for one in tried]

    assert due == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]


@pytest.fixture
def logs() -> Logs:
    return Logs(MemoryStore(), lambda: START + HOUR)


def check_row(passed: bool, *, minutes: float = 0) -> dict[str, object]:
    one = evaluated(passed, minutes=minutes)
    names = ("check", "asset", "partition", "severity", "run_id", "detail", "mend", "passed", "value", "limit", "at")
    return {name: getattr(one, name) for name in names}


def desk(logs: Logs, *, urls: tuple[str, ...] = ("json://all",)) -> Desk:
    return Desk(logs, lambda: START + HOUR, AlertOptions(urls=urls), {})


def test_an_alert_is_in_the_log_before_anything_is_sent(logs):
    logs.put("checks", check_row(passed=False))

    def crash(*_: object) -> str | None:
        raise KeyboardInterrupt

    desk(logs).note(None)
    with pytest.raises(KeyboardInterrupt):
        desk(logs).deliver(crash)
    posted: list[str] = []
    desk(logs).deliver(lambda _, title, __: posted.append(title))

    assert len(posted) == 1
    assert [one.delivery for one in alerts_of(logs.rows("alerts"))] == ["sent"]


def test_what_could_not_be_sent_is_kept_and_sent_later_and_then_never_again(logs):
    logs.put("checks", check_row(passed=False))
    desk(logs).note(None)
    posted: list[str] = []

    desk(logs).deliver(lambda *_: "json did not take it")
    later = Desk(logs, lambda: START + 2 * HOUR, AlertOptions(urls=("json://all",)), {})
    later.deliver(lambda _, title, __: posted.append(title))
    later.deliver(lambda _, title, __: posted.append(title))

    assert len(posted) == 1


def test_a_recovery_is_not_told_before_the_failure_that_could_not_be_sent(logs):
    logs.put("checks", check_row(passed=False))
    desk(logs).note(None)
    desk(logs).deliver(lambda *_: "json did not take it")
    logs.put("checks", {**check_row(passed=True, minutes=30), "run_id": "run2"})
    desk(logs).note(None, [evaluated(True, minutes=30, run="run2")])
    posted: list[str] = []

    # a second after the failure, long before its next try
    desk(logs).deliver(lambda _, title, __: posted.append(title))

    assert ["failing" in title for title in posted] == [True, False]


def test_without_an_address_the_alert_is_logged_and_nothing_is_posted(logs):
    logs.put("checks", check_row(passed=False))

    made, until = desk(logs, urls=()).note(None)
    (done,) = desk(logs, urls=()).deliver(lambda *_: pytest.fail("posted"))

    assert until == START
    assert made[0].text == done.alerts[0].text
    assert done.alerts[0].delivery == "logged"


def test_the_first_look_at_an_old_store_tells_only_what_fails_now(logs):
    logs.put_all("checks", [check_row(passed=False), check_row(passed=True, minutes=5)])

    made, _ = desk(logs).note(None)

    assert made == ()


def test_alerts_come_back_from_the_log_as_they_were(logs):
    (alert,) = transitions([], [evaluated(False, partition="a|b")], cooldown=HOUR)

    logs.put_all("alerts", [alert.row()])

    (found,) = alerts_of(logs.rows("alerts"))
    assert replace(found, last=None) == alert
    assert isinstance(found, Alert)


def test_an_address_that_is_none_is_told_by_its_kind_alone():
    told = send(["nonsense://secret-token@host"], "title", "body")

    assert told == "nonsense did not take it"


@pytest.mark.parametrize("url", [
    "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#data",
    "mailto://me:secret@example.org",
    "pagerduty://0123456789abcdef0123456789abcdef@routing-key",
    "workflows://prod-01.example.org/643e69ecdd5146309d0dd8a4/MyJPWEjuO1YV8R0Xr8aqoKXtZ3Q3q",
    "json://hooks.example.org/lodestore",
])  # fmt: skip
def test_the_usual_channels_are_known(url):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import apprise

        assert apprise.Apprise().add(url)


def test_a_heart_that_beat_just_now_needs_no_second_row(logs):
    moments = iter([START, START + timedelta(minutes=1), START + timedelta(minutes=3)])

    beats = [beat(logs, lambda: next(moments)) for _ in range(3)]

    assert beats == [True, False, True]
    assert len(logs.rows("heartbeats")) == 2
