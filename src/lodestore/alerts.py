"""Alerts: each transition of a check told once, its recovery too, grouped by run, kept until it is delivered.

Everything that decides is pure: evaluations and the log's rows in, new rows and messages out. Only
`send` and `Desk` act. A row is written before anything is sent: a crash repeats a message at worst.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from lodestore.errors import SettingsError, UnavailableError
from lodestore.logs import Logs
from lodestore.playbook import guide
from lodestore.ports import Clock
from lodestore.wire import rfc3339

__all__ = [
    "Alert",
    "AlertOptions",
    "Delivery",
    "Desk",
    "Evaluation",
    "Message",
    "Route",
    "alerts_of",
    "evaluation_of",
    "messages",
    "outbox",
    "send",
    "transitions",
    "urls_for",
    "worded",
]

Severity = Literal["warning", "error"]
State = Literal["failing", "recovered"]
Send = Callable[[Sequence[str], str, str], str | None]

_RETRY_FIRST = timedelta(seconds=30)
_RETRY_LAST = timedelta(hours=1)
# A run may still be writing while another one's rows are read: what is older than the cursor by this much is looked at again.
_OVERLAP = timedelta(minutes=10)
_SEP = "|"


@dataclass(frozen=True, slots=True)
class Route:
    """`[[alerts.routes]]`: where findings of this owner or severity go; what is left out matches everything."""

    urls: tuple[str, ...] = field(repr=False)
    owner: str | None = None
    severity: Literal["warning", "error"] | None = None
    name: str = "route"


@dataclass(frozen=True, slots=True)
class AlertOptions:
    """`[alerts]`: apprise URLs, where findings go that no route takes; the quiet after a flap; the address of the UI.

    The sensor looks every `every_seconds`.
    """

    urls: tuple[str, ...] = field(default=(), repr=False)
    routes: tuple[Route, ...] = ()
    cooldown_minutes: float = 60.0
    link: str = "http://127.0.0.1:3000"
    every_seconds: int = 30

    def __post_init__(self) -> None:
        if self.cooldown_minutes < 0:
            message = f"cooldown_minutes is {self.cooldown_minutes}; give 0 for none, or more"
            raise SettingsError(message)
        if self.every_seconds < 1:
            message = f"every_seconds is {self.every_seconds}; give 1 or more"
            raise SettingsError(message)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One result of one check of one partition."""

    check: str
    asset: str
    partition: str
    passed: bool
    severity: Severity
    value: float | None
    limit: float | None
    detail: str
    mend: str
    run_id: str
    at: datetime
    whole: bool = False  # that a check which could not run at all runs again

    @property
    def key(self) -> str:
        """What names the check everywhere: asset, check and partition."""
        return f"{self.asset}:{self.check}" + (f"[{self.partition}]" if self.partition else "")


@dataclass(frozen=True, slots=True)
class Alert:
    """One transition of one check. `delivery`: pending, muted, sent, logged, or what failed."""

    key: str
    state: State
    severity: Severity
    run_id: str
    at: datetime
    text: str
    delivery: str = "pending"
    attempt: int = 0
    last: datetime | None = None

    @property
    def base(self) -> str:
        """The part of the id that all rows of the alert share."""
        return _SEP.join([self.run_id, self.severity, self.state, rfc3339(self.at), self.key])

    @property
    def asset(self) -> str:
        """The asset that the check is of."""
        return self.key.partition(":")[0]

    @property
    def waiting(self) -> bool:
        """Whether it still has to be delivered."""
        return self.delivery == "pending" or self.delivery.startswith("failed")

    def row(self) -> dict[str, Any]:
        """The row of the log; the first one bears the moment of the transition."""
        named = {"id": f"{self.base}{_SEP}{self.attempt}", "check": self.key, "state": self.state}
        return {**named, "text": self.text, "delivery": self.delivery, "at": self.last or self.at}


@dataclass(frozen=True, slots=True)
class Delivery:
    """What sending came to: `problem` is None when it went out."""

    alerts: tuple[Alert, ...]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One run's findings for one group of channels."""

    title: str
    body: str
    urls: tuple[str, ...] = field(repr=False)
    alerts: tuple[Alert, ...] = ()


def evaluation_of(row: Mapping[str, Any]) -> Evaluation:
    """The evaluation that a row of the log of checks tells."""
    severity: Severity = "warning" if str(row["severity"]).lower().startswith("warn") else "error"
    texts: dict[str, Any] = {
        name: row[name] or "" for name in ("check", "asset", "partition", "detail", "mend", "run_id")
    }
    return Evaluation(
        **texts, passed=row["passed"], severity=severity, value=row["value"], limit=row["limit"], at=row["at"]
    )


def alerts_of(rows: Iterable[Mapping[str, Any]]) -> list[Alert]:
    """The alerts that the log holds, each as its newest row leaves it; oldest transition first."""
    found: dict[str, Alert] = {}
    for row in rows:
        run_id, severity, state, at, rest = row["id"].split(_SEP, 4)
        attempt = int(rest.rpartition(_SEP)[2])
        alert = Alert(
            row["check"], state, severity, run_id, datetime.fromisoformat(at), row["text"], row["delivery"],
            attempt, row["at"],
        )  # fmt: skip
        known = found.get(alert.base)
        if known is None or known.attempt <= attempt:
            found[alert.base] = alert
    return sorted(found.values(), key=lambda one: one.at)


# -- what has changed


def transitions(
    known: Iterable[Alert], evaluations: Iterable[Evaluation], *, cooldown: timedelta, link: str = ""
) -> tuple[Alert, ...]:
    """The alerts that these evaluations make new, in their order; those already looked at make none.

    A check that fails again within the cool-down after it was told is muted, and so is its recovery;
    when it still fails after the cool-down, it is told.
    """
    last: dict[str, Alert] = {}
    told: dict[str, datetime] = {}
    for one in known:
        _remember(one, last, told)
    made = []
    for now in sorted(_with_whole(evaluations), key=lambda one: one.at):
        if now.whole and now.key not in last:
            continue
        new = _transition(last.get(now.key), told.get(now.key), now, cooldown=cooldown, link=link)
        if new is not None:
            _remember(new, last, told)
            made.append(new)
    return tuple(made)


def _with_whole(evaluations: Iterable[Evaluation]) -> Iterable[Evaluation]:
    """The evaluations, and with each of one partition the news that the check as a whole has run."""
    for one in evaluations:
        yield one
        if one.partition:
            yield replace(one, partition="", passed=True, detail="the check runs again", whole=True)


def _remember(one: Alert, last: dict[str, Alert], told: dict[str, datetime]) -> None:
    last[one.key] = one
    if one.state == "failing" and one.delivery != "muted":
        told[one.key] = one.at


def _transition(
    before: Alert | None, told: datetime | None, now: Evaluation, *, cooldown: timedelta, link: str
) -> Alert | None:
    if before is not None and now.at <= before.at:
        return None
    failing = before is not None and before.state == "failing"
    muted = before is not None and before.delivery == "muted"
    if now.passed:
        return _alert(now, "recovered", before, link=link, muted=muted) if failing else None
    fresh = told is not None and now.at - told < cooldown
    worse = before is not None and failing and before.severity == "warning" and now.severity == "error"
    if not failing or worse or (muted and not fresh):
        return _alert(now, "failing", before, link=link, muted=fresh and not worse)
    return None


def _alert(now: Evaluation, state: State, before: Alert | None, *, link: str, muted: bool) -> Alert:
    severity = before.severity if state == "recovered" and before is not None else now.severity
    since = before.at if state == "recovered" and before is not None else now.at
    text = worded(now, state, since=since, link=link)
    return Alert(now.key, state, severity, now.run_id, now.at, text, "muted" if muted else "pending")


# -- what is said


def worded(now: Evaluation, state: State, *, since: datetime, link: str = "") -> str:
    """One finding in words: what, since, measure against limit, effect, usual cause, link, command. Ids, no texts."""
    name = f"{now.check} of {now.asset}" + (f" ({now.partition})" if now.partition else "")
    if state == "recovered":
        return f"RECOVERED {name}: {now.detail}. It had failed since {rfc3339(since)[:19]}Z."
    words = guide(now.check)
    measured = "" if now.value is None or now.limit is None else f" Measured {now.value:.4g}, limit {now.limit:.4g}."
    lines = [
        f"{now.severity.upper()} {name}: {now.detail}.{measured}",
        f"Since {rfc3339(since)[:19]}Z, run {now.run_id[:8]}.",
        f"Effect on answers: {words.effect}.",
        f"Usual cause: {words.cause}.",
        f"Settle it: {now.mend or words.settle}",
    ]
    return "\n".join([*lines, *([f"{link}/runs/{now.run_id}"] if link else [])])


def urls_for(alert: Alert, options: AlertOptions, owners: Mapping[str, str]) -> tuple[str, ...]:
    """Where the alert goes: to every route that matches, or else to the general addresses."""
    owner = owners.get(alert.asset.rpartition("/")[2])
    fitting = [one for one in options.routes if one.owner in {None, owner} and one.severity in {None, alert.severity}]
    return tuple(dict.fromkeys(url for one in fitting for url in one.urls)) or options.urls


def outbox(alerts: Iterable[Alert], now: datetime) -> list[Alert]:
    """The alerts that are due: those never tried, and those whose last failure is long enough ago.

    With the news of a check comes what was not yet told of it: nobody hears of a recovery first.
    """
    waiting = [one for one in alerts if one.waiting]
    due = {one.key for one in waiting if one.attempt == 0 or now - (one.last or one.at) >= _pause(one)}
    return [one for one in waiting if one.key in due]


def _pause(alert: Alert) -> timedelta:
    return min(_RETRY_LAST, _RETRY_FIRST * 2 ** min(alert.attempt - 1, 12))


def messages(due: Sequence[Alert], options: AlertOptions, owners: Mapping[str, str]) -> list[Message]:
    """One message for each run and group of channels, in the order of the transitions."""
    groups: dict[tuple[str, tuple[str, ...]], list[Alert]] = {}
    for one in due:
        groups.setdefault((one.run_id, urls_for(one, options, owners)), []).append(one)
    return [Message(_title(some), "\n\n".join(one.text for one in some), urls, tuple(some))
            for (_, urls), some in groups.items()]  # fmt: skip


def _title(alerts: Sequence[Alert]) -> str:
    bad = [one for one in alerts if one.state == "failing"]
    good = len(alerts) - len(bad)
    parts = [f"{len(bad)} check{'s' if len(bad) > 1 else ''} failing"] if bad else []
    parts += [f"{good} recovered"] if good else []
    first = (bad or list(alerts))[0].key
    return f"Lodestore: {', '.join(parts)} ({first}{', ...' if len(alerts) > 1 else ''})"


# -- the edge


def send(urls: Sequence[str], title: str, body: str) -> str | None:
    """The message is with every channel; otherwise the kinds of channel that did not take it, never their addresses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # apprise imports deprecated modules, some of them as late as here
        try:
            import apprise
        except ImportError as error:
            message = "alerts need apprise: pip install 'lodestore[dagster]'"
            raise UnavailableError(message) from error
        failed = [url for url in urls if not _posted(apprise.Apprise(), url, title, body)]
    kinds = dict.fromkeys(url.partition("://")[0] for url in failed)
    return f"{', '.join(kinds)} did not take it" if kinds else None


def _posted(channel: Any, url: str, title: str, body: str) -> bool:  # noqa: ANN401 - apprise ships no types
    return bool(channel.add(url)) and bool(channel.notify(body=body, title=title))


class Desk:
    """Reads the logs, writes what is new, sends what is due."""

    def __init__(self, logs: Logs, clock: Clock, options: AlertOptions, owners: Mapping[str, str]) -> None:
        self._logs = logs
        self._clock = clock
        self._options = options
        self._owners = owners

    def note(
        self, since: datetime | None, more: Iterable[Evaluation] = ()
    ) -> tuple[tuple[Alert, ...], datetime | None]:
        """Every transition since `since` is in the log, and where to read on from."""
        found = [evaluation_of(row) for row in self._logs.rows("checks", self._after(since))]
        # Where nothing was read before, only what each check says now is news.
        every = [*({one.key: one for one in found}.values() if since is None else found), *more]
        cooldown = timedelta(minutes=self._options.cooldown_minutes)
        made = transitions(self._alerts(), every, cooldown=cooldown, link=self._options.link)
        self._logs.put_all("alerts", [one.row() for one in made])
        latest = max((one.at for one in found), default=since)
        return made, latest

    def _after(self, since: datetime | None) -> str | None:
        if since is None:
            return None
        return f"`at` > timestamp '{(since - _OVERLAP).strftime('%Y-%m-%d %H:%M:%S.%f')}'"

    def _alerts(self) -> list[Alert]:
        return alerts_of(self._logs.rows("alerts"))

    def deliver(self, post: Send = send) -> list[Delivery]:
        """What is due was sent, and the log says what came of it; without an address it is logged."""
        out = []
        for message in messages(outbox(self._alerts(), self._clock()), self._options, self._owners):
            problem = post(message.urls, message.title, message.body) if message.urls else None
            word = f"failed: {problem}" if problem else ("sent" if message.urls else "logged")
            now = self._clock()
            tried = [replace(one, delivery=word, attempt=one.attempt + 1, last=now) for one in message.alerts]
            self._logs.put_all("alerts", [one.row() for one in tried])
            out.append(Delivery(tuple(tried), problem))
        return out
