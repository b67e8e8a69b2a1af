"""The pass manager: runs, checks and times passes, and leaves a reproducer on failure."""

from __future__ import annotations

import time
import traceback
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irprune.errors import IrpruneError, PassFailed
from irprune.passbase import Context, Pass
from irprune.pipeline.evidence import prove_run, require_runner
from irprune.pipeline.options import choices, pipeline_of

if TYPE_CHECKING:
    from irprune.model import Model

METADATA_KEY = "irprune.pipeline.language"
"""Where the canonical pipeline text stands in the metadata of an output model."""


@dataclass(frozen=True)
class Hooks:
    """What happens around the passes.

    `verify_each` proves after each transform, `print_after` names passes whose result is printed
    to the log, `time_passes` logs the seconds of each pass, and `reproducers` is the folder in
    which a failing pass leaves its reproducer (None: none).
    """

    verify_each: bool = False
    print_after: Collection[str] = ()
    time_passes: bool = False
    reproducers: Path | None = None

    def check(self, passes: Sequence[Pass]) -> None:
        """Raise IrpruneError where `print_after` names a pass that does not run."""
        names = [pass_.name for pass_ in passes]
        for name in self.print_after:
            if name not in names:
                mend = choices(name, names)
                raise IrpruneError(f"--print-after {name}: no such pass in the pipeline", mend=mend)


def run_passes(
    passes: Sequence[Pass], model: Model, context: Context, hooks: Hooks | None = None
) -> None:
    """Run `passes` on `model` in place; rows of pass, seconds and change go to `context.report`.

    The canonical pipeline text is left in the model's metadata, and while the model has no base,
    the texts of its transforms in `model.base_pipeline`. Raises IrpruneError as the passes do;
    anything unexpected, a graph that is structurally wrong or (with `verify_each`) a wrong
    result becomes PassFailed, which names the reproducer.
    """
    from irprune.text import print_model

    hooks = hooks or Hooks()
    hooks.check(passes)
    if hooks.verify_each:
        require_runner(context)
    context.original = context.original or model.clone()
    rows = context.report.setdefault("passes", [])
    restart = 0
    for index, pass_ in enumerate(passes):
        if model.pending is None:
            restart = index
        text = str(pipeline_of([pass_]))
        step = f"[{index + 1}/{len(passes)}] {text}"
        context.log(step)
        started = time.perf_counter()
        try:
            changed = run_pass(pass_, model, context, verify=hooks.verify_each)
        except PassFailed as error:
            error.mend = _reproducer(passes, restart, index, context, hooks.reproducers, error)
            raise
        seconds = time.perf_counter() - started
        rows.append({"pass": text, "seconds": round(seconds, 6), "changed": changed})
        if hooks.time_passes:
            context.log(f"{step}: {seconds:.3f} s")
        if pass_.name in hooks.print_after:
            context.log(print_model(model.ir))
    model.ir.metadata_props[METADATA_KEY] = str(pipeline_of(passes))


def run_pass(
    pass_: Pass, model: Model, context: Context, *, verify: bool = False
) -> dict[str, Any]:
    """Run one pass and check what it left; with `verify`, prove it as well."""
    from irprune import structure

    fresh = model.base is None
    try:
        changed = pass_.run(model, context)
    except IrpruneError:
        raise
    except Exception as error:
        what = "".join(traceback.format_exception_only(error)).strip()
        reason = f"pass `{pass_.name}` failed: {what}"
        raise PassFailed(reason) from error
    if not pass_.transforms:
        return changed
    context.changed(model, pass_.preserves)
    context.weights_changed |= pass_.weight_changing
    if fresh and model.base is None:
        done = [model.base_pipeline] if model.base_pipeline else []
        model.base_pipeline = ", ".join([*done, str(pipeline_of([pass_]))])
    try:
        structure.check(model, context)
        if verify:
            prove_run(model, context)
    except Exception as error:
        raise PassFailed(f"pass `{pass_.name}` left a wrong model: {error}") from error
    return changed


def _reproducer(
    passes: Sequence[Pass],
    restart: int,
    index: int,
    context: Context,
    folder: Path | None,
    error: PassFailed,
) -> str | None:
    """Write the model before the failing pass and the rest of the pipeline; say where they lie.

    A pending plan is not part of a model file, so the reproducer starts at `restart`, the last
    pass before `index` that found no pending plan. The model is made again from the original, so
    that a run that succeeds pays nothing.
    """
    if folder is None or context.original is None:
        return None
    target = folder / f"irprune-repro-{passes[index].name}"
    try:
        model = context.original.clone()
        scratch = Context(
            seed=context.seed,
            shapes=context.shapes,
            feeds=context.feeds,
            runner=context.runner,
            device=context.device,
            original=context.original,
        )
        for pass_ in passes[:restart]:
            run_pass(pass_, model, scratch)
        target.mkdir(exist_ok=True)
        model.save(target / "model.onnx")
        (target / "pipeline.pipe").write_text(_recipe(passes[restart:], context), "utf-8")
        trace = "".join(traceback.format_exception(error))
        (target / "error.txt").write_text(trace, "utf-8")
    except (IrpruneError, OSError) as failure:
        return f"no reproducer could be written: {failure}"
    return f"reproducer: {target}"


def _recipe(rest: Sequence[Pass], context: Context) -> str:
    shapes = [f"--shape {name}={'x'.join(map(str, dims))}" for name, dims in context.shapes.items()]
    command = [
        "irprune run @pipeline.pipe model.onnx -o out.onnx",
        f"--seed {context.seed}",
        *shapes,
    ]
    return f"# {' '.join(command)}\n{pipeline_of(rest)}\n"
