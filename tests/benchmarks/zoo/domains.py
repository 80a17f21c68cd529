"""A domain for every model of a folder of known ones: its property file, or the range of its inputs."""

from __future__ import annotations

from pathlib import Path

RANGES = {
    "slim320": "-0.9921875:1",
    "mb05": "-0.99609375:0.99609375",
    "resnet20": "-2.2:2.7",
    "acas11": "-0.5:0.5",
}
"""Inputs of models that were normalised before; all others without a property file take 0:1."""
PROPERTIES = {
    "tllBench_n=2_N=M=8_m=1_instance_0_0": "property_N=8_0",
    "tllBench_n=2_N=M=16_m=1_instance_1_0": "property_N=16_0",
}
FREE = ("cbs",)
"""Folders whose models take every finite input."""


def domains(models: Path) -> dict[str, str | None]:
    """Rules for ``onnxprune zoo --domains``, one per model; property files by their full names."""
    rules: dict[str, str | None] = {}
    for path in sorted(models.rglob("*.onnx")):
        name = path.relative_to(models).as_posix()
        wanted = PROPERTIES.get(path.stem, path.stem)
        found = sorted(path.parent.glob("*.vnnlib"), key=lambda file: (not file.stem.startswith(wanted), file))
        free = path.parent.name in FREE
        rules[name] = None if free else str(found[0]) if found else RANGES.get(path.stem, "0:1")
    return rules
