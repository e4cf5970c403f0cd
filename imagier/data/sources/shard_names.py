"""What the members of a shard are called: webdataset's convention, sample and field parted by a dot."""

from __future__ import annotations

from imagier.data.sources.source import wrong_key

INDEX = "index.npz"
SHARD = ".tar"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def shard_name(number: int) -> str:
    """The file name of a shard that we write."""
    return f"shard-{number:06}{SHARD}"


def member_name(key: str, field: str) -> str:
    """A key and a field ("images.jpg") -> `sequence/name.field`.

    A dot in the name would end it (webdataset takes what is before the first dot for the sample), so dots are written
    as %2E, and the per cent sign as %25. Files of the sequence "." have no folder.
    """
    sequence, _, name = key.rpartition("/")
    escaped = name.replace("%", "%25").replace(".", "%2E")
    return f"{escaped}.{field}" if sequence == "." else f"{sequence}/{escaped}.{field}"


def key_and_field(member: str) -> tuple[str, str] | None:
    """The other way; None for what is no part of a sample. ValueError if it lies outside of the archive."""
    while member.startswith("./"):
        member = member[2:]
    folder, _, file = member.rpartition("/")
    name, _, field = file.partition(".")
    key = f"{folder or '.'}/{name.replace('%2E', '.').replace('%25', '%')}"
    if member.startswith("/") or wrong_key([key]) is not None:
        raise ValueError(member)
    return (key, field) if name and field else None
