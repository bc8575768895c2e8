"""Loader of the PASCAL VOC 2012 layout: JPEGImages, SegmentationClass[Aug], ImageSets."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np

from slams_ray import storage
from slams_ray.data.image import (
    DEFAULT_LIMITS,
    ImageLimits,
    check_mask,
    decode_mask,
    read_file,
)
from slams_ray.data.lists import read_id_list
from slams_ray.data.schema import (
    BACKGROUND,
    DatasetDescription,
    Item,
    Split,
    choose_classes,
    drop_unlabelled,
    voc_palette,
)
from slams_ray.errors import DataError
from slams_ray.metrics import IGNORE_INDEX

VOC_CLASSES = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]


@dataclass(frozen=True, kw_only=True)
class IndexMask:
    """Reads an index PNG and maps its indices to dense class indices.

    Attributes:
        lookup: (256,) class index of each stored index; 255 for ignore and classes not chosen.
        num_indices: number of indices that the data set defines, background included.
    """

    path: str
    lookup: tuple[int, ...]
    num_indices: int
    limits: ImageLimits = DEFAULT_LIMITS

    def __call__(self, height: int, width: int) -> np.ndarray:
        mask = self._decode()
        check_mask(mask, (height, width), self.num_indices, self.path)
        return np.array(self.lookup, np.uint8)[mask]

    def classes(self) -> tuple[int, ...]:
        """Returns the sorted class indices in the mask, without background and ignore."""
        mask = self._decode()
        check_mask(mask, mask.shape, self.num_indices, self.path)
        found = np.unique(np.array(self.lookup, np.uint8)[mask])
        return tuple(int(i) for i in found if i not in (0, IGNORE_INDEX))

    def _decode(self) -> np.ndarray:
        return decode_mask(read_file(self.path, self.limits), self.path, self.limits)


def index_lookup(available: list[str], chosen: tuple[str, ...]) -> tuple[int, ...]:
    """(256,) dense class index of each stored index (1-based in `available`); others are 255."""
    lookup = [IGNORE_INDEX] * 256
    lookup[0] = 0
    for stored, name in enumerate(available, start=1):
        if name in chosen:
            lookup[stored] = 1 + chosen.index(name)
    return tuple(lookup)


def list_file(root: str, split: str) -> str:
    """Path of the official list of a split."""
    return storage.join(root, "ImageSets/Segmentation", f"{split}.txt")


def load_voc(
    root: str,
    split: str,
    *,
    classes: tuple[str, ...] = (),
    mask_dir: str = "SegmentationClass",
    labels_from: str = "xml",
    keep_unlabelled: bool = False,
    list_path: str | None = None,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Split:
    """Loads a split.

    Args:
        mask_dir: SegmentationClass, or SegmentationClassAug for the 10,582 images of trainaug.
        labels_from: "xml" (the objects of Annotations/<id>.xml, where an image needs no mask) or
            "masks" (the classes of the index PNG). As in the labels of IRN, which most systems use,
            objects that are marked difficult count.
        list_path: list that replaces ImageSets/Segmentation/<split>.txt.
    """
    names = choose_classes(VOC_CLASSES, classes, "VOC 2012")
    description = DatasetDescription(
        name="voc",
        class_names=(BACKGROUND, *names),
        category_ids=(0, *(1 + VOC_CLASSES.index(n) for n in names)),
        palette=tuple(
            voc_palette(len(VOC_CLASSES) + 1)[i]
            for i in (0, *(1 + VOC_CLASSES.index(n) for n in names))
        ),
    )
    lookup = index_lookup(VOC_CLASSES, names)
    ids = read_id_list(list_path or list_file(root, split))
    with ThreadPoolExecutor() as pool:
        results = list(
            pool.map(
                lambda image_id: _load(
                    root, image_id, names, mask_dir, lookup, labels_from, limits
                ),
                ids,
            )
        )
    items = [r for r in results if isinstance(r, Item)]
    bad = tuple(r for r in results if not isinstance(r, Item))
    kept, num_dropped = drop_unlabelled(items, keep_unlabelled)
    return Split(description=description, items=kept, bad=bad, num_dropped=num_dropped)


def _load(
    root: str,
    image_id: str,
    names: tuple[str, ...],
    mask_dir: str,
    lookup: tuple[int, ...],
    labels_from: str,
    limits: ImageLimits,
) -> Item | tuple[str, str]:
    mask = IndexMask(
        path=storage.join(root, mask_dir, f"{image_id}.png"),
        lookup=lookup,
        num_indices=len(VOC_CLASSES) + 1,
        limits=limits,
    )
    try:
        has_mask = labels_from == "masks" or storage.exists(mask.path)
        labels = mask.classes() if labels_from == "masks" else _xml_classes(root, image_id, names)
        return Item(
            image_id=image_id,
            image_path=storage.join(root, "JPEGImages", f"{image_id}.jpg"),
            image_labels=labels,
            read_mask=mask if has_mask else None,
        )
    except DataError as error:
        return image_id, str(error)


def _xml_classes(root: str, image_id: str, names: tuple[str, ...]) -> tuple[int, ...]:
    path = storage.join(root, "Annotations", f"{image_id}.xml")
    if not storage.exists(path):
        raise DataError(
            f"{path} is missing: image labels come from the annotations. Add the file, or pass "
            "--data.voc-labels-from masks to take the classes of the masks"
        )
    try:
        tree = ElementTree.fromstring(storage.read_bytes(path))
    except (OSError, ElementTree.ParseError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    found = {node.text for node in tree.findall("object/name")}
    return tuple(1 + i for i, name in enumerate(names) if name in found)
