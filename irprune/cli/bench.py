"""`irprune bench`: latency of models on onnxruntime, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from irprune.cli import common
from irprune.cli.format import table
from irprune.errors import CheckFailed
from irprune.frontends.source import CAFFE, Source, is_onnx
from irprune.units import quantity, share


def _options(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    for name, equals, value in pairs:
        if not (name and equals):
            raise click.BadParameter(f"`{name}{equals}{value}` is not of the form K=V", ctx, param)
    return {name: value for name, _, value in pairs}


def _batches(ctx: click.Context, param: click.Parameter, text: str | None) -> tuple[int, ...]:
    parts = text.split(",") if text is not None else []
    if not all(part.isascii() and part.isdecimal() and int(part) for part in parts):
        raise click.BadParameter(f"`{text}` is not of the form 1,8,32", ctx, param)
    return tuple(int(part) for part in parts)


TOP = 10
"""Rows of a profile that the table shows; JSON has all."""


@click.command(cls=common.Command)
@click.argument("models", type=common.FILE, nargs=-1, required=True)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    help="Exactly so many rounds, whatever --precision and --limit say.",
)
@click.option(
    "--precision",
    type=click.FloatRange(0, min_open=True),
    default=0.01,
    show_default=True,
    help="Go on until the 95 % interval of each ratio is narrower than this part of it ...",
)
@click.option(
    "--limit",
    type=click.FloatRange(0, min_open=True),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="... or until the rounds have taken this long.",
)
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=6,
    show_default=True,
    help="Processes that run each model, one after the other; they share the rounds.",
)
@click.option(
    "--warmup",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    help="Untimed runs of each model before the first round.",
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--provider",
    default="cpu",
    show_default=True,
    help="Execution provider: cpu, cuda, tensorrt, or any that this onnxruntime has.",
)
@click.option(
    "--provider-option",
    "provider_options",
    multiple=True,
    callback=_options,
    metavar="K=V",
    help="An option of the provider; repeatable.",
)
@click.option(
    "--batch",
    "batches",
    callback=_batches,
    metavar="N,...",
    help="Batch sizes, one table for each; for models whose batch axis is open.",
)
@click.option("--profile", is_flag=True, help="Show where the time of each model goes.")
@common.source
@common.seed
@common.inputs
@common.common
def bench(
    models: tuple[Path, ...],
    rounds: int | None,
    precision: float,
    limit: float,
    processes: int,
    warmup: int,
    threads: int,
    provider: str,
    provider_options: Mapping[str, str],
    batches: tuple[int, ...],
    profile: bool,
    source: Source,
    seed: int,
    shapes: Mapping[str, tuple[int, ...]],
    feeds: Path | None,
    as_json: bool,
    debug: bool,
) -> None:
    """Measure the latency of MODELS, interleaved, each relative to the first.

    Every model runs in a process of its own: one that crashes is reported, the others still run.
    Exit status 1 if a model failed. Caffe networks and factories are measured as ONNX.
    """
    from irprune import api

    settings = common.settings(seed, shapes, feeds)
    timing = api.BenchSettings(
        rounds=rounds,
        precision=precision,
        limit_s=limit,
        processes=processes,
        warmup=warmup,
        threads=threads,
        provider=provider,
        provider_options=provider_options,
    )
    with TemporaryDirectory() as folder:
        files = _files(models, source, Path(folder), seed, shapes)
        facts = [
            api.bench(files, settings=settings, timing=timing, batch=batch, profile=profile)
            for batch in batches or (None,)
        ]
    for each in facts:
        for row, path in zip(each["models"], models, strict=True):
            row["path"] = str(path)
    text = "\n\n".join(map(_text, facts))
    common.emit(facts[0] if len(facts) == 1 else {"batches": facts}, text, as_json)
    failed = [row for each in facts for row in each["models"] if row["error"]]
    if failed:
        raise CheckFailed(failed[0]["error"], file=failed[0]["path"])


def _files(
    models: tuple[Path, ...],
    source: Source,
    folder: Path,
    seed: int,
    shapes: Mapping[str, tuple[int, ...]],
) -> list[Path]:
    """The ONNX files of all models: those of another kind are written into a folder."""
    caffe = any(path.suffix == CAFFE for path in models)
    files = []
    for number, path in enumerate(models):
        how = source if path.suffix == CAFFE or not caffe else Source()
        how.check(path)
        if is_onnx(path):
            files.append(path)
        else:
            files.append(folder / f"{number}.onnx")
            how.read(path, seed, shapes).save(files[-1])
    return files


def _text(facts: dict[str, Any]) -> str:
    rows = [["model", "median", "95 % interval", "ratio", "95 % interval", "memory", "on disk"]]
    for row in facts["models"]:
        size = quantity(row["disk_bytes"], "B")
        if row["error"]:
            rows.append([row["path"], "failed", "-", "-", "-", "-", size])
            continue
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.3f}"
        memory = "-" if row["memory_bytes"] is None else quantity(row["memory_bytes"], "B")
        rows.append(
            [
                row["path"],
                f"{row['median_s'] * 1e3:.4g} ms",
                _interval(row["interval_s"], 1e3, ".4g"),
                ratio,
                _interval(row["ratio_interval"], 1, ".3f"),
                memory,
                size,
            ]
        )
    head = [] if facts["batch"] is None else [f"batch {facts['batch']}"]
    notes = [f"note: {note}" for note in facts["notes"]]
    for row in facts["models"]:
        notes += [f"note: {row['path']}: {note}" for note in row["notes"]]
    profiles = [_profile(row) for row in facts["models"] if "profile" in row]
    return "\n".join([*head, table(rows, indent=""), *notes, *profiles])


def _profile(row: dict[str, Any]) -> str:
    """The nodes and op types that take most of the time of a model."""
    found = row["profile"]
    total = found["total_s"]
    nodes = [
        [_milliseconds(each), share(each["seconds"], total), each["op"], _origin(each["nodes"])]
        for each in found["nodes"][:TOP]
    ]
    ops = [[_milliseconds(op), share(op["seconds"], total), op["op"]] for op in found["ops"][:TOP]]
    own = share(found["runtime_s"], total)
    lines = [f"\nprofile of {row['path']}: {total * 1e3:.4g} ms in {len(found['nodes'])} nodes"]
    lines += [table(nodes), "by op", table(ops), f"the runtime's own nodes: {own}"]
    return "\n".join(lines)


def _milliseconds(each: dict[str, Any]) -> str:
    return f"{each['seconds'] * 1e3:.4g} ms"


def _origin(nodes: list[str]) -> str:
    return " + ".join(nodes) or "the runtime's own"


def _interval(interval: list[float] | None, scale: float, form: str) -> str:
    return "-" if interval is None else " - ".join(f"{end * scale:{form}}" for end in interval)
