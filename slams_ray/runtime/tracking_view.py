"""How MLflow shows an experiment at first glance."""

import json

KIND_TAG = "mlflow.experimentKind"
COLUMNS = ("cam_seed_miou", "slams_seed_miou", "refined_miou", "segmentation_miou")
"""Metrics that the list of runs shows."""
SETTINGS = ("system", "seed", "refinement.steps", "activation.pseudo_labels_of")
"""Settings that the list of runs shows, because they tell runs of one recipe apart."""
VIEW = "slams_ray"
"""Key of the view: ?workflowType=machine_learning&viewStateShareKey=slams_ray."""


def experiment_tags() -> dict[str, str]:
    """Returns the tags that open an experiment as one of trainings, and a view with its metrics.

    The format of a view is that of MLflow's *Share*, seen in MLflow 3.17. A server that does not
    know it ignores the tag.
    """
    state = {
        "searchFilter": "",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": [
            "attributes.`Duration`",
            *(f"metrics.`{name}`" for name in COLUMNS),
            *(f"params.`{name}`" for name in SETTINGS),
        ],
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
    }
    return {
        KIND_TAG: "custom_model_development",
        f"mlflow.sharedViewState.{VIEW}": json.dumps(state),
    }
