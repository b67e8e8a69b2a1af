"""Sample inputs: sizes of open axes, ranges, and what the user gives."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto
from strategies import Dim, Net

from irprune.errors import IrpruneError
from irprune.proof.feeds import Sizes, describe_feeds, make_feeds


def inputs(*rows: tuple[str, int, tuple[Dim, ...]]) -> ir.Model:
    """A model with inputs of the given names, types and dimensions, each read by an Identity."""
    net = Net()
    outputs = [net.op("Identity", net.input(*dims, name=n, dtype=kind)) for n, kind, dims in rows]
    return net.model(*outputs).ir


def image(*dims: Dim) -> ir.Model:
    return inputs(("x", TensorProto.FLOAT, dims))


def test_open_axes_get_the_sizes_given() -> None:
    model = image("N", 3, "H", "W")
    assert make_feeds(model, {}, 0)["x"].shape == (2, 3, 64, 64)
    assert make_feeds(model, {}, 0, sizes=Sizes(1, 224))["x"].shape == (1, 3, 224, 224)


def test_a_symbol_has_one_length_everywhere() -> None:
    kind = TensorProto.FLOAT
    model = inputs(("x", kind, ("N", "T")), ("state", kind, (2, "N", 8)), ("t", kind, ("T",)))
    shapes = {name: array.shape for name, array in make_feeds(model, {}, 0).items()}
    assert shapes == {"x": (2, 2), "state": (2, 2, 8), "t": (2,)}
    shapes = {name: array.shape for name, array in make_feeds(model, {"t": (5,)}, 0).items()}
    assert shapes == {"x": (2, 5), "state": (2, 2, 8), "t": (5,)}


def test_the_state_of_a_recurrent_layer_has_its_batch_second() -> None:
    model = inputs(("state", TensorProto.FLOAT, (2, "B", 8)))
    assert make_feeds(model, {}, 0)["state"].shape == (2, 2, 8)


def test_a_channel_axis_takes_what_its_consumer_needs() -> None:
    net = Net()
    net.op("Conv", net.input("N", "C", 8, 8), net.weight(4, 3, 1, 1), name="y", group=2)
    assert make_feeds(net.model().ir, {}, 0)["x"].shape == (2, 6, 8, 8)
    net = Net()
    net.linear(net.input("N", "C"), 7, 2, name="y")
    assert make_feeds(net.model().ir, {}, 0)["x"].shape == (2, 7)


def test_initializers_listed_as_inputs_are_no_inputs() -> None:
    net = Net()
    net.linear(net.input("N", 3), 3, 2, name="y")
    model = net.model().ir
    model.graph.inputs.append(model.graph.initializers["y.w"])
    assert list(make_feeds(model, {}, 0)) == ["x"]


@pytest.mark.parametrize(("style", "low", "high"), [(0, -6, 6), (1, 0, 1), (2, -1, 1), (3, 0, 255)])
def test_ranges_of_floating_point_inputs(style: int, low: float, high: float) -> None:
    numbers = make_feeds(image(1000), {}, 0, style=style)["x"]
    assert low <= numbers.min() and numbers.max() <= high
    width = [12**0.5, 1, 2, 255][style]
    assert numbers.std() == pytest.approx(width / 12**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.FLOAT16, np.float16),
        (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
        (TensorProto.DOUBLE, np.float64),
        (TensorProto.BOOL, np.bool_),
        (TensorProto.UINT8, np.uint8),
        (TensorProto.INT8, np.int8),
        (TensorProto.INT64, np.int64),
    ],
)
def test_inputs_have_the_dtype_of_the_model(kind: int, dtype: type) -> None:
    feeds = make_feeds(inputs(("x", kind, (4, 5)), ("scalar", kind, ())), {}, 0)
    assert {name: (a.dtype, a.shape) for name, a in feeds.items()} == {
        "x": (dtype, (4, 5)),
        "scalar": (dtype, ()),
    }


def test_ranges_of_integer_inputs() -> None:
    kinds = [("u8", TensorProto.UINT8), ("i8", TensorProto.INT8), ("i64", TensorProto.INT64)]
    model = inputs(
        *((name, kind, (9, 9, 99)) for name, kind in kinds),
        ("mask", TensorProto.INT64, (9, 99)),
        ("flag", TensorProto.INT64, ()),
    )
    feeds = make_feeds(model, {}, 0)
    ranges = {name: (int(array.min()), int(array.max())) for name, array in feeds.items()}
    assert ranges == {
        "u8": (0, 255),
        "i8": (0, 127),
        "i64": (0, 255),
        "mask": (0, 1),
        "flag": (1, 1),
    }


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT])
def test_integers_stay_within_the_smallest_table_that_they_index(kind: int) -> None:
    net = Net()
    ids = net.op("Cast", net.input("N", 500, dtype=kind), to=TensorProto.INT64)
    net.op("Gather", net.weight(7, 3), net.op("Unsqueeze", ids, net.ints(1)), name="y")
    net.op("Gather", net.weight(2, 30), ids, name="z", axis=1)
    numbers = make_feeds(net.model("y", "z").ir, {}, 0)["x"]
    assert sorted(np.unique(numbers)) == list(range(7))


def test_integers_stay_within_the_depth_of_a_one_hot_encoding() -> None:
    net = Net()
    x = net.input("N", 99, dtype=TensorProto.INT64)
    net.op("OneHot", x, net.ints(4), net.constant(np.array([0, 1], np.float32)), name="y")
    assert make_feeds(net.model().ir, {}, 0)["x"].max() == 3


def test_seeds_repeat_and_differ() -> None:
    first, again = (make_feeds(image(9), {}, 3)["x"] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, make_feeds(image(9), {}, 4)["x"])
    assert make_feeds(image(9), {}, -1)["x"].shape == (9,)


def test_what_the_user_gives_wins() -> None:
    kind = TensorProto.FLOAT
    model = inputs(("x", kind, ("N", 3)), ("z", kind, ("N",)))
    given = np.full((5, 3), 7, np.float32)
    feeds = make_feeds(model, {}, 0, {"x": given})
    assert feeds["x"] is given
    assert feeds["z"].shape == (5,)


@pytest.mark.parametrize(
    ("shapes", "feeds", "message"),
    [
        ({"w": (1, 3)}, {}, "the model has no input w; its inputs are x: float['N', 3]"),
        ({}, {"w": np.zeros(3)}, "the model has no input w; its inputs are x: float['N', 3]"),
        ({"x": (1, 4)}, {}, "shape [1, 4] does not fit input x of shape ['N', 3]"),
        ({"x": (3,)}, {}, "shape [3] does not fit input x of shape ['N', 3]"),
        ({}, {"x": np.zeros((1, 3))}, "input x is given as float64, the model wants float; its"),
        ({}, {"x": np.zeros((1, 2), np.float32)}, "shape [1, 2] does not fit input x"),
        ({"x": (2, 3)}, {"x": np.zeros((1, 3), np.float32)}, "with N = 1"),
    ],
)
def test_what_does_not_fit_is_refused(
    shapes: dict[str, tuple[int, ...]], feeds: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(IrpruneError) as caught:
        make_feeds(image("N", 3), shapes, 0, feeds)
    assert message in str(caught.value)


def test_an_array_and_a_shape_must_agree() -> None:
    with pytest.raises(IrpruneError, match=r"as an array of shape \(1,\) and as --shape \(2,\)"):
        make_feeds(image(None), {"x": (2,)}, 0, {"x": np.zeros(1, np.float32)})


def test_lengths_of_one_symbol_must_agree() -> None:
    kind = TensorProto.FLOAT
    model = inputs(("x", kind, ("N", 3)), ("z", kind, ("N",)))
    with pytest.raises(IrpruneError, match=r"shape \[3\] does not fit input z .* with N = 2"):
        make_feeds(model, {"x": (2, 3), "z": (3,)}, 0)


def test_text_must_be_given() -> None:
    model = inputs(("x", TensorProto.STRING, ("N",)))
    with pytest.raises(IrpruneError, match=r"input x has type string.*--inputs"):
        make_feeds(model, {}, 0)
    text = np.array(["a", "b"])
    assert make_feeds(model, {}, 0, {"x": text})["x"] is text


def test_an_input_of_unknown_rank_needs_a_shape() -> None:
    model = image(3)
    model.graph.inputs[0].shape = None
    with pytest.raises(IrpruneError, match="input x has no known rank"):
        make_feeds(model, {}, 0)
    assert make_feeds(model, {"x": (4,)}, 0)["x"].shape == (4,)


def test_description_of_feeds() -> None:
    model = image("N", 3, None)
    assert describe_feeds(model, make_feeds(model, {}, 0)) == {
        "x": {"shape": [2, 3, 64], "dtype": "float32", "open_axes": [0, 2]}
    }
