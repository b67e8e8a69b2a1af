"""Solver files: every policy's rate, the networks that they name, and what is refused."""

from __future__ import annotations

from math import exp
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irprune.errors import IrpruneError
from irprune.frontends.caffe.solver import Solver, read_solver, solver_of
from irprune.frontends.caffe.text import parse

BASE = "base_lr: 0.5 max_iter: 100 "
FIXED = BASE + "lr_policy: 'fixed' "
NET = "layer { type: 'DummyData' top: 'x' }"


def solver(text: str) -> Solver:
    return solver_of(parse(text, "solver.prototxt"))


def failure(text: str) -> str:
    with pytest.raises(IrpruneError) as caught:
        solver(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("policy", "rates"),
    [
        ("'fixed'", {0: 0.5, 99: 0.5}),
        ("'step' gamma: 0.1 stepsize: 10", {0: 0.5, 9: 0.5, 10: 0.05, 25: 0.005}),
        ("'exp' gamma: 0.9", {0: 0.5, 1: 0.45, 10: 0.5 * 0.9**10}),
        ("'inv' gamma: 0.1 power: 2", {0: 0.5, 10: 0.125, 90: 0.005}),
        (
            "'multistep' gamma: 0.1 stepvalue: 10 stepvalue: 30",
            {0: 0.5, 9: 0.5, 10: 0.05, 29: 0.05, 30: 0.005, 99: 0.005},
        ),
        ("'poly' power: 2", {0: 0.5, 50: 0.125, 100: 0, 200: 0}),
        ("'poly' power: 0.5", {75: 0.25, 101: 0}),
        (
            "'sigmoid' gamma: 0.1 stepsize: 50",
            {50: 0.25, 0: 0.5 / (1 + exp(5)), 60: 0.5 / (1 + exp(-1)), 10**6: 0.5},
        ),
        ("'sigmoid' gamma: 1e9 stepsize: 50", {0: 0, 100: 0.5}),
        ("'exp' gamma: 1e300", {2: float("inf")}),
    ],
)
def test_the_rate_follows_the_policy(policy: str, rates: dict[int, float]) -> None:
    read = solver(f"{BASE} lr_policy: {policy}")
    for iteration, rate in rates.items():
        assert read.rate(iteration) == pytest.approx(rate, rel=1e-12)


def test_every_field_is_read() -> None:
    read = solver(
        FIXED + "type: 'Adam' momentum: 0.9 momentum2: 0.99 delta: 1e-6 rms_decay: 0.5 "
        "weight_decay: 0.0005 regularization_type: 'L1' clip_gradients: 10 iter_size: 2 "
        "random_seed: 7 test_iter: [10, 20] test_interval: 5 snapshot: 50 "
        "snapshot_prefix: 'out/net' display: 20 solver_mode: GPU device_id: 1 debug_info: true "
        "weights: 'a.caffemodel'"
    )
    assert (read.type, read.momentum, read.momentum2, read.delta) == ("Adam", 0.9, 0.99, 1e-6)
    assert (read.rms_decay, read.weight_decay, read.regularization_type) == (0.5, 0.0005, "L1")
    assert (read.clip_gradients, read.iter_size, read.random_seed) == (10, 2, 7)
    assert (read.test_iter, read.test_interval) == ((10, 20), 5)
    assert (read.snapshot, read.snapshot_prefix, read.max_iter) == (50, "out/net", 100)
    assert (read.weights, read.warnings) == (("a.caffemodel",), ())


def test_absent_fields_have_caffes_defaults() -> None:
    read = solver(FIXED)
    assert (read.type, read.momentum, read.weight_decay) == ("SGD", 0, 0)
    assert (read.regularization_type, read.iter_size) == ("L2", 1)
    assert (read.random_seed, read.clip_gradients) == (None, None)
    assert solver(FIXED + "random_seed: -1 clip_gradients: -1") == read


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("SGD", "SGD"),
        ("NESTEROV", "Nesterov"),
        ("ADAGRAD", "AdaGrad"),
        ("3", "RMSProp"),
        ("ADADELTA", "AdaDelta"),
        ("ADAM", "Adam"),
    ],
)
def test_the_old_enum_of_types_is_read(old: str, new: str) -> None:
    assert solver(FIXED + f"solver_type: {old}").type == new


def test_unknown_fields_are_told_with_their_place() -> None:
    read = solver(FIXED + "\nwarmup: 5\nnet_param { " + NET + " odd: 1 }")
    assert read.warnings == ("solver.prototxt:2:9: unknown field `warmup`",)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("max_iter: 1 lr_policy: 'fixed'", "`base_lr` is missing"),
        ("base_lr: 1 lr_policy: 'fixed'", "`max_iter` is missing"),
        (BASE, "`lr_policy` is missing"),
        (BASE + "lr_policy: 'stepp'", "`lr_policy` cannot be stepp; did you mean step?"),
        (BASE + "lr_policy: fixed", "`lr_policy` must be a quoted string"),
        (BASE + "lr_policy: 'step' gamma: 1", "policy step needs `stepsize`"),
        (BASE + "lr_policy: 'multistep' gamma: 1", "policy multistep needs `stepvalue`"),
        (BASE + "lr_policy: 'inv' power: 1", "policy inv needs `gamma`"),
        (BASE + "lr_policy: 'poly'", "policy poly needs `power`"),
        (BASE + "lr_policy: 'step' gamma: 1 stepsize: 0", "`stepsize` must be at least 1"),
        (FIXED + "stepvalue: 5 stepvalue: 4", "`stepvalue` must not fall below the one before"),
        (FIXED + "base_lr: 1", "`base_lr` is given twice"),
        (FIXED + "momentum: -1", "`momentum` must be zero or more"),
        (FIXED + "momentum: nan", "`momentum` must be zero or more"),
        (FIXED + "iter_size: 0", "`iter_size` must be at least 1"),
        (FIXED + "test_iter: -1", "`test_iter` must be at least 0"),
        (FIXED + "type: 'Adm'", "`type` cannot be Adm; did you mean Adam?"),
        (FIXED + "regularization_type: 'L3'", "`regularization_type` cannot be L3"),
        (FIXED + "solver_type: ADM", "`solver_type` cannot be ADM"),
        (FIXED + "solver_type: SGD type: 'SGD'", "cannot both be given"),
        (FIXED + "net: 'a' net_param {}", "more than one network is given to train"),
        (FIXED + "train_net: 'a' train_net: 'b'", "more than one network is given to train"),
        (FIXED + "test_state {} test_net: 'a' test_net: 'b'", "2 test networks have 1 states"),
        (FIXED + NET, "this is a network, not a solver"),
    ],
)
def test_bad_solvers_are_refused_at_the_spot(text: str, reason: str) -> None:
    message = failure(text)
    assert reason in message
    assert message.startswith("solver.prototxt:")


def test_networks_inside_the_solver_are_read_at_their_phase_and_stages() -> None:
    read = solver(
        FIXED + "net_param { layer { type: 'A' top: 'x' include { phase: TRAIN } } "
        "layer { type: 'B' top: 'x' include { stage: 's' } } "
        "layer { type: 'C' top: 'x' include { stage: 't' } } } "
        "test_iter: 1 test_iter: 1 test_state { stage: 's' } test_state { stage: 't' }"
    )
    kinds = [[layer.type for layer in net.layers] for net in read.test_networks()]
    assert kinds == [["B"], ["C"]]
    assert [layer.type for layer in read.train_network().layers] == ["A"]


def test_the_train_stages_count() -> None:
    layers = "layer { type: 'A' top: 'x' include { stage: 's' } }"
    read = solver(FIXED + f"train_net_param {{ {layers} }} train_state {{ stage: 's' }}")
    assert len(read.train_network().layers) == 1
    assert read.test_networks() == []


def test_network_files_are_found_beside_the_solver(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "train.prototxt").write_text("name: 'deep'" + NET)
    (tmp_path / "test.prototxt").write_text("name: 'near'" + NET)
    path = tmp_path / "solver.prototxt"
    path.write_text(
        FIXED + "train_net: 'nets/train.prototxt' test_net: '/caffe/root/test.prototxt'"
    )
    read = read_solver(path)
    assert read.train_network().name == "deep"
    assert [net.name for net in read.test_networks()] == ["near"]


@pytest.mark.parametrize("net", ["missing.prototxt", "../outside.prototxt", "", ".", "a\\000b"])
def test_network_files_elsewhere_are_refused(tmp_path: Path, net: str) -> None:
    (tmp_path / "outside.prototxt").write_text(NET)
    folder = tmp_path / "inside"
    folder.mkdir()
    (folder / "solver.prototxt").write_text(FIXED + f"net: '{net}'")
    with pytest.raises(IrpruneError, match="there is no `") as caught:
        read_solver(folder / "solver.prototxt").train_network()
    assert "solver.prototxt:1:" in str(caught.value)


def test_a_solver_without_a_network_says_so() -> None:
    with pytest.raises(IrpruneError, match="the solver names no network"):
        solver(FIXED).train_network()


PIECES = st.sampled_from(
    [
        *("base_lr: 0.1", "base_lr: -1", "max_iter: 9", "max_iter: 0", "lr_policy: 'poly'"),
        *("lr_policy: 'inv'", "lr_policy: 'sigmoid'", "gamma: 1e300", "gamma: 0", "power: 400"),
        *("power: 0", "stepsize: 3", "stepvalue: 5", "type: 'SGD'", "solver_type: 9"),
        *("test_state { stage: 's' }", "net: 'x'", "test_iter: 2", "net_param { }", "net: 3"),
    ]
)


@given(st.lists(PIECES, max_size=12).map(" ".join), st.integers(0, 10**6))
def test_no_solver_fails_otherwise(text: str, iteration: int) -> None:
    try:
        read = solver(text)
        assert read.rate(iteration) >= 0
        read.train_network()
        read.test_networks()
    except IrpruneError as error:
        assert str(error)


@pytest.mark.shared
def test_every_shared_solver_is_read(shared: Path) -> None:
    paths = sorted((shared / "caffe").rglob("*solver*.prototxt"))
    assert len(paths) > 30
    for path in paths:
        if path.stem == "lenet_stepearly_solver":  # a policy that no release of Caffe has
            with pytest.raises(IrpruneError, match="cannot be stepearly"):
                read_solver(path)
            continue
        read = read_solver(path)
        assert read.warnings == ()
        assert read.rate(0) >= read.rate(read.max_iter) >= 0
        if path.stem != "lenet_auto_solver":  # its networks are made by a script
            assert read.train_network().layers
            assert all(net.layers for net in read.test_networks())
