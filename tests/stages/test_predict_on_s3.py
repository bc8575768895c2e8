"""Masks for photographs, with the model's workspace, photographs and output in an object store."""

import io
import json

import numpy as np
import torch
from PIL import Image

from slams_ray import storage
from slams_ray.networks.checkpoint import dump_network
from slams_ray.networks.segmentation_network import SegmentationNetwork
from slams_ray.stages import predict


def test_a_workspace_photographs_and_masks_may_all_be_in_a_bucket(object_store: str) -> None:
    root = f"{object_store}/predict"
    architecture = {
        "backbone_name": "tiny_resnet",
        "output_stride": 8,
        "num_classes": 2,
        "head": "deeplabv2",
    }
    torch.manual_seed(0)
    data = dump_network(SegmentationNetwork(**architecture), architecture, ("background", "a", "b"))
    output = f"{root}/runs/train_segmentation/0123456789ab"
    storage.write_bytes(f"{output}/model.pt", data)
    stages = [{"stage": "train_segmentation", "output": output}]
    storage.write_bytes(f"{root}/runs/summary.json", json.dumps({"stages": stages}).encode())
    picture = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(picture, format="PNG")
    storage.write_bytes(f"{root}/photographs/a.png", picture.getvalue())
    num_written = predict.run(
        f"{root}/runs",
        f"{root}/photographs",
        f"{root}/masks",
        scales=(1.0,),
        flip=True,
        precision="float32",
        max_side_px=64,
    )
    assert num_written == 1
    assert storage.list_names(f"{root}/masks") == ["a.png", "a_overlay.jpg", "written"]
    mask = Image.open(io.BytesIO(storage.read_bytes(f"{root}/masks/a.png")))
    assert (mask.mode, mask.size) == ("P", (50, 40))
