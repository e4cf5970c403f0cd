"""What the label ops of a data section, in their order, make of its input types."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from imagier.config import schema
from imagier.config.find import did_you_mean
from imagier.config.load import KeyPath, Mistake

ONE_HOT, MOVE, RENAME, CONCAT = "make_one_hot", "move_dont_care", "rename_inputs", "concat_labels"

_KEYS = {ONE_HOT: "one_hot_num_classes", MOVE: "move_dont_care", RENAME: "rename_inputs"}
"""The key that says to which types an op is done, and how."""


@dataclass(frozen=True)
class TransformedType:
    """What becomes of an input type."""

    name: str
    """What it is called in a batch."""
    num_classes: int | None = None
    """It is expanded into one channel for each."""
    dont_care: int | None = None
    """Values from this on become this."""


def list_ops(data: schema.Data) -> list[str]:
    """The ops, in their order."""
    if data.full_data_ops is None:
        return [ONE_HOT, CONCAT]
    return [op.strip() for op in data.full_data_ops.split(",") if op.strip()]


def apply_ops(data: schema.Data) -> dict[str, TransformedType]:
    """What becomes of each input type."""
    return _Names.apply(data).types


def choose_codec(data: schema.Data, name: str) -> str:
    """The name of the codec of an input type: its `type`, or what follows from the other keys."""
    options = {name: options for entry in data.input_types for name, options in entry.items()}[name]
    if options.type is not None:
        return options.type
    if name in data.keypoint_data_types:
        return "keypoints"
    if apply_ops(data)[name].num_classes is not None:
        return "class_map"
    return "mask" if options.is_mask else "image"


def check_ops(data: schema.Data) -> Iterator[Mistake]:
    """The ops that cannot be done: where in the section, and what is wrong."""
    yield from _Names.apply(data).wrong
    for op, key in _KEYS.items():
        wanted = {ONE_HOT: data.one_hot_num_classes, MOVE: data.move_dont_care, RENAME: data.rename_inputs}[op]
        key = key if key != op else "the key of that name"
        if op in list_ops(data) and data.full_data_ops is not None and not wanted:
            yield Mistake(("full_data_ops",), f"{op} needs {key}", code="needs-key")
        if wanted and op not in list_ops(data):
            yield Mistake(("full_data_ops",), f"lacks {op}, without which {key} has no effect", code="missing-op")


@dataclass
class _Names:
    """The names of the input types while the ops are done, one after the other."""

    types: dict[str, TransformedType]
    """By the names in the config."""
    called: dict[str, str]
    """The name in the config of what has this name now."""
    wrong: list[Mistake] = field(default_factory=list)

    @classmethod
    def apply(cls, data: schema.Data) -> _Names:
        """The names after all ops of a section."""
        input_types = [name for entry in data.input_types for name in entry]
        names = cls({name: TransformedType(name) for name in input_types}, {name: name for name in input_types})
        for op in list_ops(data):
            if op == ONE_HOT:
                for name, number in data.one_hot_num_classes.items():
                    names.expand(name, number)
            elif op == MOVE:
                for name, number in data.move_dont_care.items():
                    names.move(name, number)
            elif op == RENAME:
                for new, old in data.rename_inputs.items():
                    names.rename(new, old)
            elif op == CONCAT:
                names.check(data.input_labels)
                names.called = {
                    name: input_type for name, input_type in names.called.items() if name not in data.input_labels
                }
        if CONCAT not in list_ops(data):
            names.check(data.input_labels)
        return names

    def check(self, labels: list[str]) -> None:
        """Notes labels that are not there."""
        for index, name in enumerate(labels):
            if name not in self.called:
                self.wrong.append(self.unknown(("input_labels", index), name))

    def expand(self, name: str, number: int) -> None:
        """Gives a channel to each of so many classes."""
        input_type = self.find(name, (_KEYS[ONE_HOT], name))
        if input_type is not None:
            self.types[input_type] = replace(self.types[input_type], num_classes=number)

    def move(self, name: str, number: int) -> None:
        """Makes don't-care what is from a number on."""
        input_type = self.find(name, (_KEYS[MOVE], name))
        if input_type is None:
            return
        if self.types[input_type].num_classes is not None:
            message = f"{MOVE} must come before {ONE_HOT}, which makes channels of {name}"
            self.wrong.append(Mistake(("full_data_ops",), message, code="wrong-order"))
        self.types[input_type] = replace(self.types[input_type], dont_care=number)

    def rename(self, new: str, old: str) -> None:
        """Calls one by another name."""
        input_type = self.find(old, (_KEYS[RENAME], new))
        if input_type is None:
            return
        if new in self.called:
            what = "is the name of another input type"
            self.wrong.append(Mistake((_KEYS[RENAME], new), what, code="name-taken"))
        else:
            self.called[new] = self.called.pop(old)
            self.types[input_type] = replace(self.types[input_type], name=new)

    def find(self, name: str, key_path: KeyPath) -> str | None:
        """What is called so now; noted at a place if nothing is."""
        if name not in self.called:
            self.wrong.append(self.unknown(key_path, name))
        return self.called.get(name)

    def unknown(self, key_path: KeyPath, name: str) -> Mistake:
        """Says that no input type has this name at a place."""
        if name in {one.name for one in self.types.values()}:
            advice = f"put {CONCAT} at the end of full_data_ops"
            return Mistake(key_path, f"{name} is part of the label by then", advice, "wrong-order")
        return Mistake(key_path, f"no input type {name!r}", did_you_mean(name, list(self.called)), "unknown-input-type")
