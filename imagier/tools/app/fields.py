"""What a person gives to a generator: files of some input types, paintings, values of arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, get_type_hints

from imagier.config.check import KEEP_SIZE
from imagier.config.constructor import alternatives
from imagier.config.descriptions import describe_options
from imagier.data.codec import Codec
from imagier.recipe import InferenceInputs
from imagier.run import build_data
from imagier.run.inference import collect_arguments
from imagier.run.options import STYLE_SEED
from imagier.run.trained_generator import TrainedGenerator

_OURS = ("seed", KEEP_SIZE, "random_style", "use_fixed_random_style")
"""Arguments of `infer` that a page gives in another way: by a seed, by an image of a style or none."""


class Way(Enum):
    """How an input is given."""

    CLASSES = auto()
    """Painted in the colors of classes."""
    GRAYS = auto()
    """Drawn in gray."""
    IMAGE = auto()
    """An image that a browser shows."""
    FILE = auto()
    """A file of another kind, or one that shows nothing to the eye."""


@dataclass(frozen=True)
class Field:
    """An input type that a generator reads."""

    codec: Codec
    way: Way

    @property
    def name(self) -> str:
        """That of the input type."""
        return self.codec.name


@dataclass(frozen=True)
class Setting:
    """An argument of the method's `infer` that a person can set: yes or no, or a number."""

    name: str
    kind: type
    """bool, int or float."""
    value: Any
    """That of the config, or else the default."""
    text: str
    """What it is for."""


@dataclass(frozen=True)
class Needs:
    """What a method reads with some values of its settings: input types by name."""

    content: Sequence[str]
    style: str | None
    is_style_aligned: bool
    has_random_style: bool
    references: Sequence[str]
    from_images: Mapping[str, Any]
    """Arguments that take the style from its image."""

    @property
    def types(self) -> list[str]:
        """Those of a sample, each once."""
        return [*self.content, *([self.style] if self.style is not None and self.style not in self.content else [])]

    def describe(self, name: str) -> str:
        """What the input of a type is called on the page."""
        if name in self.content:
            return name
        if self.is_style_aligned:
            what, random = "an image of the same scene, to take its looks", "without one, they are random"
        else:
            what, random = "an image to take the style of", "without one, it is random"
        return f"{name}: {what}{f'; {random}' if self.has_random_style else ''}"


class Form:
    """The inputs and the settings of a trained generator."""

    def __init__(self, generator: TrainedGenerator) -> None:
        self.generator = generator
        recipe = generator.recipe
        self.is_video = recipe.is_video
        self._given = collect_arguments(recipe, generator.config, STYLE_SEED)
        inputs = recipe.inference_inputs(**self._given)
        hidden = {*_OURS, *inputs.from_images, *(inputs.at_random or {})}
        self.settings = [each for each in _list_settings(recipe.infer, self._given) if each.name not in hidden]
        codecs = build_data.build_codecs(generator.reader.data)
        labels = generator.reader.find_types(["label"])
        first = self.find_needs({}).content
        fields = [
            Field(codec, _choose_way(codec, is_label=codec.name in labels, is_video=self.is_video))
            for codec in codecs
            if codec.name in self._list_types()
        ]
        self.fields = sorted(fields, key=lambda field: field.name not in first)
        """All that the method reads with any of the settings, what becomes an image first."""

    def find_needs(self, settings: Mapping[str, Any]) -> Needs:
        """What the method reads with some values of its settings."""
        inputs: InferenceInputs = self.generator.recipe.inference_inputs(**{**self._given, **settings})
        find_types = self.generator.reader.find_types
        style = find_types([inputs.style]) if inputs.style is not None else []
        return Needs(
            content=find_types(inputs.content),
            style=style[0] if style else None,
            is_style_aligned=inputs.is_style_aligned,
            has_random_style=inputs.at_random is not None,
            references=find_types(inputs.references),
            from_images=inputs.from_images,
        )

    def _list_types(self) -> set[str]:
        defaults = {setting.name: setting.value for setting in self.settings}
        turned = [{setting.name: not setting.value} for setting in self.settings if setting.kind is bool]
        needs = [self.find_needs({**defaults, **change}) for change in ({}, *turned)]
        return {name for each in needs for name in (*each.types, *each.references)}


def _list_settings(infer: Callable[..., Any], given: Mapping[str, Any]) -> list[Setting]:
    hints, texts = get_type_hints(infer), describe_options(infer)
    found = []
    for parameter in inspect.signature(infer).parameters.values():
        kinds = [kind for kind in (bool, int, float) if [*alternatives(hints.get(parameter.name))] == [kind]]
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and kinds:
            value = given.get(parameter.name, parameter.default)
            found.append(Setting(parameter.name, kinds[0], value, texts.get(parameter.name, "")))
    return found


def _choose_way(codec: Codec, *, is_label: bool, is_video: bool) -> Way:
    if codec.holds_classes:
        return Way.FILE if is_video else Way.CLASSES
    if codec.holds_ids or not codec.has_pixels or is_video:
        return Way.FILE
    return Way.GRAYS if is_label and codec.input_type.num_channels == 1 else Way.IMAGE
