"""Train residual.onnx: a residual CNN for CIFAR-10 with a group lasso that makes whole channels exactly zero."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import (
    Array,
    Graph,
    accuracy,
    arguments,
    batches,
    group_threshold,
    initializers,
    load_images,
    prepare,
    verify,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad, relu

OUTPUT = Path(__file__).with_suffix(".onnx")
EPOCHS, BATCH, RATE = 18, 50, 0.1
WIDTHS = (16, 32, 48)
INNER, STREAMS = 2.1e-2, (3e-2, 2.2e-2, 1.4e-2)  # group lasso: inner channels, residual stream of each stage
FOLDED = {"stem", "s1b2", "s2b2", "s3b1"}  # BatchNorm is folded into the convolution here and kept elsewhere


@dataclass
class ConvNorm:
    """A convolution without bias and its BatchNorm."""

    name: str
    conv: nn.Conv2d
    norm: nn.BatchNorm2d

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(self.conv(x))
        return result

    def export(self, graph: Graph, x: str) -> str:
        if self.name.split("_")[0] in FOLDED:
            return graph.conv(self.name, x, self.conv, self.norm)
        return graph.norm(self.name.replace("conv", "bn"), graph.conv(self.name, x, self.conv), self.norm)

    def members(self) -> list[Tensor]:
        """What makes up one output channel, up to its shift."""
        return [self.conv.weight, self.norm.weight]


def conv_norm(name: str, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> ConvNorm:
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return ConvNorm(name, layer, nn.BatchNorm2d(outputs))


@dataclass
class Block:
    name: str
    first: ConvNorm
    second: ConvNorm
    shortcut: ConvNorm | None

    def __call__(self, x: Tensor) -> Tensor:
        return relu(self.second(relu(self.first(x))) + (self.shortcut(x) if self.shortcut else x))

    def export(self, graph: Graph, x: str) -> str:
        inner = graph.node("Relu", f"{self.name}_relu1", self.first.export(graph, x))
        branch = self.second.export(graph, inner)
        other = self.shortcut.export(graph, x) if self.shortcut else x
        return graph.node("Relu", f"{self.name}_relu2", graph.node("Add", f"{self.name}_add", branch, other))


class Net:
    """Stem, three stages of two blocks, global average, classifier."""

    def __init__(self) -> None:
        self.stem = conv_norm("stem_conv", 3, WIDTHS[0], kernel=5, stride=2)
        self.stages: list[list[Block]] = []
        inputs = WIDTHS[0]
        for stage, width in enumerate(WIDTHS, 1):
            blocks = []
            for number in (1, 2):
                name, stride = f"s{stage}b{number}", 1 if inputs == width else 2
                first = conv_norm(f"{name}_conv1", inputs, width, stride=stride)
                second = conv_norm(f"{name}_conv2", width, width)
                shortcut = None if inputs == width else conv_norm(f"{name}_shortcut_conv", inputs, width, 1, stride)
                blocks.append(Block(name, first, second, shortcut))
                inputs = width
            self.stages.append(blocks)
        self.classifier = nn.Linear(inputs, 10)
        parts = [module for part in self.parts() for module in (part.conv, part.norm)]
        self.modules = nn.ModuleList([*parts, self.classifier])

    def blocks(self) -> list[Block]:
        return [block for stage in self.stages for block in stage]

    def parts(self) -> Iterator[ConvNorm]:
        yield self.stem
        for block in self.blocks():
            yield from (part for part in (block.first, block.second, block.shortcut) if part)

    def writers(self, stage: int) -> list[ConvNorm]:
        """All that adds to the residual stream of a stage: the stem or the projection, and every second conv."""
        blocks = self.stages[stage]
        return [blocks[0].shortcut or self.stem, *(block.second for block in blocks)]

    def __call__(self, x: Tensor) -> Tensor:
        x = relu(self.stem(x))
        for block in self.blocks():
            x = block(x)
        result: Tensor = self.classifier(x.mean((2, 3)))
        return result

    def shrink(self, rate: float) -> None:
        """Proximal step: one group per inner channel (its shift is free), one per channel of a residual stream."""
        for block in self.blocks():
            group_threshold(block.first.members(), rate * INNER)
        for stage, strength in enumerate(STREAMS):
            members = [m for part in self.writers(stage) for m in (*part.members(), part.norm.bias)]
            group_threshold(members, rate * strength * len(self.writers(stage)) ** 0.5)


def augment(images: Tensor) -> Tensor:
    """Mirror each image with probability 1/2, and shift the batch by up to four pixels."""
    mirrored = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images)
    down, right = torch.randint(0, 9, (2,)).tolist()
    return pad(mirrored, (4, 4, 4, 4))[:, :, down : down + 32, right : right + 32]


def train(data: str) -> Net:
    images, labels = load_images(data, "train")
    net = Net()
    optimizer = torch.optim.SGD(net.modules.parameters(), lr=RATE, momentum=0.9)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, cycle_momentum=False)
    for epoch in range(EPOCHS):
        total = 0.0
        for index in batches(len(images), BATCH):
            loss = cross_entropy(net(augment(images[index])), labels[index])
            total += loss.item()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            net.shrink(optimizer.param_groups[0]["lr"])
            schedule.step()
        zeros = [int((part.norm.weight == 0).sum()) for part in net.parts()]
        print(f"epoch {epoch + 1}: loss {total / (len(images) // BATCH):.3f}, zero channels {zeros}", flush=True)
    net.modules.eval()
    return net


def write(net: Net) -> None:
    graph = Graph()
    value = graph.node("Relu", "stem_relu", net.stem.export(graph, "image"))
    for block in net.blocks():
        value = block.export(graph, value)
    value = graph.node("Flatten", "flatten", graph.node("GlobalAveragePool", "gap", value))
    graph.gemm("fc", value, net.classifier, output="logits")
    graph.save(
        OUTPUT,
        ("image", ["batch", 3, 32, 32]),
        ("logits", ["batch", 10]),
        "Residual CNN for CIFAR-10, trained with a group lasso. Input: RGB pixels divided by 255.",
        {"trained_on": "CIFAR-10 (10,000 training images)", "domain": "image=0:1", "recipe": "residual.py"},
    )


def zero_channels(weights: dict[str, Array], name: str) -> tuple[Array, Array]:
    """Which output channels of a convolution (with its BatchNorm) are constant; the value of each channel if so."""
    zero = (weights[f"{name}.weight"] == 0).all((1, 2, 3))
    if f"{name}.bias" in weights:
        return zero, weights[f"{name}.bias"]
    norm = name.replace("conv", "bn")
    scale, shift, mean, variance = (weights[f"{norm}.{part}"] for part in ("scale", "shift", "mean", "variance"))
    return zero | (scale == 0), shift - scale * mean / np.sqrt(variance + 1e-5)


def report() -> None:
    weights, net = initializers(OUTPUT), Net()
    for block in net.blocks():
        constant, value = zero_channels(weights, block.first.name)
        positive = int((constant & (value > 0)).sum())
        print(
            f"{block.name}: {len(constant)} inner channels, {int(constant.sum())} constant, of which "
            f"{positive} non-zero after the ReLU"
        )
    for stage, width in enumerate(WIDTHS):
        parts = [zero_channels(weights, part.name) for part in net.writers(stage)]
        dead = np.all([constant & (value == 0) for constant, value in parts], axis=0)
        print(f"residual stream {stage + 1}: {width} channels, {int(dead.sum())} zero in all branches")
    print(f"parameters: {sum(array.size for array in weights.values())}")


def main() -> None:
    options = arguments(__doc__, "cifar10.npz")
    prepare()
    images, labels = load_images(options.data, "test")
    if not options.check:
        start = time.process_time()
        net = train(options.data)
        print(f"training: {time.process_time() - start:.0f} s")
        write(net)
        verify(OUTPUT, net, images[:500])
    print(f"test accuracy: {accuracy(OUTPUT, images, labels):.2%}")
    report()


if __name__ == "__main__":
    main()
