"""run: Dagster jobs, headless, in one subprocess; this process never imports dagster."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from lodestore.cli.page import Block, Table
from lodestore.cli.session import Session, author, command, pairs

__all__ = ["Workspace", "environment_of", "run", "workspace"]

_REEMBED = "reembed"
_PATIENCE = 30.0  # seconds that an interrupted run has to end properly


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where the Dagster code lies."""

    path: Path  # of the workspace.yaml
    file: Path
    working_directory: Path


def workspace(*places: Path) -> Workspace:
    """What the workspace.yaml of the first place that has one says."""
    import yaml

    from lodestore.errors import SettingsError

    found = [place / "workspace.yaml" for place in places if (place / "workspace.yaml").is_file()]
    if not found:
        message = f"there is no workspace.yaml in {' or '.join(dict.fromkeys(map(str, places)))}; lodestore init DIR writes one"
        raise SettingsError(message)
    try:
        tree = yaml.safe_load(found[0].read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        message = f"{found[0]} is not valid YAML: {' '.join(str(error).split())}"
        raise SettingsError(message) from error
    return _python_file(tree, found[0])


def _python_file(tree: Any, path: Path) -> Workspace:  # noqa: ANN401 - a YAML tree
    from lodestore.errors import SettingsError

    entries = tree.get("load_from") if isinstance(tree, dict) else None
    for entry in entries if isinstance(entries, list) else [entries]:
        given = entry.get("python_file") if isinstance(entry, dict) else None
        given = {"relative_path": given} if isinstance(given, str) else given
        if isinstance(given, dict) and "relative_path" in given:
            file = (path.parent / given["relative_path"]).resolve()
            if not file.is_file():
                message = f"{path} names {given['relative_path']}, which does not exist"
                raise SettingsError(message)
            return Workspace(path, file, (path.parent / given.get("working_directory", ".")).resolve())
    message = f"{path} names no python_file; write load_from: [{{python_file: {{relative_path: orchestration/definitions.py}}}}]"
    raise SettingsError(message)


def dagster_home(home: Path) -> Path:
    """Dagster's folder below `home`, with a dagster.yaml; one that is there stays as it is."""
    from lodestore.errors import StoreWriteError

    folder = home / ".dagster"
    file = folder / "dagster.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.write_text(_packaged("dagster.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        message = f"{folder} cannot be written ({error.strerror}); change its rights, or move it with LODESTORE_HOME"
        raise StoreWriteError(message) from error
    return folder


def _packaged(name: str) -> Path:
    return Path(str(files("lodestore") / "scaffold" / name))


@command()
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@click.option("--config-json", "config", default="{}", help="Run config of Dagster, for every job.")
@click.option("--tag", "tags", multiple=True, metavar="NAME=VALUE", help="A tag of the runs.")
@click.option("--partition", help="The partition to run; reembed finds its own.")
@click.option(
    "--budget", type=float, metavar="SECONDS", help="reembed stops before it starts when it would take longer."
)
@click.option("--verbose", is_flag=True, help="Also print Dagster's own log and tracebacks.")
def run(
    session: Session,
    jobs: tuple[str, ...],
    config: str,
    tags: tuple[str, ...],
    partition: str | None,
    budget: float | None,
    *,
    verbose: bool,
) -> None:
    """Run Dagster jobs, one after the other.

    Such as: lodestore run ingest features. Progress goes to the error stream.
    """
    from lodestore.errors import UnavailableError
    from lodestore.settings import load

    if importlib.util.find_spec("dagster") is None:
        message = 'dagster is not installed here; run: pip install "lodestore[dagster]"'
        raise UnavailableError(message)
    settings = load(session.config)
    place = workspace(Path.cwd(), settings.root)
    order: dict[str, Any] = {"file": str(place.file), "working_directory": str(place.working_directory)}
    order |= {"tags": dict(pairs(tags, "--tag")), "verbose": verbose}
    given = _config(config)
    order["runs"] = [one for job in jobs for one in _runs(session, job, given, partition, budget)]
    outcome = _executed(order, environment_of(session, settings.home))
    _refuse(outcome, place)
    session.show(outcome, _page(outcome))
    if not all(one["success"] and "refused" not in one for one in outcome["jobs"]):
        click.get_current_context().exit(1)


def _runs(
    session: Session, job: str, config: dict[str, Any], partition: str | None, budget: float | None
) -> Iterator[dict[str, Any]]:
    """The runs of one job: one, except for the job that has a partition for each version to build."""
    plain = {"job": job, "config": config, "partition": partition, "add": False, "note": None}
    if job != _REEMBED:
        yield plain
        return
    if budget is not None:
        plain["config"] = {**config, "ops": {"embeddings": {"ops": {"plan": {"config": {"budget": budget}}}}}}
    if partition is not None:
        yield plain
        return
    keys, notes = _versions_to_build(session)
    for key in keys:
        yield {**plain, "partition": key, "add": True}
    if not keys:
        yield {**plain, "note": f"nothing to build: {'; '.join(notes) or 'no embedding feature is declared'}"}


def _versions_to_build(session: Session) -> tuple[list[str], tuple[str, ...]]:
    """The partitions that a changed declaration asks for, as the sensor decides it, and why there are no others."""
    from lodestore.rollout import decide

    changes = session.project.changes
    decision = decide(changes.state())
    changes.accept(decision, author=author())
    return [one.version.key for one in decision.launches], decision.notes


def _config(text: str) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except ValueError as error:
        message = f"--config-json is not JSON: {error}"
        raise click.UsageError(message, click.get_current_context()) from None
    if not isinstance(config, dict):
        message = f"--config-json is {type(config).__name__}; a JSON object is expected"
        raise click.UsageError(message, click.get_current_context())
    return config


def environment_of(session: Session, home: Path) -> dict[str, str]:
    """The environment of the jobs: the same settings, and Dagster's folder beside the store; paths are absolute."""
    environment = dict(os.environ)
    for name in ("LODESTORE_CONFIG", "LODESTORE_HOME"):
        if environment.get(name):
            environment[name] = str(Path(environment[name]).expanduser().resolve())
    if session.config is not None:
        environment["LODESTORE_CONFIG"] = str(session.config.resolve())
    if not environment.get("DAGSTER_HOME"):
        environment["DAGSTER_HOME"] = str(dagster_home(home))
    return environment


def _executed(order: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """What the subprocess says became of the jobs; its progress goes to the error stream."""
    from lodestore.errors import StoreError

    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        given = json.dumps({**order, "result": str(result)})
        # -P: the folder of the script is no place to import from
        words = [sys.executable, "-P", str(_packaged("run_jobs.py")), given]
        code = _awaited(words, environment)
        if not result.is_file():
            message = f"the process of {', '.join(one['job'] for one in order['runs'])} ended with {code} before it could say why"
            raise StoreError(message)
        outcome: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return outcome


def _awaited(words: list[str], environment: Mapping[str, str]) -> int:
    """The exit code. Who interrupts waits until Dagster has closed the run: the terminal told the process, too."""
    process = subprocess.Popen(words, env=environment, stdout=sys.stderr.fileno())  # noqa: S603 - our own script
    try:
        return process.wait()
    except KeyboardInterrupt:
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.terminate()
        raise


def _refuse(outcome: Mapping[str, Any], place: Workspace) -> None:
    from lodestore.errors import DeclarationError, UnknownJobError

    if "broken" in outcome:
        message = f"{place.file} cannot be loaded: {outcome['broken']}; for the traceback add --verbose"
        raise DeclarationError(message)
    if "unknown" in outcome:
        raise UnknownJobError(outcome["unknown"], outcome["known"])


def _state(one: Mapping[str, Any]) -> str:
    if not one["success"]:
        return "failed"
    if "refused" in one:
        return "refused"
    return "nothing to do" if "note" in one else "ok"


def _page(outcome: Mapping[str, Any]) -> Iterator[Block]:
    rows = [[one["job"], _state(one), one["seconds"], len(one["steps"])] for one in outcome["jobs"]]
    yield Table(("job", "state", "seconds", "steps"), rows)
    for one in outcome["jobs"]:
        if not one["success"]:
            yield f"\n{one['job']} failed: {one['error']}"
        if "refused" in one:
            yield f"\n{one['job']}: {one['refused']}; the live version stays. Why, and what is held: lodestore status"
