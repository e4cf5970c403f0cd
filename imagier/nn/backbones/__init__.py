"""Frozen ImageNet and face networks, for losses and metrics on their features."""

from imagier.nn.backbones.network import FeatureNetwork, build_feature_network, list_layers, list_networks

__all__ = ["FeatureNetwork", "build_feature_network", "list_layers", "list_networks"]
