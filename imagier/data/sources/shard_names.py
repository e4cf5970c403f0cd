"""Names in tar shards, by webdataset's convention: the first dot of a member's name splits sample and field."""

from __future__ import annotations

from imagier.data.sources.source import find_bad_key, is_metadata

INDEX = "index.npz"
SHARD = ".tar"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def shard_name(number: int) -> str:
    """The file name of a shard that we write."""
    return f"shard-{number:06}{SHARD}"


def member_name(key: str, field: str) -> str:
    """A key and a field ("images.jpg") -> `sequence/name.field`.

    A dot in the name would end it, so dots are written as %2E and percent signs as %25. Files of the sequence "." have
    no folder.
    """
    sequence, _, name = key.rpartition("/")
    escaped = name.replace("%", "%25").replace(".", "%2E")
    return f"{escaped}.{field}" if sequence == "." else f"{sequence}/{escaped}.{field}"


def parse_member(member: str) -> tuple[str, str] | None:
    """The key and the field of a member; None if it is not part of a sample. ValueError if its name is unsafe.

    Not part of a sample are files that a system adds, such as "._a.jpg" of macOS's tar.
    """
    while member.startswith("./"):
        member = member[2:]
    if is_metadata(member):
        return None
    folder, _, file = member.rpartition("/")
    name, _, field = file.partition(".")
    key = f"{folder or '.'}/{name.replace('%2E', '.').replace('%25', '%')}"
    if member.startswith("/") or find_bad_key([key]) is not None:
        raise ValueError(member)
    return (key, field) if name and field else None
