"""Where what torch computes is tested: here, and on a GPU where there is one."""

from __future__ import annotations

import pytest

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
