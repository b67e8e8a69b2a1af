"""What the tests of iterative pruning share: a network, a data set, and a finished run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from iterate_runs import net, of, run
from torch import nn

from irprune import Model


@pytest.fixture(scope="session")
def model() -> Model:
    return of(net())


@pytest.fixture(scope="session")
def wider() -> Model:
    return of(nn.Sequential(nn.Flatten(), nn.Linear(36, 40), nn.Tanh(), nn.Linear(40, 3)))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 160)
    x = random.normal(size=(160, 1, 6, 6)) + y[:, None, None, None] / 2
    x = x.astype(np.float32)
    path = tmp_path_factory.mktemp("data") / "d.npz"
    np.savez(path, x_train=x[:100], y_train=y[:100], x_test=x[100:], y_test=y[100:])
    return path


@pytest.fixture
def other(tmp_path: Path, data: Path) -> Path:
    """A data set of the same shapes, with one other label."""
    arrays = dict(np.load(data))
    arrays["y_train"][0] = (arrays["y_train"][0] + 1) % 3
    path = tmp_path / "other.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, model: Model, data: Path) -> Path:
    """The folder of a run of two rounds; not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(folder, model, data)
    return folder


@pytest.fixture
def done(tmp_path: Path, finished: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
