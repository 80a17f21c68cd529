"""Train transformer.onnx: an encoder with self-attention that reads an MNIST digit row by row."""

from __future__ import annotations

import math
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
    numpy,
    prepare,
    verify,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, softmax

OUTPUT = Path(__file__).with_suffix(".onnx")
EPOCHS, BATCH, RATE, DECAY = 8, 100, 3e-3, 0.05
TOKENS, PIXELS, WIDTH, HEADS, HIDDEN, BLOCKS, CLASSES = 28, 28, 48, 4, 96, 2, 10


class Block(nn.Module):
    """Self-attention and a feed-forward part, each after a LayerNorm and added to its input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        q, k, v = (split(layer(h)) for layer in (self.query, self.key, self.value))
        shares = softmax(q @ k.transpose(2, 3) / math.sqrt(WIDTH // HEADS), dim=-1)
        x = x + self.out((shares @ v).transpose(1, 2).flatten(2))
        result: Tensor = x + self.down(gelu(self.up(self.norm2(x))))
        return result

    def export(self, graph: Graph, name: str, x: str) -> str:
        h = norm(graph, f"{name}.norm1", x, self.norm1)
        queries, keys, values = (
            heads(graph, f"{name}.{part}", linear(graph, f"{name}.{part}", h, layer), order)
            for part, layer, order in (
                ("query", self.query, [0, 2, 1, 3]),
                ("key", self.key, [0, 2, 3, 1]),
                ("value", self.value, [0, 2, 1, 3]),
            )
        )
        root = graph.weight(f"{name}.root", np.float32(math.sqrt(WIDTH // HEADS)))
        scores = graph.node("Div", f"{name}.scale", graph.node("MatMul", f"{name}.scores", queries, keys), root)
        shares = graph.node("Softmax", f"{name}.softmax", scores, axis=-1)
        mixed = graph.node(
            "Transpose", f"{name}.gather", graph.node("MatMul", f"{name}.mix", shares, values), perm=[0, 2, 1, 3]
        )
        mixed = reshape(graph, f"{name}.join", mixed, [0, TOKENS, WIDTH])
        x = graph.node("Add", f"{name}.add1", x, linear(graph, f"{name}.out", mixed, self.out))
        h = linear(graph, f"{name}.up", norm(graph, f"{name}.norm2", x, self.norm2), self.up)
        h = linear(graph, f"{name}.down", gelu_nodes(graph, f"{name}.gelu", h), self.down)
        return graph.node("Add", f"{name}.add2", x, h)


class Encoder(nn.Module):
    """Rows of the image as tokens, learned positions, blocks, the mean over tokens, scores."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(PIXELS, WIDTH)
        self.positions = nn.Parameter(0.02 * torch.randn(TOKENS, WIDTH))
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, rows: Tensor) -> Tensor:
        x = self.embed(rows) + self.positions
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.head(self.norm(x).mean(1))
        return result


def split(x: Tensor) -> Tensor:
    """Heads as an axis of their own, before the tokens."""
    return x.unflatten(2, (HEADS, WIDTH // HEADS)).transpose(1, 2)


def train(data: str) -> Encoder:
    images, labels = load_images(data, "train")
    rows = images[:, 0]
    net = Encoder()
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    steps = EPOCHS * (len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    for epoch in range(EPOCHS):
        total = 0.0
        for index in batches(len(rows), BATCH):
            loss = cross_entropy(net(rows[index]), labels[index])
            total += loss.item()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {total / (len(rows) // BATCH):.4f}", flush=True)
    return net.eval()


def linear(graph: Graph, name: str, x: str, module: nn.Linear) -> str:
    """A linear map of every token."""
    product = graph.node("MatMul", name, x, graph.weight(f"{name}.weight", numpy(module.weight).T))
    return graph.node("Add", f"{name}.shift", product, graph.weight(f"{name}.bias", numpy(module.bias)))


def norm(graph: Graph, name: str, x: str, module: nn.LayerNorm) -> str:
    scale, shift = (graph.weight(f"{name}.{part}", numpy(getattr(module, part))) for part in ("weight", "bias"))
    return graph.node("LayerNormalization", name, x, scale, shift, axis=-1, epsilon=module.eps)


def reshape(graph: Graph, name: str, x: str, shape: list[int]) -> str:
    return graph.node("Reshape", name, x, graph.weight(f"{name}.shape", np.array(shape, dtype=np.int64)))


def heads(graph: Graph, name: str, x: str, order: list[int]) -> str:
    parts = reshape(graph, f"{name}.split", x, [0, TOKENS, HEADS, WIDTH // HEADS])
    return graph.node("Transpose", f"{name}.turn", parts, perm=order)


def gelu_nodes(graph: Graph, name: str, x: str) -> str:
    """x / 2 (1 + erf(x / sqrt 2)); the operator Gelu came with opset 20."""
    root, one, half = (
        graph.weight(f"{name}.{part}", np.float32(value))
        for part, value in (("root", math.sqrt(2)), ("one", 1.0), ("half", 0.5))
    )
    share = graph.node("Erf", f"{name}.erf", graph.node("Div", f"{name}.div", x, root))
    product = graph.node("Mul", f"{name}.mul", x, graph.node("Add", f"{name}.add", share, one))
    return graph.node("Mul", name, product, half)


def write(net: Encoder) -> None:
    graph = Graph()
    x = linear(graph, "embed", "rows", net.embed)
    x = graph.node("Add", "place", x, graph.weight("positions", numpy(net.positions)))
    for number, block in enumerate(net.blocks):
        assert isinstance(block, Block)
        x = block.export(graph, f"block{number + 1}", x)
    x = graph.node("ReduceMean", "mean", norm(graph, "norm", x, net.norm), axes=[1], keepdims=0)
    graph.gemm("head", x, net.head, output="logits")
    graph.save(
        OUTPUT,
        ("rows", ["batch", TOKENS, PIXELS]),
        ("logits", ["batch", CLASSES]),
        "Transformer encoder for MNIST, whose tokens are the rows of the image. Input: pixels divided by 255.",
        {"trained_on": "MNIST", "domain": "rows=0:1", "recipe": "transformer.py"},
    )


def report() -> None:
    weights = initializers(OUTPUT)
    linear_weights = sum(array.size for name, array in weights.items() if name.endswith(".weight") and array.ndim == 2)
    parameters = sum(array.size for array in weights.values() if array.dtype == np.float32)
    print(f"parameters: {parameters}, of which weights of linear layers: {linear_weights}")


def main() -> None:
    options = arguments(__doc__, "mnist.npz")
    prepare()
    images, labels = load_images(options.data, "test")
    rows = images[:, 0]
    if not options.check:
        start = time.process_time()
        net = train(options.data)
        print(f"training: {time.process_time() - start:.0f} s")
        write(net)
        verify(OUTPUT, net, rows[:1000])
    print(f"test accuracy: {accuracy(OUTPUT, rows, labels):.2%}")
    report()


if __name__ == "__main__":
    main()
