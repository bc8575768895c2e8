"""MLflow runs: one parent per pipeline, one child per stage.

tests/test_architecture.py lists the modules that import mlflow.
"""

import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from slams_ray import storage
from slams_ray.errors import ArtifactError
from slams_ray.redaction import redacted
from slams_ray.runtime.retry_queue import RetryQueue
from slams_ray.runtime.tracking_address import accepted_name, tracking_uri
from slams_ray.runtime.tracking_database import create_database, new_client
from slams_ray.runtime.tracking_experiment import answered, find_experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient

Answer = TypeVar("Answer")

METRICS_PER_REQUEST = 500
FLUSH_SECONDS = 15.0
"""Longest time that a metric stays in the buffer, if the caller uses `flush_if_due`."""


@cache
def context_tags() -> dict[str, str]:
    """Returns the tags that fill MLflow's columns User, Source and Version."""
    from mlflow.tracking.context.registry import resolve_tags

    try:
        return {key: redacted(str(value)) for key, value in resolve_tags().items()}
    except Exception:
        # Only the columns stay empty, where there is no user or no git, for example.
        return {}


def _contents(path: str) -> bytes:
    try:
        return storage.read_bytes(path)
    except OSError as error:
        # An error of the workspace must not be mistaken for one of MLflow.
        raise ArtifactError(f"{path} cannot be read ({error}): check the storage") from None


class Run:
    """One MLflow run, written by one process at a time. No call fails when the server is down.

    Args:
        run_id: id of the run; None tracks nothing.
        retry_queue: queue of this process for the server; None creates one.
    """

    def __init__(self, uri: str, run_id: str | None, retry_queue: RetryQueue | None = None) -> None:
        self.uri = uri
        self.run_id = run_id
        self._retry_queue = retry_queue or RetryQueue(uri)
        self._lazy_client: MlflowClient | None = None
        self._buffer: list[tuple[str, float, int, int]] = []
        self._flush_at: float | None = None

    @property
    def client(self) -> "MlflowClient":
        if self._lazy_client is None:
            self._lazy_client = new_client(self.uri)
        return self._lazy_client

    @property
    def is_tracked(self) -> bool:
        """Whether MLflow has received everything so far."""
        return self.run_id is not None and self._retry_queue.is_empty and not self._retry_queue.lost

    def _send(self, what: str, call: Callable[[str], object]) -> None:
        if self.run_id is not None:
            self._retry_queue.send(what, partial(call, self.run_id))

    def _log_batch(self, run_id: str, **entities: Any) -> None:
        self.client.log_batch(run_id, **entities)

    def ask(self, what: str, call: "Callable[[MlflowClient, str], Answer]") -> Answer | None:
        """Calls with client and run id; None if nothing is tracked or the call fails."""
        if self.run_id is None:
            return None
        return self._retry_queue.ask(what, partial(self._call, call, self.run_id))

    def _call(self, call: "Callable[[MlflowClient, str], Answer]", run_id: str) -> Answer:
        return call(self.client, run_id)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Logs a flat mapping; long values are truncated to the length that MLflow stores."""
        from mlflow.entities import Param
        from mlflow.utils.validation import MAX_PARAM_VAL_LENGTH

        texts = ((accepted_name(k), redacted(str(v))) for k, v in params.items())
        entities = [Param(name, text[:MAX_PARAM_VAL_LENGTH]) for name, text in texts]
        for start in range(0, len(entities), 100):
            batch = entities[start : start + 100]
            self._send("params", partial(self._log_batch, params=batch))

    def log_metrics(
        self, metrics: Mapping[str, float], step: int = 0, seconds: float | None = None
    ) -> None:
        """Buffers metrics of a time in seconds since the epoch, or of now, for `flush`.

        Names can contain class names: MLflow gets each as `accepted_name`.
        """
        self._flush_at = self._flush_at or time.monotonic() + FLUSH_SECONDS
        stamp = int(1000 * (time.time() if seconds is None else seconds))
        numbers = ((accepted_name(k), float(v)) for k, v in metrics.items() if v == v)
        self._buffer.extend((name, value, stamp, step) for name, value in numbers)
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Sends buffered metrics if there are many, or after `FLUSH_SECONDS`."""
        is_late = self._flush_at is not None and time.monotonic() >= self._flush_at
        if is_late or len(self._buffer) >= METRICS_PER_REQUEST:
            self.flush()

    def flush(self) -> None:
        """Sends buffered metrics."""
        from mlflow.entities import Metric

        for start in range(0, len(self._buffer), METRICS_PER_REQUEST):
            part = self._buffer[start : start + METRICS_PER_REQUEST]
            batch = [Metric(*entry) for entry in part]
            self._send("metrics", partial(self._log_batch, metrics=batch))
        self._buffer.clear()
        self._flush_at = None

    def set_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entities = [RunTag(accepted_name(key), redacted(value)) for key, value in tags.items()]
        self._send("tags", partial(self._log_batch, tags=entities))

    def log_table(self, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        columns = {key: [row[key] for row in rows] for key in rows[0]}
        self._send("a table", lambda run_id: self.client.log_table(run_id, columns, name))

    def log_dict(self, content: Mapping[str, Any], name: str) -> None:
        self._send("a record", lambda run_id: self.client.log_dict(run_id, dict(content), name))

    def log_text(self, text: str, name: str) -> None:
        self._send("a text", lambda run_id: self.client.log_text(run_id, text, name))

    def log_file(self, path: str, folder: str | None = None) -> None:
        """Uploads a file of the workspace to a folder of the run's artifacts."""

        def upload(run_id: str) -> None:
            with tempfile.TemporaryDirectory() as directory:
                local = Path(directory) / path.rsplit("/", 1)[-1]
                local.write_bytes(_contents(path))
                self.client.log_artifact(run_id, str(local), folder)

        self._send("a file", upload)

    def log_dataset(self, name: str, digest: str, source: str, counts: Mapping[str, int]) -> None:
        """Records the data set as the run's input, with the number of images of each split."""
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.entities import DatasetInput, InputTag

        dataset = MetaDataset(CodeDatasetSource({"root": source}), name=name, digest=digest[:32])
        tags = {"mlflow.data.context": "training"} | {k: str(v) for k, v in counts.items()}
        entity = DatasetInput(
            dataset._to_mlflow_entity(), [InputTag(k, v) for k, v in tags.items()]
        )
        self._send("the data set", lambda run_id: self.client.log_inputs(run_id, [entity]))

    def child(self, name: str) -> "Run":
        """Creates a run nested under this one; it is untracked if this one is."""
        parent_id = self.run_id

        def create() -> str:
            experiment = self.client.get_run(parent_id).info.experiment_id
            tags = context_tags() | {"mlflow.parentRunId": parent_id}
            run_id: str = self.client.create_run(experiment, tags=tags, run_name=name).info.run_id
            return run_id

        run_id = None if parent_id is None else self._retry_queue.ask("a nested run", create)
        return Run(self.uri, run_id, self._retry_queue)

    def link_comparison(self, children: Sequence["Run"], title: str) -> None:
        """Sets the run's description to a link to MLflow's comparison of its children.

        The page shows parallel coordinates of the parameters that differ.
        """
        from mlflow.entities import RunTag

        run_ids = [child.run_id for child in children if child.run_id is not None]

        def link(run_id: str) -> None:
            experiment = self.client.get_run(run_id).info.experiment_id
            query = f"runs={json.dumps(run_ids)}&experiments={json.dumps([experiment])}"
            # A bracket or quote would end the Markdown link.
            url = "#/compare-runs?" + quote(query, safe="=&")
            tags = [RunTag("mlflow.note.content", f"[{title}]({url})"), RunTag("compare", url)]
            self._log_batch(run_id, tags=tags)

        self._send("a link", link)

    def finish(self, status: str) -> bool:
        """Ends the run as FINISHED, FAILED or KILLED; returns whether MLflow has received it."""
        self.flush()
        self._send("the status", lambda run_id: self.client.set_terminated(run_id, status))
        return self.settle()

    def settle(self) -> bool:
        """Waits a limited time until MLflow has received everything; returns whether it has."""
        return self._retry_queue.settle()


class Tracker:
    """Opens parent and stage runs in one experiment.

    Args:
        patient: waits for a server that is down, and tracks nothing if it does not return; for work
            that another tracked process has started.

    Raises:
        ConfigError: no MLflow server answers at MLFLOW_TRACKING_URI when the pipeline starts.
    """

    def __init__(self, workspace: str, experiment: str, patient: bool = False) -> None:
        self.uri = tracking_uri(workspace)
        if self.uri.startswith("sqlite:") and "MLFLOW_TRACKING_URI" not in os.environ:
            create_database(workspace)
        self._client = answered(self.uri, partial(new_client, self.uri))
        self._retry_queue = RetryQueue(self.uri)
        find = partial(find_experiment, self._client, self.uri, workspace, experiment)
        self.experiment_id: str | None
        if patient:
            self.experiment_id = self._retry_queue.ask("the experiment", find)
        else:
            self.experiment_id = answered(self.uri, find)

    def start(self, name: str, tags: Mapping[str, str], parent: Run | None = None) -> Run:
        """Creates a run, as a child of `parent` if that is given and tracked."""
        all_tags = context_tags() | dict(tags) | {"mlflow.runName": name}
        if parent is not None and parent.run_id is not None:
            all_tags["mlflow.parentRunId"] = parent.run_id

        def create() -> str:
            run = self._client.create_run(self.experiment_id, tags=all_tags, run_name=name)
            run_id: str = run.info.run_id
            return run_id

        made = None
        if self.experiment_id is not None:
            made = self._retry_queue.ask(f"the run {name}", create)
        return Run(self.uri, made, self._retry_queue)

    def reopen(self, run_id: str) -> Run | None:
        """Sets a run of an earlier attempt to RUNNING; None if the server does not have it."""
        from mlflow.exceptions import MlflowException

        try:
            if self._client.get_run(run_id).info.lifecycle_stage != "active":
                return None
            self._client.update_run(run_id, status="RUNNING")
        except MlflowException:
            return None
        return Run(self.uri, run_id, self._retry_queue)

    def close_abandoned(self, parent: Run) -> None:
        """Ends child runs that a killed process left RUNNING."""
        query = f"tags.`mlflow.parentRunId` = '{parent.run_id}' and attributes.status = 'RUNNING'"

        def close() -> None:
            for child in self._client.search_runs([self.experiment_id], query):
                self._client.set_terminated(child.info.run_id, "KILLED")

        self._retry_queue.send("the end of earlier runs", close)
