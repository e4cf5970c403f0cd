"""What a run keeps of its held-out set: from the command line to the checkpoint, and back at inference."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
import yaml

from imagier.cli import main
from imagier.train.checkpoint import load

CLASSES = 4


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """pix2pixHD with an encoder of objects; ids are class x 1000 + number, stored with 16 bits."""
    data = tiny.write_data(tmp_path / "data", train=4, val=3)
    for path in data.glob("*/seg_maps/*.png"):
        halves = np.arange(tiny.SIZE, dtype=np.uint16) * 2 // tiny.SIZE
        folder = path.parents[1] / "instance_maps"
        folder.mkdir(exist_ok=True)
        cv2.imwrite(str(folder / path.name), cv2.imread(str(path), cv2.IMREAD_UNCHANGED) * np.uint16(1000) + halves)
    config = tiny.config(data, max_iter=3, snapshot_save_iter=2, metrics_iter=99)
    config["trainer"] |= {"type": "pix2pixHD", "loss_weight": {"gan": 1.0, "feature_matching": 1.0, "perceptual": 0.0}}
    config["gen"] = {
        "type": "pix2pixHD",
        "global_generator": {"num_filters": 2, "num_downsamples": 1, "num_res_blocks": 1},
        "local_enhancer": {"num_enhancers": 0},
        "enc": {"num_feat_channels": 2, "num_filters": 2, "num_downsamples": 1, "num_clusters": 2},
        "is_cityscapes": True,
    }
    config["dis"] = {"type": "pix2pixHD", "num_filters": 2, "num_layers": 1, "num_discriminators": 1}
    config["data"]["input_types"].append({"instance_maps": {"ext": "png", "num_channels": 1, "is_mask": True}})
    config["data"]["input_labels"].append("instance_maps")
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.slow
def test_every_checkpoint_holds_looks_of_held_out_objects_in_the_average_alone(
    experiment: Path, tmp_path: Path
) -> None:
    where = ["--config", str(experiment), "--logdir", str(tmp_path / "log"), "--device", "cpu"]
    assert main(["train", *where]) == 0
    found = {}
    for path in sorted((tmp_path / "log").glob("*.pt")):
        gen = load(path)["players"]["gen"]
        for index in range(CLASSES):
            found[path, index] = gen["average"]["network"][f"encoder.clusters.cluster_{index}"]
            assert found[path, index].any(dim=1).all()
        assert not gen["average"]["network"][f"encoder.clusters.cluster_{CLASSES}"].any()
        assert not any(x.any() for name, x in gen["network"].items() if "cluster" in name)
    first, last = (rows for (_, index), rows in found.items() if index == 0)
    assert not first.equal(last)
    assert main(["infer", *where, "--output_dir", str(tmp_path / "out"), "inference_args.random_style=true"]) == 0
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 3
