"""Train mnist_l1.onnx: a dense 784-100-100-10 ReLU network on MNIST with an L1 penalty on its weights."""

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
    interval_counts,
    load_images,
    prepare,
    verify,
)
from torch import nn

OUTPUT = Path(__file__).with_suffix(".onnx")
EPOCHS, BATCH, RATE, L1 = 25, 128, 0.1, 2e-4


def train(data: str) -> nn.Sequential:
    images, labels = load_images(data, "train")
    images = images.flatten(1)
    net = nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))
    weights = [module.weight for module in net if isinstance(module, nn.Linear)]
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for epoch in range(EPOCHS):
        total = 0.0
        for index in batches(len(images), BATCH):
            loss = nn.functional.cross_entropy(net(images[index]), labels[index])
            total += loss.item()
            penalty = torch.stack([weight.abs().sum() for weight in weights]).sum()
            optimizer.zero_grad()
            torch.autograd.backward(loss + L1 * penalty)
            optimizer.step()
        schedule.step()
        print(f"epoch {epoch + 1}: loss {total / (len(images) // BATCH):.4f}", flush=True)
    return net.eval()


def write(net: nn.Sequential) -> None:
    graph = Graph()
    value = "image"
    for number in (1, 2):
        layer = net[2 * number - 2]
        assert isinstance(layer, nn.Linear)
        value = graph.node("Relu", f"relu{number}", graph.gemm(f"fc{number}", value, layer))
    last = net[4]
    assert isinstance(last, nn.Linear)
    graph.gemm("fc3", value, last, output="logits")
    graph.save(
        OUTPUT,
        ("image", ["batch", 784]),
        ("logits", ["batch", 10]),
        "Dense ReLU network for MNIST, trained with an L1 penalty. Input: pixels divided by 255.",
        {"trained_on": "MNIST", "domain": "image=0:1", "recipe": "mnist_l1.py"},
    )


def main() -> None:
    options = arguments(__doc__, "mnist.npz")
    prepare()
    images, labels = load_images(options.data, "test")
    images = images.flatten(1)
    if not options.check:
        start = time.process_time()
        net = train(options.data)
        print(f"training: {time.process_time() - start:.0f} s")
        write(net)
        verify(OUTPUT, net, images[:1000])
    print(f"test accuracy: {accuracy(OUTPUT, images, labels):.2%}")
    print(interval_counts(initializers(OUTPUT), ("fc1", "fc2"), np.zeros(784), np.ones(784)))


if __name__ == "__main__":
    main()
