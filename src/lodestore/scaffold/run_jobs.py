# ruff: noqa: INP001 - a script that `lodestore run` starts by its path; the library itself never imports dagster
"""Runs Dagster jobs in this process, one after the other, and tells how it goes, a line a step.

Takes one argument, a JSON object: file, working_directory, runs, tags, verbose and result, the file
that the outcome is written to. Exits 1 when a job failed, 2 when a name is unknown.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, TextIO, TypedDict
from uuid import uuid4

import dagster as dg


class Run(TypedDict):
    """One job, or with `note` the reason why it need not run. `add` makes its partition known first."""

    job: str
    config: dict[str, Any]
    partition: str | None
    add: bool
    note: str | None


class Order(TypedDict):
    """What to run, and how."""

    file: str
    working_directory: str
    runs: list[Run]
    tags: dict[str, str]
    verbose: bool
    result: str


@cache
def errors() -> TextIO:
    """The error stream as it was at the start: while a step runs, Dagster leads the stream itself into its log."""
    return os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", errors="replace")


def say(text: str, *, end: str = "\n") -> None:
    """The line is on the error stream, at once."""
    errors().write(f"{text}{end}")
    errors().flush()


def definitions(order: Order) -> dg.Definitions:
    """The one `Definitions` that the file holds."""
    sys.path.insert(0, order["working_directory"])
    path = Path(order["file"])
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        message = f"{path} is no Python file"
        raise ImportError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    found = [value for value in vars(module).values() if isinstance(value, dg.Definitions)]
    if len(found) != 1:
        message = f"{path} holds {len(found)} Definitions; one is expected"
        raise ImportError(message)
    return found[0]


class Steps:
    """Listens to one run: tells its steps and keeps them."""

    def __init__(self, *, verbose: bool) -> None:
        self.steps: list[dict[str, Any]] = []
        self.error: str | None = None
        self.refused: str | None = None
        self._outcomes: dict[str, str] = {}
        self._verbose = verbose
        self._taken: set[tuple[str, str | None, str | None]] = set()
        self._lock = Lock()

    def __call__(self, entry: Any) -> None:  # noqa: ANN401 - an event log entry
        """Take note of what the event log tells while the run goes on."""
        if entry.dagster_event is not None:
            self.take(entry.dagster_event)

    def take(self, event: dg.DagsterEvent) -> None:
        """Take note of an event, once: the log tells late, and the end of the run brings all of them again."""
        check = getattr(event.event_specific_data, "check_name", None)
        with self._lock:
            if (event.event_type_value, event.step_key, check) not in self._taken:
                self._taken.add((event.event_type_value, event.step_key, check))
                self._note(event)

    def _note(self, event: Any) -> None:  # noqa: ANN401 - its data are of every kind
        if event.event_type == dg.DagsterEventType.STEP_START:
            if errors().isatty():  # on a terminal the line is there at once, and its end replaces it
                say(f"  {event.step_key} ...", end="\r")
        elif event.event_type == dg.DagsterEventType.STEP_SUCCESS:
            self._ended(event.step_key, "ok", event.event_specific_data.duration_ms / 1000)
            if event.step_key in self._outcomes:
                say(f"    {self._outcomes[event.step_key]}")
        elif event.event_type == dg.DagsterEventType.STEP_OUTPUT:
            self._came_of_it(event.step_key, event.step_output_data.metadata or {})
        elif event.event_type == dg.DagsterEventType.STEP_FAILURE:
            self._failed(event.step_key, event.step_failure_data.error)
        elif event.event_type == dg.DagsterEventType.STEP_SKIPPED:
            self.steps.append({"step": event.step_key, "state": "skipped", "seconds": 0.0})
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            self._checked(event.event_specific_data)
        elif event.event_type == dg.DagsterEventType.RUN_FAILURE and self.error is None:
            self.error = event.message

    def _ended(self, step: str, state: str, seconds: float = 0.0) -> None:
        self.steps.append({"step": step, "state": state, "seconds": round(seconds, 3)})
        say(f"  {step} {state}, {seconds:.1f} s")

    def _came_of_it(self, step: str, metadata: Mapping[str, Any]) -> None:
        """A step that decides says what came of it, and whether that is a refusal."""
        if "outcome" in metadata:
            self._outcomes[step] = metadata["outcome"].value
            if "refused" in metadata and metadata["refused"].value:
                self.refused = metadata["outcome"].value

    def _failed(self, step: str, error: Any) -> None:  # noqa: ANN401 - what dagster made of an exception
        self.error = self.error or reason(error)
        self._ended(step, "failed")
        say(f"    {reason(error)}")
        if self._verbose and error is not None:
            say(error.to_string())

    def _checked(self, check: Any) -> None:  # noqa: ANN401 - an asset check evaluation
        if not check.passed:
            said = f": {check.description}" if check.description else ""
            say(f"    check {check.check_name} failed ({check.severity.value}){said}")


def reason(error: Any) -> str:  # noqa: ANN401 - what dagster made of an exception
    """The innermost error, without the path of its module."""
    if error is None:
        return "failed without a reason"
    while error.cause is not None:
        error = error.cause
    kind, colon, text = error.message.strip().partition(": ")
    return f"{kind.rpartition('.')[2]}{colon}{text}"


def execute(job: dg.JobDefinition, wanted: Run, order: Order, instance: dg.DagsterInstance) -> dict[str, Any]:
    """Run one job to its end and return what became of it."""
    if wanted["note"] is not None:
        say(f"{job.name}: {wanted['note']}")
        return {"job": job.name, "success": True, "seconds": 0.0, "steps": [], "note": wanted["note"]}
    if wanted["add"] and isinstance(job.partitions_def, dg.DynamicPartitionsDefinition):
        instance.add_dynamic_partitions(str(job.partitions_def.name), [str(wanted["partition"])])
    run_id = str(uuid4())
    steps = Steps(verbose=order["verbose"])
    instance.add_event_listener(run_id, steps)
    say(f"{job.name}: run {run_id[:8]}{' of ' + wanted['partition'] if wanted['partition'] else ''}")
    started = time.monotonic()
    try:
        result = job.execute_in_process(
            run_config=_quiet(job, wanted["config"], verbose=order["verbose"]),
            instance=instance,
            partition_key=wanted["partition"],
            raise_on_error=False,
            run_id=run_id,
            tags=order["tags"] or None,
        )
        success = result.success
        for event in result.all_events:
            steps.take(event)
    except Exception as error:  # noqa: BLE001 - wrong run config and the like; any of them ends this job alone
        success, steps.error = False, f"{type(error).__name__}: {error}"
        say(f"  {steps.error}")
        if order["verbose"]:
            traceback.print_exc()
    seconds = round(time.monotonic() - started, 3)
    state = "failed" if not success else "refused" if steps.refused else "ok"
    say(f"{job.name}: {state}, {seconds:.1f} s")
    out = {"job": job.name, "run_id": run_id, "success": success, "seconds": seconds, "steps": steps.steps}
    if success and steps.refused:
        return out | {"refused": steps.refused}
    return out if success else out | {"error": steps.error or "failed"}


def _quiet(job: dg.JobDefinition, config: Mapping[str, Any], *, verbose: bool) -> dict[str, Any]:
    """The run config, with the console logger turned down where nobody asked for it."""
    if "loggers" in config or "console" not in job.loggers:
        return dict(config)
    level = "INFO" if verbose else "CRITICAL"
    return {**config, "loggers": {"console": {"config": {"log_level": level}}}}


def run(order: Order) -> tuple[dict[str, Any], int]:
    """Run the jobs until one fails; returns the outcome and the exit code."""
    try:
        found = definitions(order)
        jobs = {job.name: job for job in found.resolve_all_job_defs() if not job.name.startswith("__")}
    except Exception as error:  # noqa: BLE001 - the project's own code, which may raise anything
        if order["verbose"]:
            traceback.print_exc()
        return {"broken": f"{type(error).__name__}: {error}"}, 2
    for wanted in order["runs"]:
        if wanted["job"] not in jobs:
            return {"unknown": wanted["job"], "known": sorted(jobs)}, 2
    done: list[dict[str, Any]] = []
    with dg.DagsterInstance.get() as instance:
        for wanted in order["runs"]:
            done.append(execute(found.resolve_job_def(wanted["job"]), wanted, order, instance))
            if not done[-1]["success"]:
                break
    return {"jobs": done}, 0 if done[-1]["success"] and not any("refused" in one for one in done) else 1


def main() -> int:
    """Do what the argument orders, and leave the outcome in its result file."""
    order: Order = json.loads(sys.argv[1])
    outcome, code = run(order)
    Path(order["result"]).write_text(json.dumps(outcome), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
