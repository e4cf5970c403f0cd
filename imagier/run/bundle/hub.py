"""Bundles on the Hub: uploaded, and fetched to be used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from imagier.errors import UserError

PREFIX = "hub:"
"""How the name of a bundle on the Hub begins where a checkpoint can be named: hub:USER/NAME."""

PUSHED = ("README.md", "bundle.json", "config.yaml", "CREDITS.txt", "generator.*", "samples/*")
"""All files of a bundle; others in its folder are its owner's."""

_FETCHED = ("generator.safetensors", "config.yaml", "bundle.json")


def find_local(name: str | Path) -> Path:
    """A path as it is, or the weights of the bundle hub:USER/NAME, which are fetched. UserError as of `fetch`."""
    return fetch(str(name)) if str(name).startswith(PREFIX) else Path(name)


def push(folder: Path, name: str) -> str:
    """Uploads the bundle in a folder as USER/NAME, which is made if it is not there; returns its address.

    UserError if the library or the token is missing, or if the Hub refuses it.
    """
    hub = check_can_push(name)
    with _explain(name, "upload", f"it stays in {folder}; see what the Hub wants, then run: hf upload {name} {folder}"):
        address = hub.create_repo(name, exist_ok=True)
        hub.upload_folder(
            repo_id=name, folder_path=folder, allow_patterns=list(PUSHED), commit_message="Export by Imagier"
        )
    return str(address)


def check_can_push(name: str) -> ModuleType:
    """The library, if it and a token are there. UserError otherwise, or if the name is not USER/NAME."""
    hub = _import()
    _check_name(name)
    if hub.get_token() is None:
        advice = "log in with `hf auth login`, or set the environment variable HF_TOKEN"
        raise UserError("there is no token for the Hub", where="push", advice=advice, code="no-token")
    return hub


def fetch(name: str) -> Path:
    """The weights of the bundle hub:USER/NAME, beside its config; downloaded once. UserError if they cannot be had."""
    plain = name.removeprefix(PREFIX)
    hub = _import()
    _check_name(plain)
    with _explain(plain, "download", "see whether the name, the token and the network are right"):
        folder = Path(hub.snapshot_download(plain, allow_patterns=list(_FETCHED)))
    weights = folder / _FETCHED[0]
    if not weights.is_file():
        what, advice = f"holds no {_FETCHED[0]}", "export it with the format safetensors"
        raise UserError(what, where=name, advice=advice, code="no-bundle")
    return weights


def _import() -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        what, advice = "the package huggingface_hub is not installed", "run: pip install 'imagier[hub]'"
        raise UserError(what, advice=advice, code="not-installed") from error
    return huggingface_hub


def _check_name(name: str) -> None:
    user, _, rest = name.partition("/")
    if not user or not rest or "/" in rest:
        raise UserError("is no name on the Hub", where=name, advice="expected USER/NAME", code="wrong-name")


@contextmanager
def _explain(name: str, what: str, advice: str) -> Iterator[None]:
    """Turns what the library raises, of the network or of the Hub, into one line."""
    from huggingface_hub import errors

    try:
        yield
    except (OSError, ValueError, errors.HTTPError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"{what} failed ({reason[:200]})", where=name, advice=advice, code="hub-failed") from error
