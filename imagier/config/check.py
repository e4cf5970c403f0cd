"""A document against the schema: every key known, every type right, all errors at once."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from imagier.config import messages, schema
from imagier.config.constructor import adapter, constructor_model, hints_of, list_options, list_parameters
from imagier.config.find import Kind, did_you_mean, find
from imagier.config.load import ConfigError, Document, KeyPath, Mistake, dump, join_keys
from imagier.config.lookup import class_at
from imagier.config.own_keys import SECTIONS, OwnKeyFinder, OwnKeys, hide_inherited_keys, put_own_keys
from imagier.config.rules.data import check_run
from imagier.config.rules.method import check_method, check_normalized, check_optimizer, check_players
from imagier.errors import UserError

DATA_FACTS = (
    *("label_channels", "label_lengths", "one_hot", "normalized", "image_channels", "crop_h_w", "style_classes"),
    *("num_references", "open_pretrained"),
)
"""Arguments of networks and recipes that a config cannot give: only the data can know them, or the run gives them."""

Facts = Callable[[Any], Mapping[str, str]]
"""A class -> the arguments of its constructor that a config cannot give, and why."""

_FACTS_OF_DATA = dict.fromkeys(DATA_FACTS, "comes from the data section") | {"open_pretrained": "is given by the run"}
KEEP_SIZE = "keep_original_size"
"""The argument of inference that every method takes: images get the size of their inputs."""

_DEFAULT_PLAYERS = ("gen", "dis")
_ABSENT = object()


@dataclass(frozen=True)
class Component:
    """A class that a section names, and what the section says to it."""

    type: str
    cls: Any
    options: dict[str, Any]
    """The arguments of its constructor."""
    shared: Any = None
    """The keys that all of its kind have, as an object of `Kind.beside`; those that name components are Components."""

    def build(self, **facts: Any) -> Any:
        """An object of the class. Of `facts`, it gets those that its constructor asks for."""
        wanted = inspect.signature(self.cls).parameters
        return self.cls(**{**self.options, **{name: value for name, value in facts.items() if name in wanted}})


@dataclass(frozen=True)
class Config:
    """A whole experiment, checked."""

    run: schema.Run
    recipe: Component
    players: dict[str, Component]
    """The networks, in the order of `Recipe.players`."""
    optimizers: dict[str, Component]
    """The optimizer of each player, whose `shared` is a `schema.Optimizer`."""

    @property
    def trainer(self) -> schema.Trainer:
        """The keys of the section `trainer` that all methods have."""
        return self.recipe.shared

    @property
    def generator(self) -> str:
        """The name of the player that makes the images: the first."""
        return next(iter(self.players))

    def to_dict(self) -> dict[str, Any]:
        """The config with all defaults filled in, as a mapping that loads to the same config."""
        optimizers = {_optimizer_section(name): one for name, one in self.optimizers.items()}
        return _plain({**_plain(hide_inherited_keys(self.run)), **optimizers, "trainer": self.recipe, **self.players})

    def dump(self) -> str:
        """`to_dict` as YAML."""
        return self._text

    @cached_property
    def _text(self) -> str:
        return dump(self.to_dict())


def _refuse_numbers(document: Document) -> None:
    """Notes the numbers that are not finite: nothing can be trained with them."""
    for key_path, value in list(document.walk()):
        if isinstance(value, float) and not math.isfinite(value):
            document.refused.append(Mistake(key_path, f"must be a finite number, got {value}", code="not-finite"))


def check(document: Document) -> Config:
    """The config that a document describes.

    ConfigError with all that is wrong with it. Mistakes between method and data are looked for only if there are no
    others.
    """
    _refuse_numbers(document)
    checker = _Checker(document, list(document.refused))
    config = checker.check_config()
    if config is None or checker.mistakes:
        raise ConfigError(checker.errors())
    checker.mistakes += _mistakes_of_the_method(config)
    if checker.mistakes:
        raise ConfigError(checker.errors())
    return config


def _mistakes_of_the_method(config: Config) -> Iterable[Mistake]:
    """What does not fit between a method, its networks and its data."""
    recipe, cls = config.recipe, config.recipe.cls
    networks = {name: network.options for name, network in config.players.items()}
    yield from check_method(config.run.data, recipe.type, cls.required_inputs, cls.is_video, networks)
    yield from _check_ranges(config)
    options = list_options(cls.infer)
    if options is None:
        return
    known = list(dict.fromkeys([*options, KEEP_SIZE]))
    for name in config.run.inference_args.keys() - known:
        what = f"{cls.__name__} has no such argument"
        yield Mistake(("inference_args", name), what, did_you_mean(name, known), "unknown-key")


def _check_ranges(config: Config) -> Iterable[Mistake]:
    """Images that the recipe compares with its own, in another range than these."""
    data, test_data, compared = config.run.data, config.run.test_data, config.recipe.cls.normalized_inputs
    yield from check_normalized(data, config.recipe.type, compared, ("data",))
    if data.val is not None and data.val.input_types is not None:
        own = dataclasses.replace(data, input_types=data.val.input_types)
        yield from check_normalized(own, config.recipe.type, compared, ("data", "val"))
    if test_data is not None:
        yield from check_normalized(test_data, config.recipe.type, compared, ("test_data",))


def check_options(cls: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a constructor, some of which are given as by a config. UserError: the first mistake in them."""
    model = constructor_model(cls, None)
    try:
        checked = adapter(model).validate_json(json.dumps(options))
    except ValidationError as error:
        key_path, what, advice, code = messages.mistakes(error, options, model)[0]
        raise UserError(what, where=join_keys(key_path), advice=advice, code=code) from error
    return {f.name: getattr(checked, f.name) for f in dataclasses.fields(checked)}


@dataclass
class _Checker:
    """Checks the sections of a document, and collects all mistakes."""

    document: Document
    mistakes: list[Mistake]

    def check_config(self) -> Config | None:
        """The config, before the rules between method and data; None if a section does not fit."""
        recipe = self.check_component(schema.RECIPE, ("trainer",), _facts_of_recipe)
        names = self._find_players()
        players = {
            name: self.check_component(schema.player(name), (name,), lambda cls: _FACTS_OF_DATA) for name in names
        }
        optimizers = {name: self._check_optimizer(_optimizer_section(name)) for name in names}
        run = self._check_run(names)
        if recipe is not None:
            shared = {_optimizer_section(name): one.shared for name, one in optimizers.items() if one is not None}
            self.mistakes += check_players(names, shared, recipe.shared)
        if run is None or recipe is None or None in (*players.values(), *optimizers.values()):
            return None
        return Config(run, recipe, typing.cast(Any, players), typing.cast(Any, optimizers))

    def errors(self) -> list[UserError]:
        """The mistakes as errors, in the order of the file; those of the command line first."""
        found: dict[str, tuple[int, UserError]] = {}
        for key_path, what, advice, code in self.mistakes:
            origin = self.document.origin(key_path)
            number = origin.rpartition(":")[2]
            where = f"{origin}: {join_keys(key_path)}" if key_path else origin
            error = UserError(what, where=where, advice=advice, code=code)
            found[str(error)] = (int(number) if number.isdecimal() else 0, error)
        return [error for _, error in sorted(found.values(), key=lambda numbered: numbered[0])]

    def check_component(
        self, kind: Kind, key_path: KeyPath, facts: Facts = lambda cls: {}, value: Any = _ABSENT
    ) -> Component | None:
        """Finds the class that a section names, and checks the section against its constructor.

        facts: why a config cannot give certain arguments of the class. value: the section, if it is not that of the
        document. Without facts, an object is made once, so that the constructor can object to its arguments.
        """
        named = self._find_class(kind, key_path, self.document.get(key_path) if value is _ABSENT else value)
        if named is None:
            return None
        type_name, cls, options = named
        reasons = facts(cls)
        for fact in sorted(reasons.keys() & options.keys() & inspect.signature(cls).parameters.keys()):
            self.mistakes.append(Mistake((*key_path, fact), reasons[fact], "remove it here", "fact"))
            options.pop(fact)
        model = constructor_model(cls, kind.beside, tuple(reasons))
        checked = self.validate(model, key_path, options, ["type"])
        if checked is None:
            return None
        shared = None
        if kind.beside is not None:
            names = [f.name for f in dataclasses.fields(kind.beside) if f.name != "type"]
            shared = kind.beside(type=type_name, **{name: getattr(checked, name) for name in names})
        own = [parameter.name for parameter in list_parameters(cls, tuple(reasons))]
        component = Component(type_name, cls, {name: getattr(checked, name) for name in own}, shared)
        return component if reasons or self._can_build(component, key_path) else None

    def validate(self, model: type, key_path: KeyPath, value: Mapping[str, Any], others: Sequence[str] = ()) -> Any:
        """`value` as an object of a dataclass; None, with the mistakes noted, if it does not fit."""
        parts = self._check_parts(model, key_path, value)
        ready = messages.to_json(value, [model])
        try:
            checked = adapter(model).validate_json(json.dumps(ready))
        except ValidationError as error:
            for mistake in messages.mistakes(error, ready, model, others):
                here = (*key_path, *mistake.key_path)
                if all(here != refused.key_path for refused in self.document.refused):
                    self.mistakes.append(mistake._replace(key_path=here))
            return None
        return dataclasses.replace(checked, **parts)

    def _check_parts(self, model: type, key_path: KeyPath, value: Mapping[str, Any]) -> dict[str, Any]:
        """The components that a section itself names: those of the keys that are marked with a `Section`."""
        parts: dict[str, Any] = {}
        factories: dict[str, Any] = {f.name: f.default_factory for f in dataclasses.fields(model)}
        for name, hint in hints_of(model).items():
            kinds = [mark.kind for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, schema.Section)]
            if not kinds:
                continue
            here: KeyPath = (*key_path, name)
            if typing.get_origin(typing.get_args(hint)[0]) is not list:
                parts[name] = self.check_component(kinds[0], here, value=value.get(name))
                continue
            entries = value[name] if name in value else factories[name]()
            entries = entries if isinstance(entries, list) else []  # which pydantic tells
            sections = [{"type": one} if isinstance(one, str) else one for one in entries]
            parts[name] = [self.check_component(kinds[0], (*here, i), value=one) for i, one in enumerate(sections)]
        return parts

    def _find_class(self, kind: Kind, key_path: KeyPath, section: Any) -> tuple[str, type, dict[str, Any]] | None:
        """The type that a section names, its class, and the other keys of the section."""
        default = kind.default_type
        if not isinstance(section, Mapping | None):
            what = "expected a section" if default else "expected a section with a `type`"
            self.mistakes.append(Mistake(key_path, f"{what}, got {section!r}", code="wrong-type"))
            return None
        options = dict(section or {})
        type_name = options.pop("type", default)
        if type_name is None:
            is_missing = self.document.get(key_path, _ABSENT) is _ABSENT
            what = "missing section" if is_missing else f"missing key 'type' (which {kind.noun}?)"
            self.mistakes.append(Mistake(key_path, what, code="missing-section" if is_missing else "missing-key"))
            return None
        if not isinstance(type_name, str):
            self.mistakes.append(Mistake((*key_path, "type"), f"expected text, got {type_name!r}", code="wrong-type"))
            return None
        try:
            return type_name, find(kind, type_name), options
        except UserError as error:
            self.mistakes.append(Mistake((*key_path, "type"), error.what, error.advice, error.code))
            return None

    def _can_build(self, component: Component, key_path: KeyPath) -> bool:
        """Whether a constructor accepts its arguments together; its UserErrors are noted."""
        try:
            component.build()
        except UserError as error:
            here = (*key_path, *(error.where.split(".") if error.where else ()))
            self.mistakes.append(Mistake(here, error.what, error.advice, error.code))
            return False
        return True

    def _find_players(self) -> list[str]:
        """The names of the recipe's players; if there is no such recipe, of the sections that look like a player's."""
        recipe = class_at(self.document, ("trainer",))
        if recipe is not None:
            return list(recipe.players)
        found = [key for key in self._find_component_sections() if not key.endswith("_opt")]
        is_usual = not found or (not self.document.has(("trainer",)) and set(found) <= set(_DEFAULT_PLAYERS))
        return list(_DEFAULT_PLAYERS) if is_usual else found

    def _find_component_sections(self) -> list[str]:
        """The sections of the document that look like a player's, or its optimizer's."""
        known = {"trainer", *(f.name for f in dataclasses.fields(schema.Run))}
        tree = self.document.tree
        return [
            key
            for key, value in tree.items()
            if key not in known and (str(key).endswith("_opt") or (isinstance(value, Mapping) and "type" in value))
        ]

    def _check_optimizer(self, section: str) -> Component | None:
        """The optimizer of a player, if it can take a step with nothing but dense gradients."""
        weights = {"params": "are the weights of the network"}
        optimizer = self.check_component(schema.OPTIMIZER, (section,), lambda cls: weights)
        if optimizer is not None:
            self.mistakes += check_optimizer(
                optimizer.cls, optimizer.type, section, optimizer.options, self.document.get((section,))
            )
        return optimizer

    def _check_own_keys(self, own: OwnKeys) -> dict[str, Any]:
        """The keys that a section gives to its data set or codec, checked against the constructor."""
        conflict = own.find_conflict()
        if conflict is not None:
            self.mistakes.append(conflict)
            return {}
        model = constructor_model(own.cls, None, (own.first,))
        start = len(self.mistakes)
        checked = self.validate(model, own.key_path, own.given, list(own.shared))
        keys = {} if checked is None else {f.name: getattr(checked, f.name) for f in dataclasses.fields(model)}
        if checked is not None:
            try:
                own.check(keys)
            except UserError as error:
                here = (*own.key_path, *(error.where.split(".") if error.where else ()))
                self.mistakes.append(Mistake(here, error.what, error.advice, error.code))
        found = [mistake._replace(key_path=own.locate(mistake.key_path)) for mistake in self.mistakes[start:]]
        self.mistakes[start:] = found
        return keys

    def _check_run(self, players: Sequence[str]) -> schema.Run | None:
        """The sections that all methods share, with what their rules say; None if they do not fit."""
        sections = ["trainer", *players, *map(_optimizer_section, players)]
        rest = {key: value for key, value in self.document.tree.items() if key not in sections}
        for key in self._find_component_sections():
            if key in sections:
                continue
            rest.pop(key)
            if class_at(self.document, ("trainer",)) is not None:
                advice = f"the recipe {self.document.get(('trainer', 'type'))} trains {' and '.join(players)}"
                self.mistakes.append(Mistake((key,), "unknown key", advice, "unknown-player"))
        finder = OwnKeyFinder()
        rest |= {section: finder.take(section, rest[section]) for section in SECTIONS if section in rest}
        self.mistakes += finder.mistakes
        checked = {own.key_path: (own, self._check_own_keys(own)) for own in finder.found}
        run = self.validate(schema.Run, (), rest, sections)
        if run is None:
            return None
        run = put_own_keys(run, checked)
        metrics = [metric for metric in run.metrics if metric is not None]
        is_whole = len(metrics) == len(run.metrics)
        run = run if is_whole else dataclasses.replace(run, keep_best=None)
        recipe = class_at(self.document, ("trainer",))
        domains = ("",) if recipe is None else recipe.domains
        self.mistakes += check_run(
            run, [[score.name for score in metric.build().list_scores(domains)] for metric in metrics]
        )
        return run if is_whole else None


def _facts_of_recipe(cls: Any) -> dict[str, str]:
    return {**_FACTS_OF_DATA, **dict.fromkeys(cls.players, "is the network of the section of that name")}


def _optimizer_section(player: str) -> str:
    return f"{player}_opt"


def _plain(value: Any) -> Any:
    """Components as sections, dataclasses as mappings, tuples as lists."""
    if isinstance(value, Component):
        return {"type": value.type, **_plain(value.shared or {}), **_plain(value.options)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = [
            f
            for f in dataclasses.fields(value)
            if f.metadata != schema.ONLY_IF_SET or getattr(value, f.name) != f.default
        ]
        plain = {f.name: _plain(getattr(value, f.name)) for f in shown}
        own = plain.pop("own", {})
        return {**plain, **own}
    if isinstance(value, Mapping):
        return {key: _plain(child) for key, child in value.items()}
    return [_plain(child) for child in value] if isinstance(value, list | tuple) else value
