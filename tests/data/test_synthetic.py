import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slams_ray.data.coco import load_coco
from slams_ray.data.synthetic import CLASSES, CONTEXT_CLASS, draw_scene, generate_synthetic

NUM_IMAGES = 60
RAIL = (168, 170, 178)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic")
    generate_synthetic(str(root), {"train": NUM_IMAGES}, seed=0)
    return root


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def content(root: Path) -> dict[str, list[dict[str, object]]]:
    return json.loads((root / "annotations/instances_train.json").read_text())  # type: ignore[no-any-return]


def open_picture(path: Path) -> Image.Image:
    return Image.open(io.BytesIO(path.read_bytes()))


def scenes(count: int) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Pixels and class name -> mask of scenes without crowd."""
    for index in range(count):
        picture, objects = draw_scene(np.random.default_rng((5, 0, index)), 0)
        yield np.asarray(picture), {c.name: mask for c, mask, _ in objects}


def has_rails(pixels: np.ndarray) -> bool:
    """Whether a quarter of some row is exactly of the colour of rails."""
    return bool(((pixels == RAIL).all(axis=-1).mean(axis=1) > 0.25).any())


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        generate_synthetic(str(tmp_path / name), {"train": 6, "val": 3}, seed=4)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_another_seed_writes_other_images(tmp_path: Path) -> None:
    for seed in (1, 2):
        generate_synthetic(str(tmp_path / str(seed)), {"train": 3}, seed)
    one, two = files(tmp_path / "1"), files(tmp_path / "2")
    assert one.keys() == two.keys()
    assert all(one[name] != two[name] for name in one)


def test_a_longer_split_starts_with_the_same_images(tmp_path: Path) -> None:
    for count in (4, 7):
        generate_synthetic(str(tmp_path / str(count)), {"train": count}, seed=0)
    short = {n: d for n, d in files(tmp_path / "4").items() if n.endswith(".jpg")}
    long = files(tmp_path / "7")
    assert len(short) == 4
    assert all(long[name] == data for name, data in short.items())


def test_two_splits_share_no_image(tmp_path: Path) -> None:
    generate_synthetic(str(tmp_path), {"train": 5, "val": 5}, seed=0)
    images = [data for name, data in files(tmp_path).items() if name.endswith(".jpg")]
    assert len(set(images)) == 10


def test_category_ids_are_sparse_and_every_class_occurs(generated: Path) -> None:
    split = load_coco(str(generated), "train", keep_unlabelled=True)
    ids = split.description.category_ids
    assert ids == (0, *(c.category_id for c in CLASSES))
    assert ids != tuple(range(len(ids)))
    assert {i for item in split.items for i in item.image_labels} == set(range(1, len(ids)))
    assert split.bad == ()


def test_some_images_are_grayscale_unlabelled_or_hold_a_crowd(generated: Path) -> None:
    modes = [open_picture(p).mode for p in sorted((generated / "train").iterdir())]
    assert modes.count("L") == 2
    assert modes.count("RGB") == NUM_IMAGES - 2
    annotations = content(generated)["annotations"]
    assert sum(bool(a["iscrowd"]) for a in annotations) >= 2
    assert load_coco(str(generated), "train").num_dropped == 2


def test_image_sizes_differ_and_are_those_of_the_files(generated: Path) -> None:
    images = content(generated)["images"]
    sizes = {(i["width"], i["height"]) for i in images}
    assert len(sizes) > NUM_IMAGES // 2
    for image in images:
        picture = open_picture(generated / "train" / str(image["file_name"]))
        assert picture.size == (image["width"], image["height"])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_masks_load_and_hold_the_labelled_classes(generated: Path) -> None:
    for item in load_coco(str(generated), "train", keep_unlabelled=True).items:
        width, height = open_picture(Path(item.image_path)).size
        assert item.read_mask is not None
        found = {int(i) for i in np.unique(item.read_mask(height, width))} - {0}
        assert found == set(item.image_labels)


def test_objects_do_not_overlap() -> None:
    for pixels, masks in scenes(30):
        covered = np.sum(list(masks.values()), axis=0)
        assert covered.shape == pixels.shape[:2]
        assert covered.max() <= 1


def test_the_head_is_a_small_part_of_its_object() -> None:
    fractions = []
    for pixels, masks in scenes(60):
        for mask in masks.values():
            # A head is flat in colour, a body is noisy: the commonest colour is the head.
            _, counts = np.unique(pixels[mask], axis=0, return_counts=True)
            fractions.append(counts.max() / mask.sum())
    assert 0.03 < np.median(fractions) < 0.2
    assert np.quantile(fractions, 0.95) < 0.35


def test_every_body_texture_is_shared_by_two_classes_and_every_head_is_unique() -> None:
    bodies = [c.body for c in CLASSES]
    assert all(bodies.count(body) == 2 for body in bodies)
    assert len({c.head for c in CLASSES}) == len({c.colour for c in CLASSES}) == len(CLASSES)


def test_rails_lie_under_every_train_and_in_few_other_images() -> None:
    with_train, without_train = [], []
    for pixels, masks in scenes(200):
        (with_train if CONTEXT_CLASS in masks else without_train).append(has_rails(pixels))
    assert len(with_train) > 30
    assert np.mean(with_train) == 1
    assert 0 < np.mean(without_train) < 0.15
