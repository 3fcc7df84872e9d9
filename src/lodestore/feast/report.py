"""What became of each object of the repository, line by line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["OUTCOMES", "Outcome", "Remark", "counted"]

Outcome = Literal["carried", "different", "left"]
OUTCOMES: tuple[Outcome, ...] = ("carried", "different", "left")


@dataclass(frozen=True, slots=True)
class Remark:
    """One line: an object of Feast, whether it came over, and what to know or to do.

    "carried" came over as it was, "different" came over and behaves differently, "left" did not come over.
    """

    kind: str
    name: str
    outcome: Outcome
    what: str
    mend: str = ""

    def to_json(self) -> dict[str, str]:
        """The line in JSON types."""
        told = {"kind": self.kind, "name": self.name, "outcome": self.outcome, "what": self.what}
        return told | ({"mend": self.mend} if self.mend else {})


def counted(remarks: Iterable[Remark]) -> dict[str, int]:
    """How many lines there are of each outcome."""
    counts = Counter(one.outcome for one in remarks)
    return {outcome: counts[outcome] for outcome in OUTCOMES}
