"""Counts with relucent, in a virtual environment of its own: ``python relucent_worker.py LAYERS.npz``; prints JSON."""

import json
import resource
import sys
import time

import numpy as np

WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def processor_time() -> float:
    """Seconds of this process and its children."""
    return sum(times.ru_utime + times.ru_stime for times in map(resource.getrusage, WHO))


def main() -> None:
    import relucent  # noqa: PLC0415 # only in its own environment
    from relucent.model.model import LinearLayer, ReLULayer, ReLUNetwork  # noqa: PLC0415

    with np.load(sys.argv[1]) as data:
        arrays = [data[name].astype(np.float64) for name in data.files]
    layers = []
    for number, (weights, bias) in enumerate(zip(arrays[::2], arrays[1::2], strict=True)):
        # the box [0, 1]^n becomes the cube [-1, 1]^n
        moved = (weights / 2, bias + weights.sum(axis=1) / 2) if number == 0 else (weights, bias)
        layers += [LinearLayer(*moved), ReLULayer()]
    inputs = arrays[0].shape[1]
    network = ReLUNetwork(layers, input_shape=(inputs,))
    found = relucent.Complex(network)
    began, spent = time.perf_counter(), processor_time()
    start = np.random.default_rng(0).uniform(-0.5, 0.5, (1, inputs))
    found.bfs(start=start, cube_radius=1.0, cube_mode="intersect", nworkers=1, verify=False, verbose=0)
    print(json.dumps({"count": len(found), "seconds": time.perf_counter() - began, "cpu": processor_time() - spent}))


if __name__ == "__main__":
    main()
