"""Types that every loader returns: a description of the data set and one item per image."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np

from slams_ray.data.names import check_file_name
from slams_ray.errors import ConfigError, DataError
from slams_ray.metrics import IGNORE_INDEX

BACKGROUND = "background"
MAX_CLASSES = IGNORE_INDEX - 1


@dataclass(frozen=True, kw_only=True)
class DatasetDescription:
    """Class names, ids and colours of a data set, stored with its shards as dataset.json.

    Attributes:
        class_names: (K,) names by dense class index, background first.
        category_ids: (K,) id of each class in the data set, with gaps; 0 for background.
        palette: (K, 3) RGB 0..255 for masks and figures.
    """

    name: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    palette: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.class_names) <= MAX_CLASSES + 1:
            raise ConfigError(
                f"{self.name} has {len(self.class_names) - 1} classes, expected 1 to "
                f"{MAX_CLASSES}: label maps are 8-bit with 255 for ignore. Choose a "
                "subset with data.classes"
            )

    @property
    def num_classes(self) -> int:
        """Number C of classes without background."""
        return len(self.class_names) - 1

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "DatasetDescription":
        raw = json.loads(text)
        return cls(
            name=raw["name"],
            class_names=tuple(raw["class_names"]),
            category_ids=tuple(raw["category_ids"]),
            palette=tuple((r, g, b) for r, g, b in raw["palette"]),
        )


MaskReader = Callable[[int, int], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image of a split. It holds paths, and is small and picklable.

    Attributes:
        image_id: unique in the split; exports use it as file name.
        image_path: path of the encoded image.
        image_labels: sorted indices of the classes in the image, the only supervision.
        read_mask: (height, width) -> (H, W) uint8 ground truth for evaluation; None without mask.
    """

    image_id: str
    image_path: str
    image_labels: tuple[int, ...]
    read_mask: MaskReader | None = None

    def __post_init__(self) -> None:
        # Loaders check too, with the annotation file in the message; this covers every loader.
        check_file_name(self.image_id, "image id")


@dataclass(frozen=True, kw_only=True)
class Split:
    """The items of a split, and the images that are left out of it.

    Attributes:
        bad: (image_id, reason) of images with an unusable annotation.
        num_dropped: number of images left out because they have no label.
        remarks: what looks like a mistake in the annotations, but need not be one.
    """

    description: DatasetDescription
    items: tuple[Item, ...]
    bad: tuple[tuple[str, str], ...] = ()
    num_dropped: int = 0
    remarks: tuple[str, ...] = ()


@cache
def voc_palette(num_colours: int) -> tuple[tuple[int, int, int], ...]:
    """The PASCAL VOC colour map: bit i of the index is spread over the high bits of R, G and B."""
    colours = []
    for index in range(num_colours):
        rgb, rest = [0, 0, 0], index
        for bit in range(7, -1, -1):
            for channel in range(3):
                rgb[channel] |= ((rest >> channel) & 1) << bit
            rest >>= 3
        colours.append((rgb[0], rgb[1], rgb[2]))
    return tuple(colours)


def check_class_names(names: Sequence[str], source: str) -> None:
    """Checks the names of all classes but background.

    Args:
        source: the file that names the classes, for the message.

    Raises:
        DataError: two classes have one name, or one is called background.
    """
    for name in names:
        if name == BACKGROUND:
            raise DataError(
                f"{source} names the class {name!r}: leave it out or rename it, because background "
                "is in every data set and always has index 0"
            )
        if names.count(name) > 1:
            raise DataError(f"{source} names the class {name!r} twice: name every class once")


def choose_classes(available: Sequence[str], wanted: Sequence[str], name: str) -> tuple[str, ...]:
    """Returns the wanted classes in the order of the data set; all if none is wanted."""
    unknown = sorted(set(wanted) - set(available))
    if unknown:
        raise ConfigError(
            f"data.classes names {', '.join(unknown)}, which {name} does not have: "
            f"its classes are {', '.join(available)}"
        )
    return tuple(c for c in available if not wanted or c in wanted)


def drop_unlabelled(items: Sequence[Item], keep: bool) -> tuple[tuple[Item, ...], int]:
    """Returns the items with a label (all items if `keep`) and the number of others."""
    kept = tuple(item for item in items if keep or item.image_labels)
    return kept, len(items) - len(kept)
