"""A data set and an experiment small enough to train in a test."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import yaml

SIZE = 32


def write_data(folder: Path, *, train: int = 10, val: int = 5) -> Path:
    """Images with label maps of 4 classes, in folder/train and folder/val."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "seg_maps"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            classes = cv2.resize(rng.integers(0, 4, (4, 4), np.uint8), (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)
            image = np.stack([classes * 60, 255 - classes * 50, classes * 20 + 90], axis=2).astype(np.uint8)
            cv2.imwrite(str(folder / split / "images" / f"{index:03d}.png"), image)
            cv2.imwrite(str(folder / split / "seg_maps" / f"{index:03d}.png"), classes)
    return folder


def config(data: Path, **run: object) -> dict:
    """An experiment on that data; `run` adds or replaces keys of the top level."""
    optimizer = {"type": "adam", "lr": 1e-3, "adam_beta1": 0.5}
    return {
        "logging_iter": 2,
        "max_iter": 6,
        "trainer": {
            "type": "spade",
            "gan_mode": "hinge",
            "loss_weight": {"gan": 1.0, "feature_matching": 1.0, "kl": 0.05, "l1": 1.0},
            "init": {"type": "xavier", "gain": 0.2},
            "model_average_config": {"enabled": True, "beta": 0.9, "start_iteration": 1},
        },
        "gen_opt": optimizer,
        "dis_opt": optimizer,
        "gen": {
            "type": "spade",
            "num_filters": 1,
            "activation_norm_params": {"num_filters": 2, "activation_norm_type": "batch"},
        },
        "dis": {"type": "spade", "num_filters": 2, "max_num_filters": 4, "num_discriminators": 1, "num_layers": 2},
        "data": {
            "type": "paired_images",
            "input_types": [
                {"images": {"ext": "png", "num_channels": 3, "normalize": True}},
                {"seg_maps": {"ext": "png", "num_channels": 1, "is_mask": True}},
            ],
            "input_image": ["images"],
            "input_labels": ["seg_maps"],
            "one_hot_num_classes": {"seg_maps": 4},
            "train": {
                "roots": [str(data / "train")],
                "batch_size": 2,
                "augmentations": {"resize_h_w": "36, 36", "horizontal_flip": True, "random_crop_h_w": "32, 32"},
            },
            "val": {
                "roots": [str(data / "val")],
                "batch_size": 2,
                "augmentations": {"resize_h_w": "32, 32"},
            },
        },
        **run,
    }


def write_config(path: Path, data: Path, **run: object) -> Path:
    """Writes `config` as a file."""
    path.write_text(yaml.safe_dump(config(data, **run)))
    return path
