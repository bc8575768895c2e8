"""Generator of the built-in data set, from a random seed, in COCO layout.

It has the two difficulties that the paper names. Under-activation: an object is a small
discriminative head on a large body, whose texture another class shares, so a classifier needs only
the head. Falsely activated background: a train runs on rails, which rarely appear without a train.
"""

import io
import json
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from pycocotools import mask as coco_mask

from slams_ray import storage
from slams_ray.data.coco import annotation_path

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class ObjectClass:
    """A class: COCO id, body texture that another class shares, and a head of its own."""

    name: str
    category_id: int
    body: str
    head: str
    colour: Colour


CLASSES = (
    ObjectClass("cat", 2, "stripes", "triangle", (216, 60, 48)),
    ObjectClass("dog", 3, "stripes", "disc", (52, 88, 214)),
    ObjectClass("cow", 7, "spots", "cross", (236, 196, 40)),
    ObjectClass("sheep", 8, "spots", "ring", (160, 56, 188)),
    ObjectClass("bus", 12, "bricks", "square", (40, 176, 96)),
    ObjectClass("train", 20, "bricks", "diamond", (240, 128, 32)),
)
CONTEXT_CLASS = "train"
CONTEXT_WITHOUT_CLASS = 0.06
GRAYSCALE_EVERY, UNLABELLED_EVERY, CROWD_EVERY = 25, 30, 20
MIN_SIZE_PX, MAX_SIZE_PX = 56, 80


def generate_synthetic(root: str, sizes: dict[str, int], seed: int) -> None:
    """Writes `sizes[split]` images and the annotation file of each split under root."""
    for position, (split, num_images) in enumerate(sizes.items()):
        images: list[dict[str, object]] = []
        annotations: list[dict[str, object]] = []
        for index in range(num_images):
            # One generator per image, so that an image does not change when the split grows.
            rng = np.random.default_rng((seed, position, index))
            picture, objects = draw_scene(rng, index)
            image_id = 1 + position * 100_000 + index
            file_name = f"{image_id:012d}.jpg"
            storage.write_bytes(storage.join(root, split, file_name), _encode(picture, index))
            images.append(
                {
                    "id": image_id,
                    "file_name": file_name,
                    "width": picture.width,
                    "height": picture.height,
                }
            )
            for object_class, mask, is_crowd in objects:
                annotations.append(
                    _annotation(len(annotations) + 1, image_id, object_class, mask, is_crowd)
                )
        content = {
            "info": {"description": "slams_ray built-in data set", "seed": seed},
            "categories": [{"id": c.category_id, "name": c.name} for c in CLASSES],
            "images": images,
            "annotations": annotations,
        }
        storage.write_bytes(annotation_path(root, split), json.dumps(content).encode())


def draw_scene(
    rng: np.random.Generator, index: int
) -> tuple[Image.Image, list[tuple[ObjectClass, np.ndarray, bool]]]:
    """Draws an RGB picture and its objects (class, (H, W) bool mask, is_crowd), back to front."""
    width, height = (int(v) for v in rng.integers(MIN_SIZE_PX, MAX_SIZE_PX + 1, 2))
    picture = _background(rng, width, height)
    if index % UNLABELLED_EVERY == UNLABELLED_EVERY - 1:
        return picture, []
    num_objects = int(rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15]))
    chosen = [CLASSES[i] for i in rng.permutation(len(CLASSES))[:num_objects]]
    objects: list[tuple[ObjectClass, np.ndarray, bool]] = []
    if CONTEXT_CLASS not in {c.name for c in chosen} and rng.random() < CONTEXT_WITHOUT_CLASS:
        _draw_rails(picture, rng, int(rng.integers(height // 2, height)))
    for slot, object_class in enumerate(chosen):
        mask = _draw_object(picture, rng, object_class, slot, num_objects)
        objects = [(c, m & ~mask, crowd) for c, m, crowd in objects]
        objects.append((object_class, mask, False))
    if index % CROWD_EVERY == CROWD_EVERY - 1:
        covered = np.any([mask for _, mask, _ in objects], axis=0)
        objects.append((chosen[0], _draw_crowd(picture, rng, chosen[0], covered), True))
    return picture, [(c, m, crowd) for c, m, crowd in objects if m.sum() > 0]


def _annotation(
    number: int, image_id: int, object_class: ObjectClass, mask: np.ndarray, is_crowd: bool
) -> dict[str, object]:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "id": number,
        "image_id": image_id,
        "category_id": object_class.category_id,
        "iscrowd": int(is_crowd),
        "area": int(mask.sum()),
        "bbox": [float(v) for v in coco_mask.toBbox(encoded)],
        "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")},
    }


def _encode(picture: Image.Image, index: int) -> bytes:
    if index % GRAYSCALE_EVERY == GRAYSCALE_EVERY - 1:
        picture = picture.convert("L")
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=92)
    return buffer.getvalue()


def _background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Draws sky above ground: two blurred colour fields with noise."""
    horizon = height * rng.uniform(0.25, 0.6)
    sky, ground = rng.uniform(120, 210, 3), rng.uniform(70, 150, 3)
    blend = 1 / (1 + np.exp((np.arange(height) - horizon) / 3))
    rows = blend[:, None] * sky + (1 - blend[:, None]) * ground
    field = (
        rows[:, None, :]
        + rng.normal(0, 9, (height, width, 1))
        + rng.normal(0, 4, (height, width, 3))
    )
    return Image.fromarray(field.clip(0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(0.6)
    )


def _draw_object(
    picture: Image.Image,
    rng: np.random.Generator,
    object_class: ObjectClass,
    slot: int,
    num_objects: int,
) -> np.ndarray:
    """Draws a body with its head inside a vertical band of the picture, and returns its mask."""
    width, height = picture.size
    band = width / num_objects
    length = float(np.clip(band * rng.uniform(0.7, 1.0), 18, 56))
    thickness = float(np.clip(length * rng.uniform(0.5, 0.75), 14, height * 0.5))
    centre_x = band * slot + band / 2 + rng.uniform(-2, 2)
    centre_y = rng.uniform(thickness / 2 + 4, height - thickness / 2 - 6)
    box = (
        centre_x - length / 2,
        centre_y - thickness / 2,
        centre_x + length / 2,
        centre_y + thickness / 2,
    )
    if object_class.name == CONTEXT_CLASS:
        _draw_rails(picture, rng, int(box[3]))
    mask = Image.new("L", picture.size)
    draw = ImageDraw.Draw(mask)
    shape = draw.rectangle if object_class.body == "bricks" else draw.ellipse
    shape(box, fill=255)
    picture.paste(_texture(rng, object_class.body, picture.size), (0, 0), mask)
    side = 1 if rng.random() < 0.5 else -1
    head = Image.new("L", picture.size)
    head_size = float(np.clip(thickness * 0.5, 9, 14))
    head_x = centre_x + side * (length / 2 - head_size * 0.6)
    head_y = centre_y - thickness * rng.uniform(-0.1, 0.25)
    _draw_head(ImageDraw.Draw(head), object_class.head, head_x, head_y, head_size / 2)
    colour = tuple(int(np.clip(c + rng.normal(0, 10), 0, 255)) for c in object_class.colour)
    picture.paste(Image.new("RGB", picture.size, colour), (0, 0), head)
    return np.asarray(mask, bool) | np.asarray(head, bool)


def _draw_head(draw: ImageDraw.ImageDraw, shape: str, x: float, y: float, r: float) -> None:
    box = (x - r, y - r, x + r, y + r)
    if shape == "triangle":
        draw.polygon([(x - r, y + r), (x + r, y + r), (x, y - r)], fill=255)
    elif shape == "disc":
        draw.ellipse(box, fill=255)
    elif shape == "ring":
        draw.ellipse(box, fill=255)
        draw.ellipse((x - r / 2, y - r / 2, x + r / 2, y + r / 2), fill=0)
    elif shape == "cross":
        draw.rectangle((x - r, y - r / 2.5, x + r, y + r / 2.5), fill=255)
        draw.rectangle((x - r / 2.5, y - r, x + r / 2.5, y + r), fill=255)
    elif shape == "diamond":
        draw.polygon([(x - r, y), (x, y - r), (x + r, y), (x, y + r)], fill=255)
    else:
        draw.rectangle(box, fill=255)


def _texture(rng: np.random.Generator, kind: str, size: tuple[int, int]) -> Image.Image:
    """Draws a texture; its pattern shows the kind, its pale and dark tones vary."""
    width, height = size
    y, x = np.mgrid[:height, :width]
    phase = rng.uniform(0, 8)
    if kind == "stripes":
        dark = np.sin((x + 0.6 * y) * 2 * np.pi / 7 + phase) > 0
    elif kind == "spots":
        dark = np.sin(x * 2 * np.pi / 8 + phase) * np.sin(y * 2 * np.pi / 8 + phase) > 0.2
    else:
        row = y // 5
        dark = (y % 5 == 0) | ((x + 4 * (row % 2)) % 9 == 0)
    pale_tone, dark_tone = rng.uniform(150, 200), rng.uniform(50, 95)
    field = np.where(dark, dark_tone, pale_tone)[..., None] + rng.normal(0, 8, (height, width, 3))
    return Image.fromarray(field.clip(0, 255).astype(np.uint8))


def _draw_rails(picture: Image.Image, rng: np.random.Generator, y: int) -> None:
    draw = ImageDraw.Draw(picture)
    offset = int(rng.integers(0, 6))
    for x in range(-offset, picture.width, 7):
        draw.line([(x, y + 4), (x + 3, y)], fill=(92, 70, 52), width=2)
    for line in (y + 1, y + 4):
        draw.line([(0, line), (picture.width, line)], fill=(168, 170, 178), width=1)


def _draw_crowd(
    picture: Image.Image, rng: np.random.Generator, object_class: ObjectClass, covered: np.ndarray
) -> np.ndarray:
    """Draws a row of small heads of one class along the top edge, outside other objects."""
    strip = Image.new("L", picture.size)
    for x in range(5, picture.width - 4, 10):
        _draw_head(ImageDraw.Draw(strip), object_class.head, x, 5 + rng.uniform(-1, 1), 4)
    mask = np.asarray(strip, bool) & ~covered
    picture.paste(
        Image.new("RGB", picture.size, object_class.colour), (0, 0), Image.fromarray(mask)
    )
    region = np.zeros_like(mask)
    region[:10] = True
    return region & ~covered
