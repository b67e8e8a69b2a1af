"""The library: what the CLI is a thin layer over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from irprune import __version__, report
from irprune.cost import Cost
from irprune.errors import CheckFailed, IrpruneError
from irprune.fingerprint import structure_hash
from irprune.frontends.onnx import load
from irprune.inexact import passed
from irprune.model import Model
from irprune.passbase import Context, Pass
from irprune.pipeline.evidence import prove_run, require_runner
from irprune.pipeline.language import parse
from irprune.pipeline.manager import METADATA_KEY, Hooks, run_passes
from irprune.pipeline.options import resolve
from irprune.pipeline.registry import load_pass
from irprune.plan import Plan
from irprune.proof.feeds import Sizes, check_batch, input_shapes, make_feeds
from irprune.protocols import USUAL_BENCH, BenchSettings
from irprune.shapes import infer

if TYPE_CHECKING:
    import numpy as np

    from irprune.proof.prover import Proof
    from irprune.training import Differentiator
    from irprune.walk import Heads

__all__ = [
    "BenchSettings",
    "Result",
    "Settings",
    "apply",
    "bench",
    "device",
    "explain",
    "inspect",
    "load",
    "resolve_pipeline",
    "run",
    "verify",
]

Report = report.Report


def _silent(message: str) -> None:
    """The log that nobody listens to."""


@dataclass(frozen=True)
class Settings:
    """What a user may say besides the model.

    `shapes` and `feeds` are sizes and arrays of graph inputs by name; `log` takes one line. With
    `detail` the report of a run also tells the coupled groups, their layers and the environment.
    A latency target holds for runs with so many `threads`.
    """

    seed: int = 0
    threads: int = 1
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    feeds: Mapping[str, np.ndarray] | None = None
    log: Callable[[str], None] = _silent
    detail: bool = False


_PLAIN = Settings()


@dataclass(frozen=True)
class Result:
    """What a run made: the model, the plan from the base to it, the base, and the report."""

    model: Model
    plan: Plan
    base: Model
    report: Report


def resolve_pipeline(pipeline: str | Sequence[Pass]) -> tuple[Pass, ...]:
    """The passes that a pipeline text names (PipelineError); passes go through unchanged."""
    return resolve(parse(pipeline)) if isinstance(pipeline, str) else tuple(pipeline)


def run(
    pipeline: str | Sequence[Pass],
    model: Model,
    *,
    settings: Settings = Settings(),
    verify: bool = True,
    hooks: Hooks | None = None,
    pending: bool = False,
) -> Result:
    """Run a pipeline on a copy of `model`; unless `verify` is off, prove the result at the end.

    The model may be the result of another run: plan and proof then start at it.
    A plan that was selected but never compacted is an error, unless `pending` says that only the
    plan is wanted. Raises IrpruneError for bad usage or bad input, CheckFailed (its `report` tells
    what was found) where the proof fails.
    """
    passes = resolve_pipeline(pipeline)
    with _work(settings, model) as (work, context):
        if verify:
            require_runner(context)
        run_passes(passes, work, context, hooks)
        if work.pending is not None and not pending:
            reason = "the pipeline selects channels but never removes them"
            raise IrpruneError(reason, mend="add compact to the pipeline")
        return _finish(work, context, settings, verify)


def apply(
    plan: Plan, model: Model, *, settings: Settings = Settings(), verify: bool = True
) -> Result:
    """Compact `model` by a plan made on another checkpoint of the same architecture.

    Reruns the plan's normalisation prefix and requires the structure that the plan was made on.
    Raises IrpruneError where it differs, CheckFailed where the proof fails.
    """
    prefix = resolve_pipeline(plan.base_pipeline) if plan.base_pipeline else ()
    with _work(settings, model) as (work, context):
        if verify:
            require_runner(context)
        run_passes(prefix, work, context)
        if structure_hash(work.ir) != plan.base_structure:
            raise IrpruneError(
                "the plan was made for another graph: ops, attributes, names or shapes differ",
                mend="apply it to another checkpoint of the same architecture and export",
            )
        work.base, work.pending = work.ir.clone(), plan
        run_passes([load_pass("compact")()], work, context)
        work.ir.metadata_props[METADATA_KEY] = plan.pipeline
        return _finish(work, context, settings, verify)


def inspect(
    model: Model,
    *,
    settings: Settings = Settings(),
    after: str = "normalize",
    heads: Heads = "inner",
    allow: tuple[str, ...] = (),
) -> Report:
    """Costs, coupled groups and pinned axes of `model`.

    Looks at the graph after the pipeline `after` ("": as it is), where the inexact ops in `allow`
    may lose channels.
    """
    work, context = _prepared(model, settings, after)
    return {"after": after, **report.inspect_model(work, context, heads, allow)}


def explain(
    model: Model,
    tensor: str,
    axis: int | None = None,
    index: int | None = None,
    *,
    settings: Settings = Settings(),
    after: str = "normalize",
    heads: Heads = "inner",
    allow: tuple[str, ...] = (),
) -> Report:
    """What each axis of `tensor` is coupled to and by which nodes, or what pins it."""
    work, context = _prepared(model, settings, after)
    return report.explain_tensor(work, context, tensor, axis, index, heads, allow)


def verify(base: Model, pruned: Model, plan: Plan, *, settings: Settings = Settings()) -> Proof:
    """The proof that `pruned` equals `base` with the channels that `plan` drops masked.

    `base` may also be the model before normalisation: where its structure is not the one that
    the plan names, the plan's normalisation prefix is run on a copy of it first.
    """
    from irprune.proof.prover import prove

    work = base.clone()
    with _context(settings, base) as context:
        require_runner(context)
        if plan.base_pipeline and structure_hash(work.ir) != plan.base_structure:
            run_passes(resolve(parse(plan.base_pipeline)), work, replace(context, log=_silent))
        return prove(work.ir, pruned.ir, plan, context)


def bench(
    models: Sequence[Path],
    *,
    settings: Settings = Settings(),
    timing: BenchSettings = USUAL_BENCH,
    batch: int | None = None,
    profile: bool = False,
) -> Report:
    """Latency of model files on onnxruntime, interleaved; `ratio` is relative to the first.

    `timing` says how to measure (its seed is that of `settings`), `batch` the length of open batch
    axes; other open axes are as long as a usual image. With `profile`, each row has the times of
    its nodes too, from runs apart. A model that fails is a row with an error.
    """
    from irprune.backends.ort.bench import OrtBencher

    for path in models:
        if not Path(path).is_file():
            raise IrpruneError("no such file", file=path)
    first = load(models[0])
    with _context(settings, first) as context:
        require_runner(context)
    sizes = Sizes(batch or 1, 224)
    if batch is not None:
        check_batch(first.ir, settings.shapes, settings.feeds or {}, batch)
    feeds = make_feeds(first.ir, settings.shapes, settings.seed, settings.feeds, sizes=sizes)
    shown = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
    settings.log(f"bench: {len(models)} models on {shown}")
    bencher, timing = OrtBencher(), replace(timing, seed=settings.seed)
    found = bencher.bench(models, feeds, timing)
    rows = [report.bench_row(row) for row in found.rows]
    for row in rows if profile else ():
        if row["error"] is None:
            row["profile"] = report.profile(bencher.profile(Path(row["path"]), feeds, timing))
    return {
        "batch": batch,
        "feeds": {name: list(array.shape) for name, array in feeds.items()},
        "rounds": found.rounds,
        "notes": list(found.notes),
        "environment": found.environment,
        "models": rows,
    }


def device(
    model: Model | None = None, name: str = "auto", *, settings: Settings = _PLAIN
) -> Report:
    """The staircases of a device: what its kernels round up to, and the cost along wide axes.

    Looks at the layers of `model` after normalisation, or at those of a small sample network.
    """
    from irprune.analyses import ChannelClasses, Groups
    from irprune.backends.catalogue import find
    from irprune.backends.stairs import describe, sample_network
    from irprune.passes.choice.candidates import Candidates

    chosen = find(name)
    model = Model.from_proto(sample_network()) if model is None else model
    work, context = _prepared(model, settings, "normalize")
    channels = context.get(ChannelClasses(), work)
    groups = context.get(Groups(), work)
    if not groups:
        raise IrpruneError("the model has no channels that could be pruned, so no widths to try")
    base = Candidates.of(work, channels, groups, context)
    return describe(chosen, chosen.costs(base, settings.log), channels)


@contextmanager
def _context(settings: Settings, original: Model) -> Iterator[Context]:
    """A context with the onnxruntime backend where it is installed; its child process ends here."""
    from irprune.backends.catalogue import find
    from irprune.backends.ort.device import CpuDevice

    context = Context(
        seed=settings.seed,
        shapes=settings.shapes,
        feeds=settings.feeds,
        device=CpuDevice(threads=settings.threads),
        devices=find,
        log=settings.log,
        original=original,
    )
    if find_spec("torch") is not None:
        context.differentiator = _differentiator
    if find_spec("onnxruntime") is None:
        yield context
        return
    from irprune.backends.ort.bench import OrtBencher
    from irprune.backends.ort.runner import OrtRunner

    with OrtRunner() as runner:
        context.runner = lambda: runner
        context.bencher = OrtBencher
        yield context


def _differentiator() -> Differentiator:
    from irprune.backends.torch.gradients import TorchDifferentiator

    return TorchDifferentiator()


@contextmanager
def _work(settings: Settings, model: Model) -> Iterator[tuple[Model, Context]]:
    """A copy of `model` with inferred shapes; errors name its file, failed checks hold a report.

    What earlier runs did is forgotten: the graph as it is now is the one that plans refer to.
    """
    work = replace(model.clone(), base=None, base_pipeline="", plan=None)
    with _context(settings, model) as context:
        try:
            infer(work.ir)
            input_shapes(work.ir, settings.shapes, settings.feeds or {}, Sizes())
            yield work, context
        except IrpruneError as error:
            error.file = error.file or model.provenance.path
            if type(error) is CheckFailed:
                error.report = _summary(work, context, settings)
            raise


def _prepared(model: Model, settings: Settings, after: str) -> tuple[Model, Context]:
    """A copy of the model after a pipeline, with the context that ran it."""
    passes = resolve_pipeline(after) if after else ()
    with _work(settings, model) as (work, context):
        run_passes(passes, work, replace(context, log=_silent))
    return work, context


def _finish(model: Model, context: Context, settings: Settings, verify: bool) -> Result:
    if verify:
        prove_run(model, context)
    plan, base = _plan(model), model.ir if model.base is None else model.base
    kept = replace(model, ir=base, base=None, plan=None, pending=None)
    return Result(model, plan, kept, _summary(model, context, settings))


def _plan(model: Model) -> Plan:
    """The whole plan from the base, pending part included, with what it was made from."""
    return replace(
        _selected(model),
        pipeline=model.ir.metadata_props[METADATA_KEY],
        model_name=model.provenance.name,
        model_sha256=model.provenance.sha256,
        base_structure=structure_hash(model.ir if model.base is None else model.base),
        base_pipeline=model.base_pipeline,
    )


def _selected(model: Model) -> Plan:
    """What the run removed from the base or means to."""
    plan = model.plan or Plan.empty()
    return plan if model.pending is None else plan.then(model.pending)


def _summary(model: Model, context: Context, settings: Settings) -> Report:
    """What the run did, fit for JSON."""
    base = replace(model, ir=model.ir if model.base is None else model.base)
    before, after = context.get(Cost(), base).full(), context.get(Cost(), model).full()
    if model.pending is not None:
        after = context.get(Cost(), model).of_plan(model.pending)
    return {
        "irprune": __version__,
        "model": report.identity(model),
        "pipeline": model.ir.metadata_props.get(METADATA_KEY, ""),
        "base_pipeline": model.base_pipeline,
        "seed": context.seed,
        "before": before.to_json(),
        "after": after.to_json(),
        "inexact": passed(base.ir.graph, _selected(model)),
        **context.report,
        **(_detail(base, _selected(model), context) if settings.detail else {}),
    }


def _detail(base: Model, plan: Plan, context: Context) -> Report:
    from irprune.reporting.record import environment, structure

    return {**structure(base, plan, context), "environment": environment()}
