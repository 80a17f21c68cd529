"""Train controller.onnx: a 4-64-64-1 ReLU network that imitates a saturated cart-pole regulator."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    SEED,
    Array,
    Graph,
    arguments,
    batches,
    initializers,
    interval_counts,
    numpy,
    prepare,
    run,
    soft_threshold,
    verify,
)
from torch import Tensor, nn

OUTPUT = Path(__file__).with_suffix(".onnx")
DOMAIN = OUTPUT.with_name("controller_domain.npz")
CALIBRATION = OUTPUT.with_name("controller_samples.npz")
EPOCHS, BATCH, RATE, L1, SAMPLES = 40, 250, 3e-3, 1e-1, 40000

# State: cart position [m], cart velocity [m/s], pole angle from upright [rad], angular velocity [rad/s].
# The cart is regulated to position 0, which is not the middle of its track.
LOWER = np.array([-1.0, -2.0, -0.4, -2.0])
UPPER = np.array([2.0, 2.0, 0.4, 2.0])
MIDDLE, HALF = (LOWER + UPPER) / 2, (UPPER - LOWER) / 2
FORCE = 20.0  # N, either way
CART, POLE, LENGTH, GRAVITY, STEP = 1.0, 0.1, 0.5, 9.81, 0.05  # kg, kg, half length in m, m/s2, s
STATE_COST, FORCE_COST = np.diag([4.0, 0.5, 20.0, 0.5]), np.array([[0.02]])
REACH = 0.4  # m, limit of the position error that the regulator sees, so that the cart returns at a bounded speed


def derivative(state: Array, force: Array) -> Array:
    """Time derivative of the frictionless cart-pole, for rows of states."""
    _, speed, angle, spin = state.T
    sine, cosine, mass = np.sin(angle), np.cos(angle), CART + POLE
    push = (force + POLE * LENGTH * spin**2 * sine) / mass
    turn = (GRAVITY * sine - cosine * push) / (LENGTH * (4 / 3 - POLE * cosine**2 / mass))
    return np.stack([speed, push - POLE * LENGTH * turn * cosine / mass, spin, turn], axis=1)


def advance(state: Array, force: Array, step: float = STEP) -> Array:
    """One Runge-Kutta step."""
    a = derivative(state, force)
    b = derivative(state + step / 2 * a, force)
    c = derivative(state + step / 2 * b, force)
    d = derivative(state + step * c, force)
    result: Array = state + step / 6 * (a + 2 * b + 2 * c + d)
    return result


def linearise() -> tuple[Array, Array]:
    """Discrete-time A and B at the upright position, by central differences."""
    tiny = 1e-5
    steps = tiny * np.eye(4)
    a = (advance(steps, np.zeros(4)) - advance(-steps, np.zeros(4))).T / (2 * tiny)
    zero = np.zeros((1, 4))
    b = (advance(zero, np.full(1, tiny)) - advance(zero, np.full(1, -tiny))).T / (2 * tiny)
    return a, b


def regulator() -> Array:
    """Gain of the infinite-horizon linear quadratic regulator, by value iteration."""
    a, b = linearise()
    cost, gain = STATE_COST, np.zeros((1, 4))
    for _ in range(5000):
        gain = np.linalg.solve(FORCE_COST + b.T @ cost @ b, b.T @ cost @ a)
        cost = STATE_COST + a.T @ cost @ (a - b @ gain)
    return gain


GAIN = regulator()


def teacher(state: Array) -> Array:
    """Force of the linear regulator with a limited position error, made exact for large angles, saturated.

    The linear model turns the regulator's force into an angular acceleration; the force returned gives that
    acceleration to the nonlinear cart-pole.
    """
    position, speed, angle, spin = state.T
    mass = CART + POLE
    wish = -np.stack([position.clip(-REACH, REACH), speed, angle, spin], axis=1) @ GAIN[0]
    turn = (GRAVITY * angle - wish / mass) / (LENGTH * (4 / 3 - POLE / mass))
    sine, cosine = np.sin(angle), np.cos(angle)
    push = (GRAVITY * sine - turn * LENGTH * (4 / 3 - POLE * cosine**2 / mass)) / cosine
    force: Array = (mass * push - POLE * LENGTH * spin**2 * sine).clip(-FORCE, FORCE)
    return force


def sample(generator: np.random.Generator, count: int) -> Array:
    """Half of the states uniform over the box, half shrunk towards the upright position at the origin."""
    states = generator.uniform(LOWER, UPPER, (count, 4))
    states[::2] *= generator.uniform(0, 1, (len(states[::2]), 1))
    return states


def normalise(states: Array) -> Tensor:
    """Maps the box to [-1, 1]; Sub and Div do it in the ONNX file."""
    return torch.tensor((states - MIDDLE) / HALF, dtype=torch.float32)


def train(generator: np.random.Generator) -> nn.Sequential:
    states = sample(generator, SAMPLES)
    inputs = normalise(states)
    target = torch.tensor(teacher(states)[:, None], dtype=torch.float32)
    lowest = target.masked_fill(target <= -FORCE + 1e-3, -torch.inf)  # beyond the limit any force is right
    highest = target.masked_fill(target >= FORCE - 1e-3, torch.inf)
    net = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    weights = [module.weight for module in net if isinstance(module, nn.Linear)]
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    for epoch in range(EPOCHS):
        total = 0.0
        for index in batches(SAMPLES, BATCH):
            force = net(inputs[index])
            loss = (force - torch.clamp(force, lowest[index], highest[index])).square().mean()
            total += loss.item()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            for weight in weights:
                soft_threshold(weight, L1 * optimizer.param_groups[0]["lr"])
        schedule.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1}: loss {total / (SAMPLES // BATCH):.4f}", flush=True)
    return net.append(nn.Hardtanh(-FORCE, FORCE)).eval()


def write(net: nn.Sequential) -> None:
    graph = Graph()
    middle, half = (array.astype(np.float32) for array in (MIDDLE, HALF))
    value = graph.node("Sub", "centre", "state", graph.weight("centre.middle", middle))
    value = graph.node("Div", "scale", value, graph.weight("scale.half", half))
    layers = [module for module in net if isinstance(module, nn.Linear)]
    for number, layer in enumerate(layers, 1):
        value = graph.gemm(f"fc{number}", value, layer)
        if number < len(layers):
            value = graph.node("Relu", f"relu{number}", value)
    limits = [graph.weight(f"limit.{end}", np.array(f, np.float32)) for end, f in (("min", -FORCE), ("max", FORCE))]
    graph.node("Clip", "limit", value, *limits, output="force")
    graph.save(
        OUTPUT,
        ("state", [1, 4]),
        ("force", [1, 1]),
        "Cart-pole controller: position, velocity, pole angle, angular velocity (SI units) to force in newton.",
        {
            "trained_on": "states sampled in the domain, forces of a saturated regulator",
            "domain": "controller_domain.npz",
            "recipe": "controller.py",
        },
    )
    box: dict[str, Any] = {"state.lower": LOWER, "state.upper": UPPER}
    np.savez(DOMAIN, **box)
    samples = np.random.default_rng(0).uniform(LOWER, UPPER, (500, 4))
    np.savez(CALIBRATION, state=samples.astype(np.float32))


def simulate(generator: np.random.Generator, runs: int = 200, seconds: float = 8.0) -> tuple[int, int]:
    """Runs from half the box that end at rest at the origin: with the network, with the teacher."""
    start = generator.uniform(LOWER / 2, UPPER / 2, (runs, 4))
    good = []
    for policy in (lambda x: run(OUTPUT, x.astype(np.float32))[:, 0].astype(np.float64), teacher):
        state = start
        for _ in range(round(seconds / STEP)):
            state = np.clip(advance(state, policy(state)), -5, 5)
        good.append(int((np.abs(state) < 0.1).all(1).sum()))
    return good[0], good[1]


def report() -> None:
    generator = np.random.default_rng(SEED + 1)
    states = sample(generator, 5000)
    error = run(OUTPUT, states.astype(np.float32))[:, 0] - teacher(states)
    print(f"force error on 5000 new states: root mean square {np.sqrt((error**2).mean()):.3f} N, ", end="")
    print(f"largest {np.abs(error).max():.2f} N")
    network, reference = simulate(generator)
    print(f"stabilised in 200 simulated runs: network {network}, teacher {reference}")
    weights = initializers(OUTPUT)
    print(interval_counts(weights, ("fc1", "fc2"), -np.ones(4), np.ones(4)))
    shares = [f"{layer} {(weights[f'{layer}.weight'] == 0).mean():.0%}" for layer in ("fc1", "fc2", "fc3")]
    print("exactly zero weights:", ", ".join(shares))
    unread = [int((weights[f"fc{n}.weight"] == 0).all(0).sum()) for n in (2, 3)]
    print(f"units with only zero outgoing weights: fc1 {unread[0]}, fc2 {unread[1]}")


def main() -> None:
    options = arguments(__doc__, None)
    prepare()
    generator = np.random.default_rng(SEED)
    if not options.check:
        start = time.process_time()
        net = train(generator)
        print(f"training: {time.process_time() - start:.0f} s")
        write(net)
        states = sample(generator, 1000).astype(np.float32)
        verify(OUTPUT, lambda state: net(normalise(numpy(state))), torch.from_numpy(states))
    report()


if __name__ == "__main__":
    main()
