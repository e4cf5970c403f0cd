import os
import pathlib
import sys
from collections.abc import Iterator

import pytest

# Before torch is imported, and for the processes that tests start: tests are small, and threads that wait for each
# other make them many times slower on a machine with other work.
os.environ.setdefault("OMP_NUM_THREADS", "1")

for folder in (".", "train"):
    sys.path.insert(0, str(pathlib.Path(__file__).parent / folder))


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data are read by the process itself where a config does not say otherwise: starting others takes time."""
    monkeypatch.setattr("imagier.run.workers.count_cores", lambda: 1)


@pytest.fixture(autouse=True)
def forget_user_modules() -> Iterator[None]:
    """Tests write packages of a user, all called `my_lab`: none must find another one's."""
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is written to the cache of who runs the tests."""
    monkeypatch.setenv("IMAGIER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
