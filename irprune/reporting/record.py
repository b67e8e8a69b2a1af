"""What a report tells beyond costs: widths of the coupled groups, their layers, the environment."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from irprune.analyses import ChannelClasses, Groups
from irprune.channels import Site
from irprune.coarse import layers_of
from irprune.groups import Group
from irprune.host import cpu
from irprune.pipeline.language import parse
from irprune.pipeline.options import resolve
from irprune.plan import Plan, first_row
from irprune.queries import describe

if TYPE_CHECKING:
    from irprune.model import Model
    from irprune.passbase import Context

PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu")


def structure(base: Model, plan: Plan, context: Context) -> dict[str, Any]:
    """The coupled groups of a base with their widths before and after, and the layers they tie.

    The classes are those that the last pass of the run that selects channels has looked at.
    """
    options = _options([row["pass"] for row in context.report.get("passes", [])])
    groups = context.get(Groups(**options), base)
    channels = context.get(ChannelClasses(**options), base)
    return {
        "groups": [_group(group, plan) for group in groups],
        "layers": [asdict(layer) for layer in layers_of(channels, groups)],
    }


def _options(passes: Sequence[str]) -> dict[str, Any]:
    """Return the options of the analysis that the last selecting pass used."""
    selecting = [p for p in resolve(parse(", ".join(passes))) if hasattr(p, "heads")]
    if not selecting:
        return {}
    last = selecting[-1]
    return {name: getattr(last, name) for name in ("heads", "allow", "tie") if hasattr(last, name)}


def _group(group: Group, plan: Plan) -> dict[str, Any]:
    site = group.producers[0]
    member = np.isin(site.classes, group.classes).reshape(-1, site.classes.shape[-1])[0]
    kept = plan.axes.get(site.value.name or "", {}).get(site.axis)
    after = member if kept is None else member & first_row(kept)
    return {
        "name": group.name,
        "before": int(member.sum()),
        "after": int(after.sum()),
        "balanced": group.rows,
        "producers": [_axis(site) for site in group.producers],
    }


def _axis(site: Site) -> dict[str, Any]:
    return {"tensor": site.value.name, "axis": site.axis, "node": describe(site.node)}


def environment() -> dict[str, Any]:
    """The machine and the versions that a run saw."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "packages": {name: found for name in PACKAGES if (found := _version(name)) is not None},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
