"""Imagier trains image generators."""

__version__ = "0.1.0"
