"""Smaller ONNX files: weights of 16 bits, or weights and features of 8 bits."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

QUANTIZED = ("Conv", "Gemm", "MatMul")
"""The operators whose weights and inputs get 8 bits; norms need more."""


def write_fp16(source: Path, target: Path) -> None:
    """A copy of an ONNX file that computes in float16; inputs and outputs stay float32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = convert_float_to_float16(onnx.load(source), keep_io_types=True, disable_shape_infer=True)
    onnx.save(model, target)


def write_int8(source: Path, target: Path, samples: Sequence[Mapping[str, Tensor]]) -> None:
    """A copy of an ONNX file that computes convolutions and linear layers in int8, each channel with its own scale.

    samples: inputs by which the ranges of features are found; of one image each.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        """Hands out the samples, one at a time."""

        def __init__(self) -> None:
            self.rows: Iterator[Mapping[str, Tensor]] = iter(samples)

        def get_next(self) -> dict[str, np.ndarray] | None:
            row = next(self.rows, None)
            return None if row is None else {name: x.numpy() for name, x in row.items()}

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # advice about preprocessing goes to the root logger
    try:
        quantize_static(
            source,
            target,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    finally:
        root.setLevel(level)
