"""Train slim_cnn.onnx: a BatchNorm CNN for MNIST, trained by network slimming (L1 on the BatchNorm scales)."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from common import (
    Graph,
    accuracy,
    arguments,
    batches,
    initializers,
    load_images,
    prepare,
    soft_threshold,
    verify,
)
from torch import nn

OUTPUT = Path(__file__).with_suffix(".onnx")
EPOCHS, SPARSE_EPOCHS, BATCH, RATE, L1 = 4, 2, 100, 0.1, 1e-1


def conv(inputs: int, outputs: int, kernel: int, groups: int = 1) -> nn.Sequential:
    """Convolution, BatchNorm and ReLU, same spatial size."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def build() -> nn.Sequential:
    return nn.Sequential(
        conv(1, 24, 3),
        nn.MaxPool2d(2),
        conv(24, 24, 3, groups=24),  # the depthwise-separable pair: depthwise 3x3, pointwise 1x1
        conv(24, 48, 1),
        nn.MaxPool2d(2),
        conv(48, 48, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 10),
    )


def train(data: str) -> nn.Sequential:
    images, labels = load_images(data, "train")
    net = build()
    scales = [module.weight for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for scale in scales:
        nn.init.constant_(scale, 0.5)
    zeros = [torch.zeros(len(scale), dtype=torch.bool) for scale in scales]
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, cycle_momentum=False)
    for epoch in range(EPOCHS):
        total = 0.0
        for index in batches(len(images), BATCH):
            loss = nn.functional.cross_entropy(net(images[index]), labels[index])
            total += loss.item()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            for scale, pruned in zip(scales, zeros, strict=True):
                if epoch < SPARSE_EPOCHS:
                    soft_threshold(scale, L1 * optimizer.param_groups[0]["lr"])
                    pruned.copy_(scale == 0)
                else:
                    scale.data[pruned] = 0
            schedule.step()
        counts = [int(pruned.sum()) for pruned in zeros]
        print(f"epoch {epoch + 1}: loss {total / (len(images) // BATCH):.4f}, zero scales {counts}", flush=True)
    return net.eval()


def write(net: nn.Sequential) -> None:
    graph = Graph()
    value, convs, pools = "image", 0, 0
    for layer in net:
        if isinstance(layer, nn.Sequential):
            convs += 1
            convolution, norm = layer[0], layer[1]
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            value = graph.norm(f"bn{convs}", graph.conv(f"conv{convs}", value, convolution), norm)
            value = graph.node("Relu", f"relu{convs}", value)
        elif isinstance(layer, nn.MaxPool2d):
            pools += 1
            value = graph.node("MaxPool", f"pool{pools}", value, kernel_shape=[2, 2], strides=[2, 2])
        elif isinstance(layer, nn.AdaptiveAvgPool2d):
            value = graph.node("GlobalAveragePool", "gap", value)
        elif isinstance(layer, nn.Linear):
            graph.gemm("fc", graph.node("Flatten", "flatten", value), layer, output="logits")
    graph.save(
        OUTPUT,
        ("image", ["batch", 1, 28, 28]),
        ("logits", ["batch", 10]),
        "CNN with BatchNormalization for MNIST, trained by network slimming. Input: pixels divided by 255.",
        {"trained_on": "MNIST", "domain": "image=0:1", "recipe": "slim_cnn.py"},
    )


def report() -> None:
    weights = initializers(OUTPUT)
    for number in range(1, 5):
        scale, shift = weights[f"bn{number}.scale"], weights[f"bn{number}.shift"]
        zero = scale == 0
        positive = int((zero & (shift > 0)).sum())
        print(
            f"bn{number}: {len(scale)} channels, {int(zero.sum())} with scale zero, of which {positive} constant "
            f"and non-zero after the ReLU, {int(zero.sum()) - positive} constant zero"
        )
    first, second = (weights[f"bn{number}.scale"] == 0 for number in (1, 2))
    print(f"depthwise channels: {int((first & second).sum())} zero in bn1 and bn2, ", end="")
    print(f"{int((first & ~second).sum())} only in bn1, {int((~first & second).sum())} only in bn2")
    print(f"parameters: {sum(int(np.prod(array.shape)) for array in weights.values())}")


def main() -> None:
    options = arguments(__doc__, "mnist.npz")
    prepare()
    images, labels = load_images(options.data, "test")
    if not options.check:
        start = time.process_time()
        net = train(options.data)
        print(f"training: {time.process_time() - start:.0f} s")
        write(net)
        verify(OUTPUT, net, images[:1000])
    print(f"test accuracy: {accuracy(OUTPUT, images, labels):.2%}")
    report()


if __name__ == "__main__":
    main()
