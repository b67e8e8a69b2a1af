"""Settings and fixtures that every test shares.

Property tests draw the same examples on every run; `--hypothesis-profile=thorough` draws more,
and others each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from irprune.cache import VARIABLE

settings.register_profile(
    "irprune",
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "thorough", settings.get_profile("irprune"), max_examples=400, derandomize=False
)
settings.load_profile("irprune")


def _shared_folder() -> Path:
    default = Path(__file__).resolve().parents[2] / "shared"
    return Path(os.environ.get("IRPRUNE_SHARED", default))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what was measured on this machine before out of the tests, and theirs out of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(tmp_path_factory.mktemp("cache")))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests with the markers `shared` and `gpu`, visibly, where these are absent."""
    folder = _shared_folder()
    _skip_without(
        items, "shared", folder.is_dir, f"no shared models at {folder}; set IRPRUNE_SHARED"
    )
    _skip_without(items, "gpu", _has_cuda, "no CUDA device")


def _skip_without(
    items: list[pytest.Item], marker: str, is_there: Callable[[], bool], reason: str
) -> None:
    marked = [item for item in items if item.get_closest_marker(marker) is not None]
    if marked and not is_there():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared models and data; for tests with the marker `shared`."""
    return _shared_folder()
