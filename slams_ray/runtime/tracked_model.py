"""Models in MLflow: logging, registration, download."""

import importlib.metadata
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slams_ray.errors import ArtifactError
from slams_ray.redaction import redacted
from slams_ray.runtime.environment import set_defaults
from slams_ray.runtime.retry_queue import first_line
from slams_ray.runtime.tracking import Run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

logger = logging.getLogger(__name__)

BEST = "best"
"""Alias of the registered version with the highest score."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Score of a model on a data set. Only scores on the same data can be compared.

    Attributes:
        metrics: all scores by name.
        headline: name of the score that ranks models, higher is better.
        dataset: name and digest of the scored data.
    """

    metrics: Mapping[str, float]
    headline: str
    dataset: tuple[str, str]

    @property
    def value(self) -> float | None:
        """The score that ranks models; None if there is none."""
        return self.metrics.get(self.headline)


@dataclass(frozen=True, kw_only=True)
class ModelPackage:
    """A model as MLflow stores it: code, files, and what it takes and returns. No pickle.

    Attributes:
        fingerprint: changes with weights, settings or score.
        code_path: Python file that calls `mlflow.models.set_model`. The annotations of its
            `predict` are the signature.
        package_path: directory of the package that this file imports.
        files: artifact -> (file name, content); all are in one directory.
        example: an input.
        requirements: names of the installed packages that the code imports.
        params: settings to show.
    """

    name: str
    fingerprint: str
    code_path: str
    package_path: str
    files: Mapping[str, tuple[str, bytes]]
    example: bytes
    requirements: Sequence[str]
    params: Mapping[str, Any] = field(default_factory=dict)


def publish(run: Run, package: ModelPackage, score: Score, registered_name: str | None) -> None:
    """Logs a model with its scores, and registers it if a name is given.

    Trouble with MLflow is logged and does not end the run.
    """
    run.ask("the model", lambda client, run_id: _publish(client, run_id, package, score))
    if registered_name is not None:
        run.ask(
            "the registered model",
            lambda client, run_id: _register(client, run_id, package, score, registered_name),
        )


def _publish(client: "MlflowClient", run_id: str, package: ModelPackage, score: Score) -> None:
    from mlflow.entities import LoggedModelOutput, Metric

    if _find(client, run_id, package) is not None:
        return
    model = client.create_logged_model(
        client.get_run(run_id).info.experiment_id,
        name=package.name,
        source_run_id=run_id,
        params={name: str(value) for name, value in package.params.items()},
        tags={"slams.fingerprint": package.fingerprint},
        model_type="segmentation",
    )
    try:
        with tempfile.TemporaryDirectory() as directory:
            local = Path(directory) / "model"
            save(package, local, model.model_id)
            client.log_model_artifacts(model.model_id, str(local))
    except Exception:
        # The next run repeats a model that is not READY.
        client.finalize_logged_model(model.model_id, "FAILED")
        raise
    now, (dataset, digest) = int(time.time() * 1000), score.dataset
    metrics = [
        Metric(name, value, now, 0, model.model_id, dataset, digest)
        for name, value in score.metrics.items()
    ]
    client.log_batch(run_id, metrics=metrics)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    client.finalize_logged_model(model.model_id, "READY")


def _find(client: "MlflowClient", run_id: str, package: ModelPackage) -> "LoggedModel | None":
    """Returns the READY model of this run with the fingerprint of the package."""
    experiment = client.get_run(run_id).info.experiment_id
    query = f"source_run_id = '{run_id}' AND tags.`slams.fingerprint` = '{package.fingerprint}'"
    found = client.search_logged_models([experiment], filter_string=query)
    return next((model for model in found if model.status == "READY"), None)


def save(package: ModelPackage, directory: Path, model_id: str) -> None:
    """Writes a model in MLflow's format to a new directory.

    Args:
        model_id: id of the logged model that the directory becomes.
    """
    versions = [f"{name}=={importlib.metadata.version(name)}" for name in package.requirements]
    with tempfile.TemporaryDirectory() as files, warnings.catch_warnings():
        # MLflow warns of the annotations in its own modules.
        warnings.simplefilter("ignore")
        from mlflow import pyfunc
        from mlflow.models import Model

        artifacts = {}
        for key, (name, content) in package.files.items():
            artifacts[key] = str(Path(files) / name)
            Path(artifacts[key]).write_bytes(content)
        pyfunc.save_model(
            str(directory),
            mlflow_model=Model(model_id=model_id),
            python_model=package.code_path,
            code_paths=[package.package_path],
            artifacts=artifacts,
            input_example=[package.example],
            pip_requirements=versions,
        )


def _register(
    client: "MlflowClient", run_id: str, package: ModelPackage, score: Score, name: str
) -> None:
    """Registers the model unless this network is registered, and moves the alias if it is best."""
    from mlflow.exceptions import MlflowException

    model = _find(client, run_id, package)
    if model is None:
        return
    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(name)
    # The name can contain a quote, which would end the text in a query.
    query = f"tags.`slams.fingerprint` = '{package.fingerprint}'"
    known = [v for v in client.search_model_versions(query) if v.name == name]
    version = known[0] if known else _new_version(client, model, score, name)
    if _is_best(client, score, name):
        client.set_registered_model_alias(name, BEST, version.version)
        logger.info("%s@%s is version %s", name, BEST, version.version)


def _new_version(client: "MlflowClient", model: "LoggedModel", score: Score, name: str) -> Any:
    tags = {
        "slams.fingerprint": model.tags["slams.fingerprint"],
        "slams.scored_on": score.dataset[1],
    }
    if score.value is not None:
        tags["slams.score"] = repr(score.value)
    return client.create_model_version(
        name,
        # Unlike models:/<id>, it needs no tracking URI in the environment.
        model.artifact_location,
        model.source_run_id,
        tags=tags,
        model_id=model.model_id,
    )


def _is_best(client: "MlflowClient", score: Score, name: str) -> bool:
    """Whether the score is higher than that of the best version, on the same data."""
    if score.value is None:
        logger.info("%s: no score on masks, so the alias %s is left where it is", name, BEST)
        return False
    current = client.get_registered_model(name).aliases.get(BEST)
    if current is None:
        return True
    tags = client.get_model_version(name, current).tags
    if tags.get("slams.scored_on") != score.dataset[1]:
        logger.warning(
            "%s@%s is version %s, which was scored on other data: compare it yourself, and move "
            "the alias if the new version is better",
            name,
            BEST,
            current,
        )
        return False
    return score.value > float(tags["slams.score"])


def download(uri: str) -> str:
    """Downloads an MLflow model or artifact, and returns its local path.

    MLFLOW_TRACKING_URI names the server.

    Raises:
        ArtifactError: there is no such model, or the server does not answer.
    """
    set_defaults()
    import mlflow

    try:
        return str(mlflow.artifacts.download_artifacts(uri)).rstrip("/")
    except Exception as error:
        server = redacted(os.environ.get("MLFLOW_TRACKING_URI", mlflow.get_tracking_uri()))
        raise ArtifactError(
            f"MLflow at {server} has no {uri} ({first_line(error)}): set MLFLOW_TRACKING_URI to "
            "the server of the run, and check the name, version or alias"
        ) from error
