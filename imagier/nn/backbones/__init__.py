"""Frozen ImageNet and face networks whose inner features serve losses and metrics."""

from imagier.nn.backbones.network import FeatureNetwork, feature_network, layer_names, network_names

__all__ = ["FeatureNetwork", "feature_network", "layer_names", "network_names"]
