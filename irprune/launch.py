"""The processes that train together, as torchrun starts them: how many, and which one writes."""

from __future__ import annotations

import os

from irprune.errors import IrpruneError
from irprune.recipe import Machine


def check_processes(machine: Machine) -> None:
    """Raise IrpruneError unless there are as many processes as devices."""
    launched = "TORCHELASTIC_RUN_ID" in os.environ
    started = int(os.environ.get("WORLD_SIZE", 1)) if launched else 1
    devices = machine.devices
    if started == devices:
        return
    start = f"with torchrun --nproc-per-node {devices}" if devices > 1 else "without torchrun"
    reason = f"devices = {devices} needs as many processes, and there are {started}"
    mend = f"start {start}, or set devices = {started}"
    raise IrpruneError(reason, node="machine.devices", mend=mend)


def leads(machine: Machine) -> bool:
    """Return whether this process is the one, of all that train together, that writes files."""
    return machine.devices == 1 or os.environ.get("RANK", "0") == "0"
