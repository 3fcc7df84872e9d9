"""The Python that has Feast: found, and asked. Feast and the repository run in it, never in this process."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lodestore.errors import SourceError, UnavailableError
from lodestore.feast.description import Description, clean_texts, described

__all__ = ["Interpreter", "find", "repository_of"]

_SCRIPT = Path(__file__).parent.parent / "scaffold" / "feast_side.py"
_SECONDS = 900.0
_LINES = 3
_WAY_OUT = "name the Python of the environment that has it, such as --python /path/to/feast-env/bin/python"


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that has Feast; `seconds` is how long it may take to answer."""

    path: Path
    seconds: float = _SECONDS

    def describe(self, repository: Path) -> Description:
        """What the repository holds; `SourceError` where it does not load, `UnavailableError` where Feast is not there."""
        return described(self._told({"act": "describe", "repository": str(repository)}))

    def values(self, repository: Path, asks: Sequence[Mapping[str, Any]], *, online: bool = False) -> list[Any]:
        """Feast's answers to the asks: historical features of entity rows, or what its online store says now."""
        act = "online" if online else "values"
        answers: list[Any] = self._told({"act": act, "repository": str(repository), "asks": list(asks)})["answers"]
        return answers

    def _told(self, order: Mapping[str, Any]) -> dict[str, Any]:
        done = self._run(json.dumps(order))
        try:
            told = clean_texts(json.loads(done.stdout))
            error = told.get("error")
        except (ValueError, AttributeError):
            last = " / ".join(done.stderr.decode(errors="replace").strip().splitlines()[-_LINES:])
            message = f"{self.path} ended with {done.returncode} before it could describe the repository: {last or 'it said nothing'}"
            raise SourceError(message) from None
        if error:
            self._refuse(error["kind"], error["message"], str(order["repository"]))
        return dict(told)

    def _run(self, order: str) -> subprocess.CompletedProcess[bytes]:
        words = [str(self.path), str(_SCRIPT)]
        try:
            return subprocess.run(  # noqa: S603 - the interpreter that the user names, and our own script
                words, input=order.encode(), capture_output=True, timeout=self.seconds, check=False
            )
        except subprocess.TimeoutExpired as error:
            message = f"{self.path} did not answer within {self.seconds:.0f} s; does the repository wait for a network?"
            raise UnavailableError(message) from error
        except OSError as error:
            message = f"--python {self.path} cannot be run: {error.strerror or error}; {_WAY_OUT}"
            raise SourceError(message) from error

    def _refuse(self, kind: str, what: str, repository: str) -> None:
        if kind == "absent":
            message = f"{self.path} has no Feast; {_WAY_OUT}"
            raise UnavailableError(message)
        if kind == "broken":
            message = f"the Feast of {self.path} cannot be imported: {what}; mend that environment, or {_WAY_OUT}"
            raise UnavailableError(message)
        if kind == "old":
            message = f"{self.path} has {what}: pip install --upgrade feast, or {_WAY_OUT}"
            raise UnavailableError(message)
        message = (
            f"the Feast repository {repository} does not load: {what}; `feast plan` in that folder has to work first"
        )
        raise SourceError(message)


def find(named: Path | None, environ: Mapping[str, str]) -> Interpreter:
    """The named Python, or that of the `feast` command, or that of the active environment."""
    if named is not None:
        if not named.is_file():
            message = f"--python {named}: there is no such file; {_WAY_OUT}"
            raise SourceError(message)
        return Interpreter(named.absolute())  # a link into an environment is what makes it that environment
    command = shutil.which("feast", path=environ.get("PATH"))
    places = [Path(command).resolve().parent] if command else []
    places += [Path(environ["VIRTUAL_ENV"]) / "bin"] if environ.get("VIRTUAL_ENV") else []
    for place in places:
        for name in ("python", "python3"):
            if (place / name).is_file():
                return Interpreter(place / name)
    message = f"no Python with Feast was found: there is no command `feast` here and no active environment; {_WAY_OUT}"
    raise UnavailableError(message)


def repository_of(folder: Path) -> Path:
    """The folder that has feature_store.yaml; otherwise the error names where one is."""
    place = folder.parent if folder.name == "feature_store.yaml" else folder
    if not place.is_dir():
        message = f"{folder} is no folder; name the Feast repository, the folder that has feature_store.yaml"
        raise SourceError(message)
    if not (place / "feature_store.yaml").is_file():
        below = sorted(one.parent for one in place.glob("*/feature_store.yaml"))
        hint = f"; did you mean {below[0]}?" if below else "; name the folder that has it"
        message = f"{place} has no feature_store.yaml{hint}"
        raise SourceError(message)
    return place.resolve()
