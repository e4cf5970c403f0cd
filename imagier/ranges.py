"""Types of numbers in a limited range, for the arguments of constructors: a config with others is refused."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError


def _check_odd(value: int) -> int:
    if value % 2 == 0:
        raise PydanticCustomError("odd", "must be odd")
    return value


ODD = AfterValidator(_check_odd)
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Odd = Annotated[int, Field(gt=0), ODD]
"""The side of a kernel that has a middle."""
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
"""The weight of the past in a running mean."""
Several = Annotated[int, Field(ge=2)]
