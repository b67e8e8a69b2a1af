"""Devices by name: measured ones, and analytic ones for what is not at hand."""

from __future__ import annotations

from irprune.backends.analytic import device as analytic
from irprune.backends.ort.device import CpuDevice
from irprune.errors import IrpruneError
from irprune.protocols import DeviceModel

MEASURED = ("cpu", "cuda", "tensorrt")


def find(name: str) -> DeviceModel:
    """Return a device: ``auto`` (the CPU), ``cpu:2`` (with two threads), ``tpu-v2``, ...

    Raises IrpruneError for a name that means nothing.
    """
    if name == "auto":
        return CpuDevice()
    found = analytic.parse(name)
    if found is not None:
        return found
    kind = name.partition(":")[0]
    if kind in MEASURED or kind.endswith("ExecutionProvider"):
        return CpuDevice.parse(name)
    known = ", ".join(("auto", *MEASURED, *analytic.KINDS))
    raise IrpruneError(f"there is no device {name}", mend=f"one of {known}, or a provider's name")
