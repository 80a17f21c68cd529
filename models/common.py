"""Shared by the recipes: data loading, proximal steps, writing ONNX files, and checking them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

OPSET = 17
IR_VERSION = 8
SEED = 20240

Array = NDArray[Any]


def arguments(description: str | None, data: str | None) -> argparse.Namespace:
    """Parse the command line of a recipe; `data` is the expected data file, None when there is none."""
    parser = argparse.ArgumentParser(description=description)
    if data is not None:
        parser.add_argument("data", help=f"path of {data}, with arrays x_train, y_train, x_test, y_test")
    parser.add_argument("--check", action="store_true", help="do not train, only measure the existing file")
    return parser.parse_args()


def prepare() -> None:
    """One thread, fixed seed, deterministic kernels."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)


def load_images(data: str, split: str) -> tuple[Tensor, Tensor]:
    """Images of one split as float32 in [0, 1] with a channel axis, and their labels."""
    with np.load(data) as arrays:
        images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
    if images.ndim == 3:
        images = images[:, None]
    return torch.from_numpy(images.astype(np.float32) / 255), torch.from_numpy(labels.astype(np.int64))


def batches(count: int, size: int) -> Iterator[Tensor]:
    """Index tensors of one epoch of full batches, in random order."""
    order = torch.randperm(count)
    return (order[start : start + size] for start in range(0, count - size + 1, size))


def soft_threshold(values: Tensor, threshold: float) -> None:
    """Proximal step of the L1 norm, in place: moves every entry towards zero and stops exactly there."""
    with torch.no_grad():
        values.copy_(values.sign() * (values.abs() - threshold).clamp(min=0))


def group_threshold(members: Sequence[Tensor], threshold: float) -> None:
    """Proximal step of the group lasso, in place: group c holds the slices [c] of all members."""
    with torch.no_grad():
        squares = sum(member.reshape(len(member), -1).square().sum(1) for member in members)
        factor = (1 - threshold / torch.as_tensor(squares).sqrt().clamp(min=1e-12)).clamp(min=0)
        for member in members:
            member.mul_(factor.view(-1, *[1] * (member.dim() - 1)))


def fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Array, Array]:
    """Weight and bias of the convolution that equals `conv` followed by `norm` in inference."""
    gamma, beta, mean, variance = (array.astype(np.float64) for array in norm_arrays(norm))
    scale = gamma / np.sqrt(variance + norm.eps)
    weight = numpy(conv.weight).astype(np.float64) * scale[:, None, None, None]
    return weight.astype(np.float32), (beta - mean * scale).astype(np.float32)


def norm_arrays(norm: nn.BatchNorm2d) -> tuple[Array, Array, Array, Array]:
    """Scale, shift, running mean and running variance."""
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    return numpy(norm.weight), numpy(norm.bias), numpy(mean), numpy(variance)


def numpy(tensor: Tensor) -> Array:
    array: Array = tensor.detach().numpy()
    return array


class Graph:
    """Collects the nodes and weights of an ONNX graph; the methods return the name of the value they add."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, value: Array) -> str:
        self.weights.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def node(self, op: str, name: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{name}_out"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=name, **attributes))
        return output

    def conv(self, name: str, x: str, module: nn.Conv2d, folded: nn.BatchNorm2d | None = None) -> str:
        """A convolution without bias, or one with `folded` folded into it."""
        inputs = [x]
        if folded is None:
            inputs.append(self.weight(f"{name}.weight", numpy(module.weight)))
        else:
            weight, bias = fold(module, folded)
            inputs += [self.weight(f"{name}.weight", weight), self.weight(f"{name}.bias", bias)]
        top, left = (int(pad) for pad in module.padding)
        attributes: dict[str, Any] = {
            "kernel_shape": list(module.kernel_size),
            "strides": list(module.stride),
            "pads": [top, left, top, left],
            "group": module.groups,
        }
        return self.node("Conv", name, *inputs, **attributes)

    def norm(self, name: str, x: str, module: nn.BatchNorm2d) -> str:
        names = ("scale", "shift", "mean", "variance")
        inputs = [self.weight(f"{name}.{part}", array) for part, array in zip(names, norm_arrays(module), strict=True)]
        return self.node("BatchNormalization", name, x, *inputs, epsilon=module.eps)

    def gemm(self, name: str, x: str, module: nn.Linear, output: str = "") -> str:
        weight = self.weight(f"{name}.weight", numpy(module.weight))
        bias = self.weight(f"{name}.bias", numpy(module.bias))
        return self.node("Gemm", name, x, weight, bias, output=output, transB=1)

    def save(
        self,
        path: Path,
        source: tuple[str, Sequence[int | str]],
        target: tuple[str, Sequence[int | str]],
        doc: str,
        metadata: dict[str, str],
    ) -> None:
        """Write the graph with input `source` and output `target`, each a name and a float32 shape."""
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (source, target)]
        graph = helper.make_graph(self.nodes, path.stem, values[:1], values[1:], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        model.producer_name = "onnxprune models"
        model.doc_string = doc
        helper.set_model_props(model, {"author": "onnxprune", **metadata, "license": "Apache-2.0"})
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString(deterministic=True))


def run(path: Path, inputs: Array) -> Array:
    """Outputs of the file in ONNX Runtime, in batches of 500 (of one where the batch is static)."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    size = 1 if source.shape[0] == 1 else 500
    parts = [session.run(None, {source.name: inputs[i : i + size]})[0] for i in range(0, len(inputs), size)]
    return np.concatenate(parts)


def verify(path: Path, forward: Callable[[Tensor], Tensor], inputs: Tensor) -> None:
    """The file passes the checker and gives what `forward` gives, within 1e-4."""
    onnx.checker.check_model(onnx.load(path), full_check=True)
    with torch.no_grad():
        expected = numpy(forward(inputs))
    difference = float(np.abs(run(path, numpy(inputs)) - expected).max())
    assert difference < 1e-4, difference
    print(f"largest difference between torch and {path.name}: {difference:.1e}")


def accuracy(path: Path, images: Tensor, labels: Tensor) -> float:
    return float((run(path, numpy(images)).argmax(1) == numpy(labels)).mean())


def initializers(path: Path) -> dict[str, Array]:
    return {weight.name: numpy_helper.to_array(weight) for weight in onnx.load(path).graph.initializer}


def interval_counts(weights: dict[str, Array], layers: Sequence[str], lower: Array, upper: Array) -> str:
    """Stable units of a dense ReLU network over a box, by plain float64 interval arithmetic."""
    lines = []
    for layer in layers:
        weight, bias = (weights[f"{layer}.{part}"].astype(np.float64) for part in ("weight", "bias"))
        positive, negative = weight.clip(min=0), weight.clip(max=0)
        lower, upper = positive @ lower + negative @ upper + bias, positive @ upper + negative @ lower + bias
        inactive, active = int((upper <= 0).sum()), int(((lower >= 0) & (upper > 0)).sum())
        lines.append(
            f"{layer}: {len(bias)} units, {inactive} stably inactive, {active} stably active, "
            f"{len(bias) - inactive - active} undecided, {int((weight == 0).all(1).sum())} with only zero weights"
        )
        lower, upper = lower.clip(min=0), upper.clip(min=0)
    return "\n".join(lines)
