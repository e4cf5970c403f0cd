"""The reference of all keys, docs/keys.md, as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from imagier.config import schema
from imagier.config.describe import OPTIMIZER_SECTION, Key, describe_section, list_sections
from imagier.config.find import ROOMS, find, list_types

_HEAD = """\
# Keys of a config

`make reference` makes this page from the code. `imagier explain gen.style_dims` shows one key, and with
`--config FILE` also its value there. `imagier schema` prints the same as a JSON Schema, for editors.

* `PLAYER_opt` stands for `gen_opt` and `dis_opt`, SPLIT for `train`, `val` and `test`, NAME for any name, and N for a
  place in a list.
* A key without types in brackets is read by all.
* A key that several types read in different ways comes once for each.
* A class of your own, named by a dotted path, has the keys of its constructor ([extending.md](extending.md)).
"""

_TITLES = {
    "": ("Run", "Keys outside of sections: how long a run lasts, what it writes, and when."),
    "trainer": ("trainer", "The method, and what all trainings have in common. Brackets name methods."),
    "gen": ("gen", "The generator. Brackets name its `type`."),
    "dis": ("dis", "The discriminator. Brackets name its `type`."),
    OPTIMIZER_SECTION: (
        OPTIMIZER_SECTION,
        "How the weights of a player are updated. The optimizers of `torch.optim` have the arguments that\n"
        "[its documentation](https://docs.pytorch.org/docs/stable/optim.html) describes, also in\n"
        "`imagier explain gen_opt`.",
    ),
    "data": ("data", "The files, and how they form samples. Brackets name types of data sets."),
    "metrics": ("metrics", "Entries of the list `metrics`. Brackets name their `type`."),
    "inference_args": (
        "inference_args",
        "How images are made for people, as by `imagier infer`. Brackets name methods.",
    ),
}


def render_page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for section in list_sections():
        title, text = _TITLES.get(section, (section, f"The network of the player {section}."))
        parts.append(f"## {title}\n\n{text}\n\n" + "".join(_render_key(key) for key in _list_keys(section)))
    return "\n".join(parts)


def _list_keys(section: str) -> Iterator[Key]:
    """The keys of a section but those of torch's own classes, which change with its version."""
    torch_types = _list_torch_types() if section == OPTIMIZER_SECTION else ()
    for key in describe_section(section):
        if not key.readers or not set(key.readers) <= set(torch_types):
            yield key


def _list_torch_types() -> Sequence[str]:
    own = ROOMS["optimizers"][0]
    return [name for name in list_types(schema.OPTIMIZER) if find(schema.OPTIMIZER, name).__module__ != own]


def _render_key(key: Key) -> str:
    """One entry: the key, its type, range, unit and default in a line, and its description."""
    facts = [f"{key.type}, {key.range}" if key.range else key.type]
    if key.unit:
        facts.append(key.unit)
    if key.is_required:
        facts.append("required")
    elif key.default:
        facts.append(f"default `{key.default}`")
    readers = f" [{', '.join(key.readers)}]" if key.readers else ""
    return _fill(f"* `{key.name}`{readers}: {'; '.join(facts)}.") + _fill(f"  {key.description}")


def _fill(text: str) -> str:
    """Lines of at most 120 characters, indented as the text of an entry."""
    return textwrap.fill(text, 120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False) + "\n"
