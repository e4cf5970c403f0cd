"""Frozen ImageNet and face networks, for losses and metrics on their features."""

from imagier.nn.backbones.network import FeatureNetwork, feature_network, layer_names, network_names

__all__ = ["FeatureNetwork", "feature_network", "layer_names", "network_names"]
