import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from slams_ray.data.coco import annotation_path, load_coco
from slams_ray.errors import ConfigError

# pycocotools 2.0.11 decodes in a way that numpy deprecates; nothing of ours can avoid it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CAT, DOG, BRUSH = 3, 7, 90
INDEX_OF = {CAT: 1, DOG: 2, BRUSH: 3}
SQUARE = [[2.0, 3.0, 12.0, 3.0, 12.0, 13.0, 2.0, 13.0]]
TWO_PARTS = [[1.5, 1.5, 6.2, 1.0, 5.0, 7.7], [15.0, 8.0, 28.0, 8.5, 20.0, 18.0]]


def region(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((20, 30), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def compressed(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    """Run lengths down the columns, starting with a run of zeros."""
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


def annotate(category: int, segmentation: Any, image: int = 12, crowd: int = 0) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": category,
        "segmentation": segmentation,
        "iscrowd": crowd,
    }


def test_sparse_category_ids_become_dense_in_ascending_order(
    write_coco: Callable[..., str],
) -> None:
    split = load_coco(write_coco([annotate(BRUSH, SQUARE)]), "train")
    assert split.description.class_names == ("background", "cat", "dog", "toothbrush")
    assert split.description.category_ids == (0, 3, 7, 90)
    assert split.items[0].image_labels == (3,)


@pytest.mark.parametrize(
    "segmentation",
    [
        SQUARE,
        TWO_PARTS,
        [[-4.0, -4.0, 50.0, 2.0, 10.0, 40.0]],
        compressed(region(4, 5, 11, 29)),
        uncompressed(region(4, 5, 11, 29)),
        uncompressed(region(0, 0, 7, 9)),
    ],
    ids=["polygon", "two polygons", "beyond the border", "rle", "run lengths", "run from corner"],
)
def test_every_kind_of_segmentation_is_drawn_as_pycocotools_draws_it(
    write_coco: Callable[..., str],
    draw_by_pycocotools: Callable[..., np.ndarray],
    segmentation: Any,
) -> None:
    root = write_coco([annotate(DOG, segmentation)])
    read_mask = load_coco(root, "train").items[0].read_mask
    assert read_mask is not None
    expected = draw_by_pycocotools(annotation_path(root, "train"), 12, INDEX_OF, "background")
    mask = read_mask(20, 30)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 2}
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("order", [(CAT, DOG, BRUSH), (BRUSH, CAT, DOG), (DOG, BRUSH, CAT)])
def test_later_annotations_are_drawn_over_earlier_ones(
    write_coco: Callable[..., str], order: tuple[int, ...]
) -> None:
    areas = [region(0, 0, 12, 12), region(4, 4, 16, 16), region(8, 8, 20, 20)]
    root = write_coco([annotate(c, compressed(a)) for c, a in zip(order, areas, strict=True)])
    expected = np.zeros((20, 30), np.uint8)
    for category, area in zip(order, areas, strict=True):
        expected[area == 1] = INDEX_OF[category]
    read_mask = load_coco(root, "train").items[0].read_mask
    assert read_mask is not None
    np.testing.assert_array_equal(read_mask(20, 30), expected)


@pytest.mark.parametrize("crowd", ["background", "ignore"])
def test_a_crowd_is_background_or_ignored_and_never_covers_an_instance(
    write_coco: Callable[..., str], draw_by_pycocotools: Callable[..., np.ndarray], crowd: str
) -> None:
    crowd_area, cat_area = region(0, 0, 10, 20), region(5, 10, 15, 25)
    root = write_coco(
        [annotate(CAT, compressed(cat_area)), annotate(CAT, uncompressed(crowd_area), crowd=1)]
    )
    read_mask = load_coco(root, "train", crowd=crowd).items[0].read_mask
    assert read_mask is not None
    mask = read_mask(20, 30)
    assert (mask[cat_area == 1] == 1).all()
    only_crowd = (crowd_area == 1) & (cat_area == 0)
    assert set(mask[only_crowd]) == {0 if crowd == "background" else 255}
    expected = draw_by_pycocotools(annotation_path(root, "train"), 12, INDEX_OF, crowd)
    np.testing.assert_array_equal(mask, expected)


def test_labels_are_the_classes_of_the_instances_without_crowds(
    write_coco: Callable[..., str],
) -> None:
    annotations = [
        annotate(BRUSH, SQUARE),
        annotate(CAT, SQUARE),
        annotate(CAT, TWO_PARTS),
        annotate(DOG, uncompressed(region(0, 0, 5, 5)), crowd=1),
    ]
    (item,) = load_coco(write_coco(annotations), "train").items
    assert item.image_labels == (1, 3)


def test_an_image_of_crowds_alone_counts_as_unlabelled(write_coco: Callable[..., str]) -> None:
    crowd = annotate(DOG, uncompressed(region(0, 0, 5, 5)), image=34, crowd=1)
    split = load_coco(write_coco([annotate(CAT, SQUARE), crowd]), "train")
    assert [item.image_id for item in split.items] == ["COCO_train_000000000012"]
    assert split.num_dropped == 1


def test_keep_unlabelled_keeps_images_of_background_alone(write_coco: Callable[..., str]) -> None:
    root = write_coco([annotate(CAT, SQUARE)])
    split = load_coco(root, "train", keep_unlabelled=True)
    assert [item.image_labels for item in split.items] == [(1,), ()]
    assert split.num_dropped == 0
    assert split.items[1].read_mask is not None
    assert not split.items[1].read_mask(20, 30).any()


def test_a_subset_ignores_other_classes_and_drops_images_that_have_only_those(
    write_coco: Callable[..., str],
) -> None:
    dog_area, cat_area = region(0, 0, 10, 10), region(5, 5, 15, 15)
    annotations = [
        annotate(DOG, compressed(dog_area)),
        annotate(CAT, compressed(cat_area)),
        annotate(CAT, SQUARE, image=34),
    ]
    split = load_coco(write_coco(annotations), "train", classes=("dog",))
    assert split.description.class_names == ("background", "dog")
    assert split.description.category_ids == (0, 7)
    assert (len(split.items), split.num_dropped) == (1, 1)
    expected = np.where(cat_area == 1, 255, dog_area).astype(np.uint8)
    assert split.items[0].read_mask is not None
    np.testing.assert_array_equal(split.items[0].read_mask(20, 30), expected)


def test_a_class_that_does_not_exist_is_named_with_those_that_do(
    write_coco: Callable[..., str],
) -> None:
    with pytest.raises(ConfigError, match=r"data\.classes names zebra.*cat, dog, toothbrush"):
        load_coco(write_coco([]), "train", classes=("zebra",))


@pytest.mark.parametrize(
    "line",
    ["12", "000000000012", "COCO_train_000000000012", "train/COCO_train_000000000012.jpg 7"],
)
def test_a_list_names_images_by_number_or_by_file_stem(
    write_coco: Callable[..., str], tmp_path: Path, line: str
) -> None:
    root = write_coco([annotate(CAT, SQUARE), annotate(DOG, SQUARE, image=34)])
    (tmp_path / "list.txt").write_text(f"{line}\n")
    split = load_coco(root, "train", list_path=str(tmp_path / "list.txt"))
    assert [item.image_id for item in split.items] == ["COCO_train_000000000012"]


def test_a_list_sets_the_order(write_coco: Callable[..., str], tmp_path: Path) -> None:
    root = write_coco([annotate(CAT, SQUARE), annotate(DOG, SQUARE, image=34)])
    (tmp_path / "list.txt").write_text("34\n\n12\n")
    split = load_coco(root, "train", list_path=str(tmp_path / "list.txt"))
    assert [item.image_labels for item in split.items] == [(2,), (1,)]


def test_every_mask_of_real_coco_equals_one_by_pycocotools(
    test_data: Path, draw_by_pycocotools: Callable[..., np.ndarray]
) -> None:
    root = test_data / "coco_tiny"
    if not root.is_dir():
        pytest.skip(f"{root} is absent: set SLAMS_TEST_DATA to the folder that holds coco_tiny")
    path = annotation_path(str(root), "val2017")
    content = json.loads(Path(path).read_text())
    images = {Path(i["file_name"]).stem: i for i in content["images"]}
    split = load_coco(str(root), "val2017", crowd="ignore", keep_unlabelled=True)
    description = split.description
    assert description.num_classes == 80
    assert len(split.items) == 50
    assert split.bad == ()
    index_of = {category: i for i, category in enumerate(description.category_ids)}
    for item in split.items:
        image = images[item.image_id]
        assert item.read_mask is not None
        mask = item.read_mask(image["height"], image["width"])
        np.testing.assert_array_equal(
            mask, draw_by_pycocotools(path, image["id"], index_of, "ignore"), item.image_id
        )
        assert {int(i) for i in np.unique(mask)} - {0, 255} <= set(item.image_labels)
