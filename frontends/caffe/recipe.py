"""From a solver to a recipe: the same training, as far as it is the solver that decides it.

The network's part (`lr_mult`, `decay_mult`, the batch size) is not in a solver: see
`irprune.multipliers`. Nor are the weights to start from in a recipe: `Solver.start`. Caffe keeps
the learning rate inside the velocity of SGD, torch outside: after a change of the rate they differ
for as long as the velocity remembers. Adam's `delta` stands before the correction of the second
moment in Caffe and after it in torch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

from irprune.errors import IrpruneError
from irprune.frontends.caffe.solver import Solver
from irprune.recipe import Optimizer, Recipe, Schedule


def recipe_of(solver: Solver, base: Recipe) -> Recipe:
    """Return `base` with all that a solver says: optimiser, schedule, steps; clipping, seed if any.

    Args:
        solver: what Caffe is told.
        base: the rest: epochs (in the last of which `max_iter` must lie, which training checks),
            the network's batch size, warm-up in steps, distillation, target. With an `iter_size`,
            the batch is that many of the network's, whose gradients Caffe adds up.

    Raises:
        TextError: a field says what no recipe can say; it points at the field.
        IrpruneError: `base` warms up by epochs, where Caffe counts steps.
    """
    for one in solver.unknown:
        raise one.error(f"unknown field `{one.name}`: what it changes is not known", "remove it")
    if solver.max_iter < 1:
        _refuse(solver, "max_iter", "there is nothing to train")
    if solver.weight_decay and solver.regularization_type == "L1":
        _refuse(solver, "regularization_type", "only L2 decay can be trained with", "use L2")
    clip = solver.clip_gradients
    if clip == 0:
        _refuse(solver, "clip_gradients", "gradients of length 0 train nothing", "remove it")
    warmup = base.schedule.warmup
    if warmup and base.schedule.unit != "steps":
        reason = f"warmup = {warmup:g} counts {base.schedule.unit}, the solver counts steps"
        mend = 'give it in steps, with unit = "steps"'
        raise IrpruneError(reason, node="train.schedule", mend=mend)
    return replace(
        base,
        batch=base.batch * solver.iter_size,
        seed=base.seed if solver.random_seed is None else solver.random_seed,
        optimizer=_optimizer(solver),
        schedule=replace(_schedule(solver), warmup=warmup),
        # Caffe clips the sum over iter_size, and divides afterwards.
        clip=base.clip if clip is None else clip / solver.iter_size,
        steps=solver.max_iter,
    )


def _optimizer(solver: Solver) -> Optimizer:
    rate, decay, momentum = solver.base_lr, solver.weight_decay, solver.momentum
    match solver.type:
        case "SGD" | "Nesterov":
            nesterov = solver.type == "Nesterov" and momentum > 0
            return Optimizer("sgd", rate, decay, momentum=momentum, nesterov=nesterov)
        case "Adam":
            _below_one(solver, "momentum", "momentum2")
            betas = (momentum, solver.momentum2)
            return Optimizer("adam", rate, decay, betas=betas, eps=solver.delta)
        case "AdaDelta":
            _below_one(solver, "momentum")
            return Optimizer("adadelta", rate, decay, betas=(0.0, momentum), eps=solver.delta)
    if momentum:
        _refuse(solver, "momentum", f"{solver.type} has none", "remove it")
    if solver.type == "AdaGrad":
        return Optimizer("adagrad", rate, decay, eps=solver.delta)
    _below_one(solver, "rms_decay")
    return Optimizer("rmsprop", rate, decay, betas=(0.0, solver.rms_decay), eps=solver.delta)


def _schedule(solver: Solver) -> Schedule:
    gamma, power = solver.gamma, solver.power
    match solver.lr_policy:
        case "step":
            return Schedule("step", "steps", gamma, every=solver.stepsize)
        case "exp":
            return Schedule("exp", "steps", gamma)
        case "inv":
            return Schedule("inv", "steps", gamma, power)
        case "multistep":
            return Schedule("multistep", "steps", gamma, at=tuple(map(float, solver.stepvalue)))
        case "poly":
            return Schedule("poly", "steps", power=power)
        case "sigmoid":
            return Schedule("sigmoid", "steps", gamma, every=solver.stepsize)
    return Schedule("fixed", "steps")


def _below_one(solver: Solver, *names: str) -> None:
    for name in names:
        if getattr(solver, name) >= 1:
            _refuse(solver, name, f"an average of type {solver.type} forgets: it is below 1")


def _refuse(solver: Solver, name: str, reason: str, mend: str | None = None) -> NoReturn:
    raise solver.spots[name].error(f"`{name}`: {reason}", mend)
