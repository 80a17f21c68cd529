"""Slices: known numbers of regions, values that agree with the network everywhere, and pictures."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto

from onnxprune import parse_domain
from onnxprune.bounds.static import StaticGraph
from onnxprune.errors import EnvironmentFailure, InputError
from onnxprune.graph.graph import Graph
from onnxprune.regions.polygon import area, centre, values
from onnxprune.regions.slice import Slice, slice_network
from onnxprune.regions.slice_cuts import lines_of
from onnxprune.regions.slice_picture import check_picture, summary, write_picture
from onnxprune.samples import input_specs
from tests.helpers import parse, run

Array = NDArray[np.float64]
ONE_LAYER = "h = Gemm <transB = 1> (x, w1, b1) r = Relu (h) y = Gemm <transB = 1> (r, w2, b2)"
CONVS = """
    h = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (h)
    r = LeakyRelu <alpha = 0.1> (m)
    c = Conv <pads = [1, 1, 1, 1]> (r, w2, b2)
    k = Clip (c, zero, one)
    p = GlobalAveragePool (k)
    f = Flatten (p)
    z = Gemm <transB = 1> (f, w3, b3)
    y = Softmax (z)
"""
TRIANGLE = [np.array([-1.0, -1.0]), np.array([1.0, -1.0]), np.array([-1.0, 1.0])]


def lines(weights: Any, bias: Any) -> ModelProto:
    w1 = np.array(weights, np.float32)
    w2 = np.ones((1, len(w1)), np.float32)
    tables = {"w1": w1, "b1": np.array(bias, np.float32), "w2": w2, "b2": np.zeros(1, np.float32)}
    return parse(ONE_LAYER, "float[N,2] x", "float[N,1] y", tables)


def deep(seed: int) -> ModelProto:
    rng, body, tables, source = np.random.default_rng(seed), [], {}, "x"
    for number, (before, width) in enumerate(((2, 7), (7, 6), (6, 3))):
        tables[f"w{number}"] = rng.normal(size=(width, before)).astype(np.float32)
        tables[f"b{number}"] = (0.5 * rng.normal(size=width)).astype(np.float32)
        target = "y" if number == 2 else f"h{number}"
        body.append(f"{target} = Gemm <transB = 1> ({source}, w{number}, b{number})")
        body += [f"r{number} = Relu ({target})"] if number < 2 else []
        source = f"r{number}"
    return parse(" ".join(body), "float[N,2] x", "float[N,3] y", tables)


def convolutions(seed: int) -> ModelProto:
    rng = np.random.default_rng(seed)
    shapes = {"w1": (3, 1, 3, 3), "b1": (3,), "w2": (4, 3, 3, 3), "b2": (4,), "w3": (3, 4), "b3": (3,)}
    tables = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    tables |= {"zero": np.array(0.0, np.float32), "one": np.array(1.0, np.float32)}
    return parse(CONVS, "float[N,1,6,6] x", "float[N,3] y", tables)


def sliced(model: ModelProto, points: list[Array] | None = None, **options: Any) -> Slice:
    options.setdefault("margin", 0.0)
    return slice_network(StaticGraph(Graph(model)), points or TRIANGLE, **options)


def covers(found: Slice) -> bool:
    total = sum(area(region.corners) for region in found.regions)
    return bool(np.isclose(total, area(found.window), rtol=1e-9))


@pytest.mark.parametrize(
    ("weights", "bias", "expected"),
    [
        ([[1, 0], [0, 1], [1, 1]], [0, 0, 0], 6),
        ([[1, 0], [2, 0], [-1, 0], [0, 0], [0, 1]], [-0.5, -1, 0.5, 1, -0.5], 4),
        ([[1, 0]] * 2 + [[0, 1]] * 3, [0.5, -0.5, 0.5, 0.25, -0.5], 12),
        ([[1, 1]], [-2], 1),  # touches a corner
        ([[1, 0], [-1, 0]], [0, 0], 2),
    ],
)
def test_lines_in_a_square(weights: Any, bias: Any, expected: int) -> None:
    found = sliced(lines(weights, bias))
    assert (len(found.regions), found.complete, found.thin) == (expected, True, 0)
    assert covers(found)


@pytest.mark.parametrize(("count", "expected"), [(6, 22), (10, 56)])
def test_lines_in_general_position(count: int, expected: int) -> None:
    rng = np.random.default_rng(count)
    angles = np.pi * (np.arange(count) + 0.3 * rng.random(count)) / count
    weights = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    model = lines(weights, 0.2 * rng.normal(size=count))
    assert len(sliced(model, [60 * point for point in TRIANGLE]).regions) == expected


@pytest.mark.parametrize("seed", range(4))
def test_regions_of_a_deep_network_carry_its_values(seed: int) -> None:
    model = deep(seed)
    found = sliced(model)
    assert covers(found)
    agrees(model, found, (2,))
    net = StaticGraph(Graph(model))
    patterns = set()
    for region in found.regions:
        at = found.plane.points(np.array([centre(region.corners)]))[0]
        patterns.add(tuple(np.concatenate(hidden(net, at)) > 0))
    assert len(patterns) == len(found.regions)
    rng = np.random.default_rng(0)
    seen = {tuple(np.concatenate(hidden(net, x)) > 0) for x in rng.uniform(-1, 1, (500, 2))}
    assert seen <= patterns


def hidden(net: StaticGraph, point: Array) -> list[Array]:
    tables = {name: np.asarray(c.values, np.float64) for name, c in net.graph.constants().items()}
    found: list[Array] = []
    for number in range(2):
        found.append(tables[f"w{number}"] @ point + tables[f"b{number}"])
        point = np.maximum(found[-1], 0)
    return found


def agrees(model: ModelProto, found: Slice, shape: tuple[int, ...]) -> None:
    """The affine functions of the regions are the network's outputs, in their middle and near their corners."""
    for region in found.regions:
        assert region.outputs is not None
        x, y = centre(region.corners)
        spots = [(x, y), *((x + 0.99 * (a - x), y + 0.99 * (b - y)) for a, b in region.corners)]
        points = found.plane.points(np.array(spots)).astype(np.float32)
        (expected,) = run(model, {"x": points.reshape(-1, *shape)})
        told = np.array([values(spots, line) for line in lines_of(region.outputs)]).T
        if any(node.op_type == "Softmax" for node in model.graph.node):
            told = np.exp(told) / np.exp(told).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(told, expected, atol=1e-4)


def test_convolutions_pooling_leaky_and_clipped_units() -> None:
    model = convolutions(1)
    points = list(np.random.default_rng(1).uniform(0.3, 0.7, (3, 36)))
    found = sliced(model, points)
    assert found.ignored == ("Softmax",)
    assert len(found.regions) > 10
    assert covers(found)
    agrees(model, found, (1, 6, 6))
    classes = found.classes()
    assert np.isclose(sum(area(corners) for _, corners in classes), area(found.window))
    for number, corners in classes:
        point = found.plane.points(np.array([centre(corners)])).astype(np.float32)
        assert run(model, {"x": point.reshape(1, 1, 6, 6)})[0].argmax() == number


def test_the_window_stays_in_the_domain() -> None:
    model = lines([[1, 0]], [0])
    specs = input_specs(model)
    found = sliced(model, domain=parse_domain(["-0.5:0.25"], specs))
    assert np.isclose(area(found.window) * found.plane.length**2, 0.75**2)
    assert len(found.regions) == 2
    with pytest.raises(InputError, match="misses the domain"):
        sliced(model, domain=parse_domain(["5:6"], specs))


def test_points_keep_their_places() -> None:
    found = sliced(deep(0), margin=0.5)
    np.testing.assert_allclose(found.plane.points(np.array(found.plane.marks)), TRIANGLE, atol=1e-12)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([np.zeros(2), np.ones(2), 2 * np.ones(2)], "one line"),
        ([np.zeros(2), np.zeros(2), np.ones(2)], "one line"),
        ([np.zeros(2), np.ones(2)], "three points"),
        ([np.zeros(3), np.ones(3), np.array([0.0, 1, 0])], "three points of 2"),
        ([np.zeros(2), np.ones(2), np.array([np.nan, 1])], "not finite"),
    ],
)
def test_points_that_span_no_plane(points: list[Array], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sliced(deep(0), points)


def test_other_activations_are_named() -> None:
    with pytest.raises(InputError, match=r"Tanh.*Relu"):
        sliced(parse("t = Tanh (x) y = Relu (t)", "float[N,2] x", "float[N,2] y"))
    found = sliced(parse("r = Relu (x) y = Tanh (r)", "float[N,2] x", "float[N,2] y"))
    assert len(found.regions) == 4
    with pytest.raises(InputError, match="class"):
        found.classes()


def test_work_that_ends_early_says_so() -> None:
    found = sliced(deep(1), most=5)
    assert (len(found.regions), found.complete) == (5, False)
    assert summary(found).startswith("at least 5")
    assert not sliced(deep(1), stopped=lambda: True).complete


@pytest.mark.parametrize("colour", ["cell", "class"])
def test_pictures(colour: Any, tmp_path: Path) -> None:
    found = sliced(deep(2))
    write_picture(found, tmp_path / "a.svg", colour=colour)
    root = ET.fromstring((tmp_path / "a.svg").read_text(encoding="utf-8"))
    space = "{http://www.w3.org/2000/svg}"
    shapes = len(found.regions) if colour == "cell" else len(found.classes())
    assert len(root.findall(f".//{space}polygon")) == shapes
    assert [text.text for text in root.findall(f"{space}text")] == ["a", "b", "c"]
    write_picture(found, tmp_path / "a.html", colour=colour, names=["<1>", "2", "3"])
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert f"{len(found.regions)} linear regions" in page
    assert "&lt;1&gt;" in page
    pytest.importorskip("matplotlib")
    write_picture(found, tmp_path / "a.png", colour=colour)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_that_cannot_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = sliced(lines([[1, 0]], [0]))
    with pytest.raises(InputError, match=r"a\.jpg"):
        write_picture(found, tmp_path / "a.jpg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(EnvironmentFailure, match=r"onnxprune\[plots\]"):
        check_picture("a.png")
    with pytest.raises(EnvironmentFailure, match=r"onnxprune\[plots\]"):
        write_picture(found, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
