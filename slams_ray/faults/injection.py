"""Injects each fault into each stage of a small pipeline, and reports a row for each case."""

import json
import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from slams_ray.errors import ConfigError, TrainingError
from slams_ray.faults.commands import STAGES, arguments, cases, reference_stages, source
from slams_ray.faults.driver import Driver
from slams_ray.faults.faults import FAULTS, Scene
from slams_ray.faults.nodes import Nodes
from slams_ray.faults.outputs import content, look
from slams_ray.faults.tracking_server import TrackingServer

logger = logging.getLogger(__name__)

ROWS_NAME = "faults.json"
LIMIT_SECONDS = 1200.0
"""Longest time of one stage."""
REFERENCE_LIMIT_SECONDS = 5 * LIMIT_SECONDS


@dataclass(frozen=True, kw_only=True)
class FaultRow:
    """Result of one fault in one stage.

    Attributes:
        survived: the job finished, or the same command finished it if the fault has to end the run.
            A bad image was named, and MLflow shows every run as finished.
        seconds_lost: time beyond that of the undisturbed job.
        redone: number of shards or optimisation steps that were computed twice.
        identical: shards, networks and metrics of the stage equal those of the undisturbed
            pipeline, bit by bit.
        num_commands: number of times the command ran.
    """

    stage: str
    fault: str
    survived: bool
    seconds_lost: float
    redone: int
    identical: bool
    num_commands: int


class FaultInjection:
    """Runs an undisturbed pipeline on two nodes, and injects faults into copies of it."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.nodes = Nodes(cpus_per_node=1)
        self.server: TrackingServer | None = None
        self.reference = workspace / "reference"
        self._undisturbed: dict[str, float] = {}

    def run(self, stages: Sequence[str], faults: Sequence[str]) -> list[FaultRow]:
        """Runs all cases in turn, and adds each result to `<workspace>/faults.json`.

        Raises:
            ConfigError: no fault can be injected into a stage.
            TrainingError: the undisturbed pipeline failed.
        """
        chosen = cases(stages, faults)
        if not chosen:
            raise ConfigError(
                f"none of the faults {faults} can be injected into the stages {stages}"
            )
        rows: list[FaultRow] = []
        try:
            self.nodes.start()
            for stage in reference_stages([stage for stage, _ in chosen]):
                self._run_reference(stage)
            for stage, fault in chosen:
                rows.append(self._case(stage, fault))
                logger.info("%-18s %s", stage, _outcome(rows[-1]))
                write_rows(self.workspace / ROWS_NAME, rows)
        finally:
            if self.server is not None:
                self.server.kill()
            self.nodes.stop()
        return rows

    def _run_reference(self, last: str) -> None:
        logger.info("running undisturbed stages for comparison, up to %s", last)
        driver = self._driver(last, self.reference, {})
        if driver.end(REFERENCE_LIMIT_SECONDS):
            raise TrainingError(f"the undisturbed stages failed, see {driver.log}")

    def _case(self, stage: str, name: str) -> FaultRow:
        fault = FAULTS[name]
        usual = self._usual_seconds(stage)
        scene = self._scene(stage, f"{stage}-{name}", keep_stage=name == "output_truncated")
        environment = dict(fault.set_up(scene)) if fault.set_up else {}
        self.server, tracking = scene.server, {}
        if fault.tracked:
            scene.server.start()
            tracking = {"MLFLOW_TRACKING_URI": scene.server.uri}
        started = time.monotonic()
        before = look(scene.stage_dir)
        driver = self._driver(stage, scene.workspace, environment | tracking)
        if fault.inject is not None:
            driver.wait_until(lambda: look(scene.stage_dir).is_working, LIMIT_SECONDS)
            before = look(scene.stage_dir)
            fault.inject(scene, driver)
        status = driver.end(LIMIT_SECONDS)
        named = fault.message(scene) in driver.log.read_text(errors="replace")
        num_commands = 1
        if status:
            if fault.restore is not None:
                fault.restore(scene)
            num_commands += 1
            status = self._driver(stage, scene.workspace, tracking).end(LIMIT_SECONDS)
        seconds = time.monotonic() - started
        tracked = not fault.tracked or set(scene.server.statuses()) == {"FINISHED"}
        scene.server.kill()
        return FaultRow(
            stage=stage,
            fault=name,
            survived=status == 0 and named and tracked and (fault.ends_run or num_commands == 1),
            seconds_lost=round(seconds - usual, 1),
            redone=before.redone(look(scene.stage_dir)),
            identical=content(scene.stage_dir) == content(self.reference / stage),
            num_commands=num_commands,
        )

    def _usual_seconds(self, stage: str) -> float:
        """Returns the seconds of the undisturbed job, with the start of the driver."""
        if stage not in self._undisturbed:
            scene = self._scene(stage, f"{stage}-undisturbed", keep_stage=False)
            started = time.monotonic()
            self._driver(stage, scene.workspace, {}).end(LIMIT_SECONDS)
            self._undisturbed[stage] = time.monotonic() - started
        return self._undisturbed[stage]

    def _scene(self, stage: str, name: str, *, keep_stage: bool) -> Scene:
        """Copies the undisturbed workspace without the later stages.

        Args:
            keep_stage: whether to keep the output of the stage itself.
        """
        workspace = self.workspace / name
        shutil.rmtree(workspace, ignore_errors=True)
        later = STAGES[STAGES.index(stage) + keep_stage :]
        tracking = ("mlflow.db", "mlartifacts", "mlflow_runs", "summary.json", "driver.log")
        shutil.copytree(
            self.reference, workspace, ignore=lambda _, names: {*later, *tracking} & set(names)
        )
        return Scene(
            nodes=self.nodes,
            workspace=workspace,
            stage_dir=workspace / stage,
            server=TrackingServer(workspace / "tracking"),
            source=source(workspace),
        )

    def _driver(self, stage: str, workspace: Path, environment: dict[str, str]) -> Driver:
        workspace.mkdir(parents=True, exist_ok=True)
        variables = self.nodes.environment | environment
        return Driver(arguments(stage, workspace), variables, workspace / "driver.log")


def _outcome(row: FaultRow) -> str:
    survived = "survived" if row.survived else "NOT SURVIVED"
    identical = "identical" if row.identical else "NOT IDENTICAL"
    return f"{row.fault}: {survived}, {row.seconds_lost:+.0f} s, {row.redone} redone, {identical}"


def write_rows(path: Path, rows: Sequence[FaultRow]) -> None:
    """Writes rows into a JSON file, which keeps those of other stages and faults."""
    own = {(row.stage, row.fault) for row in rows}
    earlier = json.loads(path.read_text()) if path.exists() else []
    kept = [row for row in earlier if (row["stage"], row["fault"]) not in own]
    path.write_text(json.dumps(kept + [asdict(row) for row in rows], indent=1) + "\n")
