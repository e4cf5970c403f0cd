"""Weight files: find them in torch's cache or fetch them, read them without running code, fit them to a network."""

from __future__ import annotations

import hashlib
import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from filelock import FileLock
from torch import Tensor, nn

from imagier.errors import UserError

PUBLIC_URL = "https://download.pytorch.org/models/"


def find_cached_file(names: Sequence[str], page: str | None = None, option: str = "weights_path") -> Path:
    """The first of the files `names` that lies in torch's cache (`$TORCH_HOME/hub/checkpoints`).

    If there is none, the first name is downloaded from PyTorch's server, unless `page` says that the file has to be
    fetched by hand, and where. option: the key that can name the file instead. UserError if the file cannot be had.
    """
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for name in names:
        if (folder / name).is_file():
            return folder / name
    missing = f"weight file {names[0]} is not in {folder}"
    if page is not None:
        advice = f"get it from {page} and put it there, or set {option} to it"
        raise UserError(missing, advice=advice, code="no-weight-file")
    try:
        return _download(names[0], folder)
    except (OSError, RuntimeError) as error:  # no network, no space, no permission; or the checksum is wrong
        raise UserError(
            f"{missing} and cannot be fetched ({_first_line(error)})",
            advice=f"download {PUBLIC_URL}{names[0]} into that folder, or set {option} to a copy",
            code="download-failed",
        ) from error


def read_weights(path: Path, option: str = "weights_path") -> Mapping[str, Tensor]:
    """Read a .safetensors file, or else a file of `torch.save`, onto the CPU: key -> tensor.

    The state dict may be nested under the key `model` or `state_dict`, as in training checkpoints. Pickled objects
    other than tensors are refused, never run. option: the key that may have named the file. UserError if the file is
    missing, damaged or holds something else.
    """
    if not path.is_file():
        raise UserError(
            f"no file {path}",
            where=option,
            advice="give the path of a .pth, .pt or .safetensors file",
            code="no-weight-file",
        )
    read = _read_safetensors if path.suffix == ".safetensors" else _read_torch
    state = read(path)
    for outer in ("model", "state_dict"):
        if isinstance(state, dict) and outer in state:
            state = state[outer]
    if not isinstance(state, dict):
        raise UserError(
            "holds no state dict (names and tensors)",
            where=path,
            advice="save the network's state_dict() in it",
            code="no-state-dict",
        )
    return state


def find_own_weights(path: str | None, name: str, page: str, option: str) -> Path:
    """The file that a metric has beside those of its network: the given one, or `name` in torch's cache.

    page: where people get it. option: the key of `path`. UserError: it is not in the cache.
    """
    return find_cached_file([name], page, option) if path is None else Path(path).expanduser()


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    sha256 = hashlib.sha256()
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            sha256.update(data)
    return sha256.hexdigest()


def fit_weights(
    module: nn.Module, weights: Mapping[str, Tensor], *, file_key: Callable[[str], str], source: str
) -> None:
    """Give `module`, which may be on the meta device, copies of its tensors out of `weights`; the rest is not read.

    A tensor is looked for as `file_key(key)`, then as `key`. UserError naming `source` and the first tensor that is
    missing or has another shape.
    """
    fitted = {}
    for key, wanted in module.state_dict().items():
        name = key if key in weights else file_key(key)
        found = weights.get(name)
        if found is None and key.endswith(".num_batches_tracked"):
            found = torch.zeros_like(wanted, device="cpu")  # only training counts; files of before 2018 lack it
        if not isinstance(found, Tensor):
            raise UserError(
                f"has no tensor {name!r}",
                where=source,
                advice="give the weight file of this very network",
                code="missing-tensor",
            )
        if found.shape != wanted.shape:
            raise UserError(
                f"{name!r} has shape {tuple(found.shape)}, expected {tuple(wanted.shape)}",
                where=source,
                advice="give the weight file of this very network",
                code="tensor-shape",
            )
        # A copy, because `weights` may be a mapped file, which must not stay open nor change under us.
        fitted[key] = found.detach().to(wanted.dtype, copy=True)
    module.load_state_dict(fitted, assign=True)


def _download(name: str, folder: Path) -> Path:
    target = folder / name
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):  # the first process of a machine downloads, the others wait and find the file
        if not target.is_file():
            checksum = target.stem.rsplit("-", 1)[1]
            torch.hub.download_url_to_file(
                PUBLIC_URL + name, str(target), hash_prefix=checksum, progress=sys.stderr.isatty()
            )
    return target


def _read_torch(path: Path) -> object:
    try:
        # Only the zip format, that of torch >= 1.6, can be mapped; the oldest torchvision files are not in it.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise UserError(
            "damaged, or holds other objects than tensors, which are not read for safety",
            where=path,
            advice="save only the network's state_dict() in it",
            code="damaged-weights",
        ) from error


def _read_safetensors(path: Path) -> object:
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise UserError(
            "reading it needs safetensors", where=path, advice="pip install safetensors", code="missing-package"
        ) from error
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise UserError(
            f"damaged ({_first_line(error)})", where=path, advice="copy or download it again", code="damaged-weights"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
