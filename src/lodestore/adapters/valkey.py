"""Online rows in Valkey or Redis: for when several machines serve.

Each namespace is one hash, key -> row; its event ids are one sorted set by event time; the journal is one sorted
set by sequence. Every key bears the tag `{name}`, so that a cluster keeps them together. The newer-event rule
runs on the server, in one script: no client can come in between. What survives a crash of the server is what
its own persistence (appendonly) keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from lodestore.bulk import Bytes
from lodestore.deliveries import Delivery, batches, deliveries, deliveries_of_columns
from lodestore.errors import (
    SchemaVersionError,
    SettingsError,
    StoreError,
    StoreWriteError,
    UnavailableError,
)
from lodestore.online import (
    BATCH_ROWS,
    SCHEMES,
    JournalEntry,
    Key,
    Keys,
    OnlineRow,
    Written,
    decode_key,
    decode_row,
    encode_key,
    encode_keys,
    mark_key,
    namespace_prefix,
)

try:
    import valkey
except ModuleNotFoundError as error:
    _message = "the online store redis:// needs its client; install lodestore[redis], or set [online] url to lmdb"
    raise SettingsError(_message) from error

__all__ = ["ValkeyOnlineStore"]

_SCHEMA: Final = b"1"
_TIMEOUT: Final = 2.0

# The same rule as `settle`. Rows arrive as key, stored row, event id ('' for none); bytes 2 to 17 of a stored row
# are its timestamps. They are compared byte by byte, because Lua compares strings by locale.
_WRITE: Final = """
local rows, events, journal, sequence, namespaces, event_namespaces = unpack(KEYS)
local namespace, journalled = ARGV[1], ARGV[2] == '1'
local accepted, duplicates, late = 0, 0, 0

local function older(a, b)
  for at = 2, 17 do
    local x, y = a:byte(at), b:byte(at)
    if x ~= y then return x < y end
  end
  return false
end

for at = 3, #ARGV, 3 do
  local key, stored, event = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if event ~= '' and redis.call('ZSCORE', events, event) then
    duplicates = duplicates + 1
  else
    if event ~= '' then
      local high, low = struct.unpack('>I4I4', stored, 2)
      local micros = (high - 2147483648) * 4294967296 + low
      redis.call('ZADD', events, string.format('%.17g', micros), event)
      redis.call('SADD', event_namespaces, namespace)
    end
    if journalled then
      local number = redis.call('INCR', sequence)
      local entry = number .. ':' .. namespace .. '\\0' .. #key .. ':' .. key .. stored
      redis.call('ZADD', journal, number, entry)
    end
    local before = redis.call('HGET', rows, key)
    if before and older(stored, before) then
      late = late + 1
    else
      redis.call('HSET', rows, key, stored)
      accepted = accepted + 1
    end
  end
end
redis.call('SADD', namespaces, namespace)
return {accepted, duplicates, late}
"""
# The same for one row that was made from the stored one: only where that is still the one it was made from.
_CHANGE: Final = (
    """
local expected = table.remove(ARGV)
if (redis.call('HGET', KEYS[1], ARGV[3]) or '') ~= expected then return {-1, 0, 0} end
"""
    + _WRITE
)


class ValkeyOnlineStore:
    """An OnlineStore behind a URL. Threads, processes and machines may share it."""

    def __init__(self, client: valkey.Valkey, *, name: str, where: str) -> None:
        self._client = client
        self._where = where
        self._tag = b"{%b}:" % name.encode()
        self._script = client.register_script(_WRITE)
        self._changing = client.register_script(_CHANGE)
        self._closed = False
        self._checked = False

    @classmethod
    def open(cls, url: str, *, name: str = "lodestore", timeout: float = _TIMEOUT) -> ValkeyOnlineStore:
        """A store on the server of that URL; stores of different names do not see each other.

        The URL begins with one of `SCHEMES`. The server is asked at the first use, so that what needs no online row
        works without it; one that then does not answer within `timeout` seconds is an UnavailableError.
        """
        scheme, colon, rest = url.partition("://")
        if not colon or f"{scheme}://" not in SCHEMES:
            message = f"[online] url {_without_password(url)!r}: write redis://HOST:PORT/DB or rediss://HOST:PORT/DB"
            raise SettingsError(message)
        address = f"{scheme.replace('redis', 'valkey')}://{rest}"
        client = valkey.Valkey.from_url(address, socket_timeout=timeout, socket_connect_timeout=timeout)
        return cls(client, name=name, where=_without_password(url))

    def _check_schema(self) -> None:
        self._client.setnx(self._tag + b"schema", _SCHEMA)
        schema = self._client.get(self._tag + b"schema")
        if schema != _SCHEMA:
            message = f"online store {self._where} has schema {schema.decode()}, this version reads "
            message += f"{_SCHEMA.decode()}; clear it and materialize again, or use another name"
            raise SchemaVersionError(message)
        self._checked = True

    @contextmanager
    def _asking(self) -> Iterator[valkey.Valkey]:
        if self._closed:
            message = f"online store {self._where} is closed; open it again"
            raise StoreError(message)
        try:
            if not self._checked:
                self._check_schema()
            yield self._client
        except (valkey.ConnectionError, valkey.TimeoutError) as error:
            message = f"online store {self._where} does not answer ({error}); start it, or set [online] url to lmdb"
            raise UnavailableError(message) from error
        except (valkey.ReadOnlyError, valkey.OutOfMemoryError) as error:
            message = f"online store {self._where} takes no writes ({error}); give it memory, or name the primary"
            raise StoreWriteError(message) from error
        except valkey.ValkeyError as error:
            message = f"online store {self._where} refused: {error}"
            raise StoreError(message) from error

    def _rows(self, namespace: str) -> bytes:
        return self._tag + b"rows:" + namespace_prefix(namespace)[:-1]

    # Rows

    def fetch(self, namespace: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The stored rows of these encoded keys, in order, duplicates included; all from one moment."""
        name = self._rows(namespace)
        with self._asking() as client:
            found: list[bytes | None] = client.hmget(name, keys) if keys else []
        return found

    def read(self, namespace: str, keys: Sequence[Key]) -> list[OnlineRow | None]:
        """The same with keys and rows as Python has them."""
        return [None if one is None else decode_row(one) for one in self.fetch(namespace, encode_keys(keys))]

    def write(self, namespace: str, rows: Iterable[tuple[Key, OnlineRow]], *, journal: bool = False) -> Written:
        """Every row is stored, late or a duplicate; row and journal entry are one step of the server."""
        return self._write(namespace, deliveries(rows), journal=journal)

    def write_columns(
        self,
        namespace: str,
        keys: Keys,
        event_micros: np.ndarray[Any, Any],
        created_micros: np.ndarray[Any, Any],
        payloads: Bytes,
        *,
        event_ids: Bytes | None = None,
        journal: bool = False,
    ) -> Written:
        """Every row is stored, late or, with event ids, a duplicate."""
        rows = deliveries_of_columns(keys, event_micros, created_micros, payloads, event_ids=event_ids)
        return self._write(namespace, rows, journal=journal)

    def change(
        self, namespace: str, key: Key, make: Callable[[OnlineRow | None], OnlineRow], *, journal: bool = True
    ) -> bool:
        """What `make` gives for the stored row is stored in its place; False for a known event id."""
        names, encoded = self._names(namespace), encode_key(key)
        while True:
            with self._asking() as client:
                before = client.hget(names[0], encoded)
                (one,) = deliveries([(key, make(None if before is None else decode_row(before)))])
                noted = b"1" if journal else b"0"
                told = [
                    namespace_prefix(namespace)[:-1],
                    noted,
                    one.key,
                    one.stored,
                    one.event_id or b"",
                    before or b"",
                ]
                accepted, duplicates, _ = self._changing(keys=names, args=told, client=client)
            # Somebody else was quicker; whoever is, gets on, so that this ends.
            if accepted >= 0:
                return not duplicates

    def _names(self, namespace: str) -> list[bytes]:
        """The keys of the scripts."""
        encoded = namespace_prefix(namespace)[:-1]
        parts = (b"events:" + encoded, b"journal", b"sequence", b"namespaces", b"event_namespaces")
        return [self._rows(namespace), *(self._tag + part for part in parts)]

    def _write(self, namespace: str, rows: Iterable[Delivery], *, journal: bool = False) -> Written:
        encoded, names = namespace_prefix(namespace)[:-1], self._names(namespace)
        written = Written()
        for batch in batches(rows):
            arguments = [encoded, b"1" if journal else b"0"]
            for one in batch:
                arguments += (one.key, one.stored, one.event_id or b"")
            with self._asking() as client:
                written += Written(*self._script(keys=names, args=arguments, client=client))
        return written

    def delete(self, namespace: str, keys: Sequence[Key]) -> int:
        """These keys have no row; how many had one."""
        name, encoded = self._rows(namespace), [encode_key(key) for key in keys]
        deleted = 0
        for start in range(0, len(encoded), BATCH_ROWS):
            with self._asking() as client:
                deleted += client.hdel(name, *encoded[start : start + BATCH_ROWS])
        return deleted

    def drop(self, namespace: str) -> int:
        """The namespace has no rows; how many it had. The server frees them in the background."""
        name = self._rows(namespace)
        with self._asking() as client, client.pipeline(transaction=True) as steps:
            steps.hlen(name).unlink(name).srem(self._tag + b"namespaces", namespace_prefix(namespace)[:-1])
            return int(steps.execute()[0])

    def namespaces(self) -> list[str]:
        """Every namespace that has a row, sorted."""
        with self._asking() as client:
            known = [one.decode("utf-8", "surrogatepass") for one in client.smembers(self._tag + b"namespaces")]
            return sorted(one for one in known if client.exists(self._rows(one)))

    def count(self, namespace: str) -> int:
        """How many keys have a row."""
        name = self._rows(namespace)
        with self._asking() as client:
            return int(client.hlen(name))

    def scan(self, namespace: str) -> Iterator[tuple[Key, OnlineRow]]:
        """Every row that stays during the scan, once."""
        name, cursor = self._rows(namespace), 0
        told: set[bytes] = set()  # a hash that grows or shrinks meanwhile can tell a key twice
        while True:
            with self._asking() as client:
                cursor, page = client.hscan(name, cursor, count=BATCH_ROWS)
            for key, stored in page.items():
                if key not in told:
                    told.add(key)
                    yield decode_key(key), decode_row(stored)
            if not cursor:
                return

    # The journal and event ids

    def journal_read(self, limit: int) -> list[JournalEntry]:
        """The oldest entries, by sequence."""
        with self._asking() as client:
            entries = client.zrange(self._tag + b"journal", 0, limit - 1) if limit > 0 else []
        return [_journal_entry(one) for one in entries]

    def journal_ack(self, up_to_sequence: int) -> None:
        """Entries up to and with that sequence are gone."""
        with self._asking() as client:
            client.zremrangebyscore(self._tag + b"journal", "-inf", up_to_sequence)

    def journal_size(self) -> int:
        """How many entries wait."""
        with self._asking() as client:
            return int(client.zcard(self._tag + b"journal"))

    def forget_events(self, before_micros: int) -> int:
        """Event ids of events before that time are forgotten; how many there were."""
        with self._asking() as client:
            namespaces = client.smembers(self._tag + b"event_namespaces")
            names = [self._tag + b"events:" + namespace for namespace in namespaces]
            return sum(int(client.zremrangebyscore(name, "-inf", f"({before_micros}")) for name in names)

    # Marks and life

    def get_meta(self, key: str) -> bytes | None:
        """The mark of that name, None when nobody set it."""
        name = mark_key(key)
        with self._asking() as client:
            found: bytes | None = client.hget(self._tag + b"meta", name)
        return found

    def set_meta(self, key: str, value: bytes) -> None:
        """The mark has that value."""
        name = mark_key(key)
        with self._asking() as client:
            client.hset(self._tag + b"meta", name, value)

    def ping(self) -> None:
        """The server answers; otherwise UnavailableError."""
        with self._asking() as client:
            client.ping()

    def close(self) -> None:
        """The connections of this handle are closed."""
        self._closed = True
        self._client.close()


def _without_password(url: str) -> str:
    """The URL as a message may show it."""
    scheme, colon, rest = url.partition("://")
    return scheme + colon + rest.rpartition("@")[2]


def _journal_entry(entry: bytes) -> JournalEntry:
    sequence, _, rest = entry.partition(b":")
    namespace, _, rest = rest.partition(b"\0")
    length, _, rest = rest.partition(b":")
    key, stored = rest[: int(length)], rest[int(length) :]
    return JournalEntry(int(sequence), namespace.decode("utf-8", "surrogatepass"), decode_key(key), decode_row(stored))
