"""Published numbers of CIFAR-10, for those who have the images and the network of 2015.

    IMAGIER_CIFAR10=folder pytest -m weights tests/metrics/test_cifar10.py

The folder holds `train` (50,000 PNG files) and `test` (10,000). docs/metrics.md says where the network's file goes.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from imagier.errors import UserError
from imagier.metrics.fd import frechet_distance
from imagier.metrics.feature_metric import FeatureSet
from imagier.metrics.features import FeatureExtractor
from imagier.metrics.inception_score import inception_score
from imagier.run.feature_sets import extract_features
from imagier.run.image_sets import open_image_set

pytestmark = [pytest.mark.weights, pytest.mark.slow]


def features(split: str) -> FeatureSet:
    folder = os.environ.get("IMAGIER_CIFAR10")
    if folder is None:
        pytest.skip("IMAGIER_CIFAR10 is not set")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        extractor = FeatureExtractor("inception_fid_tf1", device)
    except UserError as error:
        pytest.skip(str(error))
    return extract_features(open_image_set(Path(folder) / split, "images"), extractor, device, num_threads=4)


@pytest.fixture(scope="module")
def train() -> FeatureSet:
    return features("train")


def test_the_inception_score_of_the_training_images_is_that_of_torch_fidelity(train: FeatureSet) -> None:
    """11.23678 in its README; the parts are drawn otherwise here."""
    assert train.logits is not None
    assert inception_score(train.logits, num_splits=10) == pytest.approx(11.23678, abs=0.03)


def test_the_distance_of_training_and_test_images_is_that_of_the_program_that_defined_it(train: FeatureSet) -> None:
    """3.1508 by TensorFlow's program, 3.1525 by a port of it, as pytorch-image-generation-metrics reports."""
    assert frechet_distance(train.features, features("test").features) == pytest.approx(3.151, abs=0.01)
