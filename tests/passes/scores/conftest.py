"""What the tests of scores run models and derivatives with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from irprune.backends.ort.runner import OrtRunner
from irprune.passbase import Context


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    from irprune.backends.torch.gradients import TorchDifferentiator

    with OrtRunner() as runner:
        yield Context(runner=lambda: runner, differentiator=TorchDifferentiator)
