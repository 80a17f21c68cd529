"""Run one pass on a small model in text form, and check everything that holds for every pass."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto

from onnxprune.domain import Domain, parse_domain
from onnxprune.facts import Facts
from onnxprune.graph.graph import Graph
from onnxprune.graph.groups import ChannelGroups
from onnxprune.pass_api import PassReport
from onnxprune.pass_registry import select
from onnxprune.samples import input_specs
from tests.helpers import Feeds, Tensor, parse, session

SCALARS = {"zero": 0.0, "half": 0.5, "one": 1.0, "root2": np.sqrt(2), "three": 3.0, "six": 6.0}
GELU = "a = Div (h, root2) e = Erf (a) p = Add (e, one) m = Mul (h, p) r = Mul (m, half)"
HARD_SWISH = "a = Add (h, three) c = Clip (a, zero, six) d = Div (c, six) r = Mul (h, d)"
SIZES = {"N": (1, 2, 3), "H": (3, 4, 6), "W": (4, 3, 5)}


def net(
    body: str,
    inputs: str = "float[N,2] x",
    outputs: str = "float[N,1] y",
    *,
    opset: int = 17,
    ir: int = 8,
    functions: str = "",
    **tables: Any,
) -> ModelProto:
    """A model from text; nested lists (float32) and arrays become initializers where the text names them."""
    read = {name: v for name, v in {**SCALARS, **tables}.items() if re.search(rf"\b{name}\b", body)}
    arrays = {name: v if isinstance(v, np.ndarray) else np.array(v, np.float32) for name, v in read.items()}
    imports = ', "local": 1' if functions else ""
    model = parse(body, inputs, outputs, arrays, opset=opset, ir=ir, imports=imports, functions=functions)
    model.doc_string = "written by a test"
    model.metadata_props.add(key="names", value="{0: 'cat'}")
    model.graph.doc_string = "a small graph"
    return model


def taps(table: Any, size: int = 1) -> Tensor:
    """A square kernel from a table (rows: outputs, columns: inputs); all taps of a pair are equal."""
    flat = np.array(table, np.float32)
    return np.broadcast_to(flat[:, :, None, None], (*flat.shape, size, size)).copy()


def ints(*values: int) -> Tensor:
    return np.array(values, np.int64)


def as_domain(domain: Domain | str | None, model: ModelProto) -> Domain:
    if isinstance(domain, str):
        return parse_domain([domain], input_specs(model))
    return domain or Domain.everything()


def why(model: ModelProto, tensor: str, index: int, axis: int = 1) -> str:
    """Why an index of an axis must stay ("" if nothing forbids its removal)."""
    groups = ChannelGroups(Graph(model))
    return groups.why_locked(int(groups.of((tensor, axis))[index]))


@dataclass(frozen=True)
class Done:
    """A model after one run of a pass, and the report."""

    model: ModelProto
    report: PassReport

    @property
    def ops(self) -> list[str]:
        return [node.op_type for node in self.model.graph.node]

    @property
    def names(self) -> set[str]:
        """Initializer names."""
        return {tensor.name for tensor in self.model.graph.initializer}

    @property
    def deviation(self) -> float:
        """Largest proved deviation of an edited tensor."""
        return max(self.report.deviations.values(), default=0.0)

    def node(self, output: str) -> NodeProto:
        found = [node for node in self.model.graph.node if output in node.output]
        assert len(found) == 1, f"{len(found)} nodes write {output}"
        return found[0]

    def attributes(self, output: str) -> dict[str, Any]:
        return {a.name: onnx.helper.get_attribute_value(a) for a in self.node(output).attribute}

    def layer(self, output: str) -> list[Any]:
        """Constant inputs of the node that writes ``output``, as nested lists (kernels as tables)."""
        arrays = {tensor.name: tensor for tensor in self.model.graph.initializer}
        values = [onnx.numpy_helper.to_array(arrays[name]) for name in self.node(output).input if name in arrays]
        return [_table(value) if value.ndim == 4 else value.tolist() for value in values]


def _table(kernel: Tensor) -> Any:
    assert (kernel == kernel[:, :, :1, :1]).all(), "taps differ"
    return kernel[:, :, 0, 0].tolist()


def run_pass(
    name: str,
    model: ModelProto,
    domain: Domain | str | None = None,
    *,
    protected: Mapping[str, frozenset[int]] | None = None,
    tolerance: float | None = None,
) -> Done:
    """Run a pass once; without a domain the inputs are small integers and the outputs must be equal."""
    before = model.SerializeToString(deterministic=True)
    graph, where = Graph(model), as_domain(domain, model)
    (item,) = select(name)
    report = item.run(graph, Facts(graph, where, protected or {}))
    result = graph.to_model()
    assert model.SerializeToString(deterministic=True) == before, "the caller's model was changed"
    assert report.modified == (result.SerializeToString(deterministic=True) != before)
    onnx.checker.check_model(result, full_check=True)
    _same_surroundings(model, result)
    _equal_outputs(model, result, where, (1e-5 if domain else 0.0) if tolerance is None else tolerance)
    return Done(result, report)


def unchanged(name: str, model: ModelProto, domain: Domain | str | None = None) -> None:
    """The pass finds nothing to do (and then the model is the same, byte for byte)."""
    report = run_pass(name, model, domain).report
    assert not report.modified, report
    assert (report.removed, report.merged, +report.changes) == ({}, {}, {})


def settle(name: str, model: ModelProto, domain: Domain | str | None = None, **options: Any) -> Done:
    """Run a pass until it finds nothing more; the report is that of the first run."""
    done = first = run_pass(name, model, domain, **options)
    for _ in range(8):
        if not done.report.modified:
            return Done(done.model, first.report)
        done = run_pass(name, done.model, domain, **options)
    raise AssertionError(f"{name} does not come to an end")


def _same_surroundings(model: ModelProto, result: ModelProto) -> None:
    fed = {spec.name for spec in input_specs(model)}
    assert [v for v in result.graph.input if v.name in fed] == [v for v in model.graph.input if v.name in fed]
    assert list(result.graph.output) == list(model.graph.output)
    assert list(result.metadata_props) == list(model.metadata_props)
    assert list(result.opset_import) == list(model.opset_import)
    for field in ("doc_string", "domain", "model_version", "producer_name"):
        assert getattr(result, field) == getattr(model, field)
    assert result.graph.doc_string == model.graph.doc_string


def _feeds(model: ModelProto, domain: Domain, seed: int) -> Feeds:
    rng, specs = np.random.default_rng(seed), input_specs(model)
    sizes = {name: choice[seed] for name, choice in SIZES.items()}
    shapes = {s.name: tuple(d if isinstance(d, int) else sizes.get(str(d), 2) for d in s.shape or ()) for s in specs}
    if domain.restricts:
        return domain.sample(specs, shapes, rng, "corner" if seed == 0 else "uniform")
    return {s.name: rng.integers(0 if s.dtype.kind in "bu" else -4, 5, shapes[s.name]).astype(s.dtype) for s in specs}


def _equal_outputs(model: ModelProto, result: ModelProto, domain: Domain, tolerance: float) -> None:
    one, other = session(model), session(result)
    for seed in range(3):
        feeds = _feeds(model, domain, seed)
        for expected, found in zip(one.run(None, feeds), other.run(None, feeds), strict=True):
            assert np.shape(found) == np.shape(expected)
            scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
            np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


VECTOR: dict[str, Any] = {"inputs": "float[N,2] x", "outputs": "float[N,2] y"}


def tidy(body: str, **options: Any) -> Done:
    """Tidied once; a second time finds nothing."""
    done = run_pass("tidy", net(body, **{**VECTOR, **options}), tolerance=1e-6)
    assert not run_pass("tidy", done.model, tolerance=1e-6).report.modified
    assert (done.deviation, done.report.needed_domain, done.report.removed) == (0, False, {})
    return done


def left_alone(body: str, **options: Any) -> Done:
    done = tidy(body, **options)
    assert not done.report.modified, done.report.changes
    return done
