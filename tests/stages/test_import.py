"""Maps and labels of another program give what the pipeline's own maps and labels give."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slams_ray import storage
from slams_ray.config import ImportedConfig, PipelineConfig
from slams_ray.data.imported import CLASS_NAMES_FILE
from slams_ray.data.source import TRAIN
from slams_ray.data.stored_maps import STORED_LEVELS, unpack_maps
from slams_ray.errors import ConfigError, DataError
from slams_ray.stages import evaluate, import_files, pipeline, prepare, refine
from slams_ray.stages.infer_activation import activations_dir

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def workspace(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a finished pipeline, whose maps and labels are imported again."""
    return finished.copy_to(tmp_path_factory.mktemp("import"))


@pytest.fixture(scope="module")
def maps(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The maps of SLAMs as files, one per training image."""
    directory = tmp_path_factory.mktemp("maps")
    shards = activations_dir(finished.result.results["infer_activation"].output_dir)
    for name in storage.list_names(shards):
        for row in storage.read_table(storage.join(shards, name)).to_pylist():
            stored = unpack_maps(row["slams"], row["image_labels"], row["height"], row["width"])
            np.savez(
                directory / f"{row['image_id']}.npz",
                classes=np.array(row["image_labels"]),
                maps=stored / STORED_LEVELS,
            )
    return directory


def imported(config: PipelineConfig, system: Any, **directories: Any) -> PipelineConfig:
    chosen = ImportedConfig(**{name: str(value) for name, value in directories.items()})
    return replace(config, imported=chosen, system=system, baselines=())


def test_imported_maps_score_as_the_system_they_come_from(
    finished: Any, workspace: Path, maps: Path
) -> None:
    config = imported(finished.config, "imported", maps=maps)
    found = pipeline.run(config, str(workspace), "imported", refine.STAGE)
    assert list(found.results) == ["prepare", "import_maps", "search_threshold", "refine"]
    own = finished.result.summary["scores"]
    assert found.summary["scores"]["imported_seed_miou"] == own["slams_seed_miou"]
    assert found.summary["scores"]["refined_miou"] == own["refined_miou"]


def test_imported_maps_stand_beside_those_of_trained_systems(
    finished: Any, workspace: Path, maps: Path
) -> None:
    config = replace(imported(finished.config, "imported", maps=maps), baselines=("cam", "slams"))
    found = pipeline.run(config, str(workspace), "imported", "search_threshold")
    scores = found.summary["scores"]
    assert scores["imported_seed_miou"] == scores["slams_seed_miou"]
    assert scores["cam_seed_miou"] == finished.result.summary["scores"]["cam_seed_miou"]


def test_masks_train_the_network_on_the_ground_truth(finished: Any, workspace: Path) -> None:
    config = imported(finished.config, "masks")
    found = pipeline.run(config, str(workspace), "masks")
    assert list(found.results) == ["prepare", "import_labels", "train_segmentation", "evaluate"]
    assert found.summary["scores"]["label_miou"] == 1
    assert 0 <= found.summary["scores"]["segmentation_miou"] <= 1
    assert (workspace / "montage.png").is_file()


def test_exported_pseudo_labels_come_back_as_they_were(
    finished: Any, workspace: Path, tmp_path: Path
) -> None:
    """The segmentation network that learnt from them is kept: its inputs have not changed."""
    shards = refine.pseudo_labels_dir(finished.result.results["refine"].output_dir)
    for name in storage.list_names(shards):
        for row in storage.read_table(storage.join(shards, name)).to_pylist():
            (tmp_path / f"{row['image_id']}.png").write_bytes(row["pseudo_label"])
    names = finished.result.results["prepare"]
    description = prepare.open_prepared(names).description
    (tmp_path / CLASS_NAMES_FILE).write_text("\n".join(description.class_names))
    config = imported(finished.config, "imported_labels", labels=tmp_path)
    found = pipeline.run(config, str(workspace), "imported", evaluate.STAGE)
    assert found.results["train_segmentation"].cached
    own = finished.result.summary["scores"]["segmentation_miou"]
    assert found.summary["scores"]["segmentation_miou"] == own


def test_missing_unknown_and_foreign_files_are_named_before_any_work(
    finished: Any, workspace: Path, maps: Path, tmp_path: Path
) -> None:
    data = prepare.open_prepared(finished.result.results["prepare"])
    missing = min(maps.iterdir())
    others = tmp_path / "maps"
    others.mkdir()
    for path in maps.iterdir():
        (others / path.name).write_bytes(path.read_bytes())
    (others / missing.name).unlink()
    with pipeline.open_session(finished.config, str(workspace), "bad") as session:
        context = pipeline.make_context(finished.config, session)

        def attempt() -> None:
            import_files.import_maps(context, data, str(others), None, ())

        with pytest.raises(DataError, match=rf"1 images have no \.npz file.*{missing.stem}"):
            attempt()
        (others / missing.name).write_bytes(missing.read_bytes())
        (others / "stranger.npz").write_bytes(missing.read_bytes())
        with pytest.raises(DataError, match=r"are no training images.*stranger"):
            attempt()
        (others / CLASS_NAMES_FILE).write_text("background\nbird\n")
        with pytest.raises(DataError, match="background, bird, but the data set has"):
            attempt()
    assert data.num_images(TRAIN) == len(list(maps.iterdir()))


def test_a_source_without_directory_or_with_a_search_is_refused(
    tiny_config: PipelineConfig,
) -> None:
    with pytest.raises(ConfigError, match=r"imported\.maps"):
        replace(tiny_config, system="imported")
    with pytest.raises(ConfigError, match=r"search\.num_samples"):
        replace(tiny_config, system="masks", search=replace(tiny_config.search, num_samples=4))
