"""Changes of certificates and models that no systematic change of the content makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnxprune.domain import parse_domain
from onnxprune.graph.files import fingerprint
from onnxprune.samples import input_specs
from onnxprune.verify.checker import KEY, check_domain, check_seal, domain
from onnxprune.verify.evidence import Evidence
from onnxprune.verify.forward import Forward
from onnxprune.verify.network import Network
from onnxprune.verify.reading import parsed
from onnxprune.verify.relation import Relation
from onnxprune.verify.sides import Side
from onnxprune.verify.terms import Indices
from tests.helpers import parse
from tests.verify.support import Case, proved_by_cases, split_case

Attempt = Callable[[], object]
IDENTITY = "o = Constant <value_float = 1.0> () y = Mul (x, o)"


def forged(case: Case, original: onnx.ModelProto, optimized: onnx.ModelProto, **changed: Any) -> Case:
    """The certificate of a case, made to name other models."""
    found = deepcopy(case.content) | changed
    found["original"], found["optimized"] = ({"sha256": fingerprint(m)} for m in (original, optimized))
    return Case(original, optimized, found)


def with_weight(model: onnx.ModelProto, name: str, entry: int, change: float) -> onnx.ModelProto:
    """A copy with one weight changed."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    tensor = next(t for t in found.graph.initializer if t.name == name)
    values = onnx.numpy_helper.to_array(tensor).copy()
    values.reshape(-1)[entry] += np.float32(change)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
    return found


class _Lenient(Relation):
    """A walk that believes everything, for promises that fit whatever is wrong."""

    def unproved(self, tensor: str, source: str, rows: Indices) -> None:
        """Nothing is wrong with that."""


def promised(case: Case) -> Case:
    """A case with the promise that it would keep if it were right otherwise."""
    certificate = parsed(case.content, {})
    sides = []
    inputs = domain(certificate, Network.of(case.original), exact=False)
    for model, steps, finite in (
        (case.original, certificate.steps, True),
        (case.optimized, certificate.steps_optimized, False),
    ):
        net = Network.of(model)
        evidence = Evidence(net, inputs, steps, certificate.constraints, strict=False)
        sides.append(Side(net, Forward(net, inputs, False, finite, evidence.refine).run(), False))
    forms = _Lenient(sides[0], sides[1], certificate.anchors, certificate.open_rows, precise=np.inf).run()
    promise = {n: {"deviation": float(f.deviation), "rounding": float(f.rounding)} for n, f in forms.items()}
    return Case(case.original, case.optimized, case.content | {"promise": promise})


@cache
def pair(body: str, other: str, shape: str, output: str) -> Case:
    """Two models written down, and a certificate that says nothing but that they are the same."""
    models = tuple(parse(text, f"float[{shape}] x", f"float[{output}] y", {}) for text in (body, other))
    empty: dict[str, Any] = {
        "format": "onnxprune-certificate",
        "version": 1,
        "domain": {"inputs": {}, "constraints": []},
        "cuts": [],
        "bounds": {"original": [], "optimized": []},
        "relation": {"tensors": [], "handed_on": {}},
        "claims": [],
        "promise": {"y": {"deviation": 0.0, "rounding": 0.0}},
        "witnesses": {"points": {}, "seen": {}},
        "arrays": None,
        "seal": "",
    }
    return forged(Case(models[0], models[1], empty), *models)


def same(body: str, shape: str, output: str) -> Case:
    """A model and itself."""
    return pair(body, body, shape, output)


def related(case: Case, *tensors: dict[str, Any]) -> Attempt:
    """A check with further tensors of the relation."""
    relation = case.content["relation"]
    return lambda: case.check(
        case.content | {"relation": {**relation, "tensors": [*relation["tensors"], *tensors]}},
    )


def bounded(case: Case, **changed: Any) -> Attempt:
    """A check with one more bound."""
    step = {"tensor": "c", "side": "upper", "entries": [0], "bounds": [1e3], "trust": "certified", "rule": "adaptive"}
    bounds = {"original": [*case.content["bounds"]["original"], step | changed], "optimized": []}
    return lambda: case.check(case.content | {"bounds": bounds})


def within(case: Case, **changed: Any) -> Attempt:
    """A check on another domain."""
    return lambda: case.check(case.content | {"domain": {"inputs": {}, "constraints": []} | changed})


def forgeries() -> Iterator[tuple[str, Attempt]]:
    """Names, and checks that must be rejected."""
    for group in (_trees, _domains, _models, _cases, _tensors, _deviations):
        yield from group()


def _trees() -> Iterator[tuple[str, Attempt]]:
    case = split_case()
    (tree,) = case.content["cuts"]
    for name, more in (("a leaf too many", 1), ("a leaf too few", -1)):
        parts = {
            key: tree[key] + [-1 if key == "axes" else 0] if more > 0 else tree[key][:-1] for key in ("axes", "places")
        }
        yield name, lambda parts=parts: case.check(case.content | {"cuts": [tree | parts]})  # type: ignore[misc]
    half = within_box(same("h = Neg (x) r = Relu (h) y = Neg (r)", "1,2", "1,2"))
    trees = {"cuts": [{"input": "x", "axes": [0, -1], "places": [0.0, 0.0]}]}
    half = Case(half.original, half.optimized, half.content | trees)
    yield "half of the box is missing", bounded(half, tensor="h", entries=[1], bounds=[1.0 + 1e-9], cuts=0)
    yield "cuts for an output", bounded(case, tensor="y", cuts=0)
    for name, body in (("cuts", "r = Abs (x) y = Neg (r)"), ("a batch", "h = Neg (x) r = Relu (h) y = Neg (r)")):
        shape = "1,2" if name == "cuts" else "2,2"
        one = same(body, shape, shape)
        trees = one.content | {"cuts": [{"input": "x", "axes": [-1], "places": [0.0]}]}
        unit = Case(one.original, one.optimized, trees | {"domain": _box(-1.0, 1.0)})
        yield f"{name} where none can be", bounded(unit, tensor="r" if name == "cuts" else "h", cuts=0)
    weights = {"s": np.array([2, 2])}
    model = parse("h = Reshape (x, s) r = Relu (h) y = Neg (r)", "float[1,4] x", "float[2,2] y", weights)
    one = forged(same("y = Neg (x)", "1,2", "1,2"), model, model)
    trees = one.content | {"cuts": [{"input": "x", "axes": [-1], "places": [0.0]}], "domain": _box(-1.0, 1.0)}
    yield "samples become a batch", bounded(Case(model, model, trees), tensor="h", cuts=0)


def _box(low: Any, high: Any) -> dict[str, Any]:
    return {"inputs": {"x": {"lower": low, "upper": high}}, "constraints": []}


def within_box(case: Case) -> Case:
    """The same with a box for the input."""
    return Case(case.original, case.optimized, case.content | {"domain": _box(-1.0, 1.0)})


def _domains() -> Iterator[tuple[str, Attempt]]:
    case, unit = split_case(), same("y = Neg (x)", "1,2", "1,2")
    yield "a box for no input", within(unit, inputs={"z": {"lower": 0.0, "upper": 1.0}})
    yield "an empty box", within(unit, inputs=_box(1.0, -1.0)["inputs"])
    yield "a box of another shape", within(unit, inputs=_box([[0.0], [0.0]], [[1.0], [1.0]])["inputs"])
    endless = [{"terms": [["x", 0, 1.0]], "bound": float("nan")}]
    yield "a constraint that is no number", within(unit, constraints=endless)
    for name, made, text in (("a larger domain", case, "-2:2"), ("constraints", proved_by_cases(), "-1:1")):
        wanted = parse_domain([text], input_specs(made.original))
        yield (
            name,
            lambda made=made, wanted=wanted: check_domain(  # type: ignore[misc]
                parsed(made.content, {}), made.original, wanted
            ),
        )


def _models() -> Iterator[tuple[str, Attempt]]:
    case = split_case()
    sealed = _copy(case.optimized)
    sealed.metadata_props.append(onnx.StringStringEntryProto(key=KEY, value="0" * 64))
    yield "another seal", lambda: check_seal("1" * 64, sealed)
    renamed = _copy(case.optimized)
    renamed.graph.output[0].name = renamed.graph.node[-1].output[0] = "z"
    plain = same("y = Neg (x)", "1,2", "1,2")
    wider = _copy(plain.optimized)
    wider.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    yield "another type", forged(plain, plain.original, wider).check
    older = _copy(case.optimized)
    older.opset_import[0].version -= 1
    extended = _copy(case.optimized)
    node = helper.make_node("Neg", ["a"], ["b"])
    extended.functions.append(helper.make_function("own", "f", ["a"], ["b"], [node], [helper.make_opsetid("", 17)]))
    for name, model in (
        ("another output", renamed),
        ("older operators", older),
        ("a function", extended),
    ):
        yield name, lambda model=model: forged(case, case.original, model).check()  # type: ignore[misc]


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    found = onnx.ModelProto()
    found.CopyFrom(model)
    return found


def _cases() -> Iterator[tuple[str, Attempt]]:
    case = proved_by_cases()
    *others, step = case.content["bounds"]["original"]
    for number in range(len(step["cases"])):
        fewer = {**step, "cases": step["cases"][:number] + step["cases"][number + 1 :]}
        bounds = {"original": [*others, fewer], "optimized": []}
        yield f"without case {number}", lambda bounds=bounds: case.check(case.content | {"bounds": bounds})  # type: ignore[misc]
    far = deepcopy(step)
    for leaf in far["cases"]:
        leaf["phases"][0][1] = 600
    yield (
        "a phase of no unit",
        lambda: case.check(case.content | {"bounds": {"original": [*others, far], "optimized": []}}),
    )
    unit = same("r = Relu (x) y = Neg (r)", "N,M", "N,M")
    yield "a bound on one of no entries", bounded(unit, tensor="r")
    unit = same("r = Relu (x) y = Neg (r)", "1,2", "1,2")
    yield "a solver's word that is no number", bounded(unit, tensor="r", trust="solver", bounds=[float("nan")])


def _tensors() -> Iterator[tuple[str, Attempt]]:
    case = split_case()
    yield "a tensor that is not there", related(case, {"original": "zz", "optimized": "c"})
    relation = case.content["relation"]
    yield "rows of nothing", lambda: case.check(case.content | {"relation": {**relation, "handed_on": {"zz": [0]}}})
    first, *rest = relation["tensors"]
    loose = {**first, "factors": [1.0 if row >= 0 else float("nan") for row in first["rows"]]}
    yield (
        "a factor that is no number",
        lambda: case.check(case.content | {"relation": {**relation, "tensors": [loose, *rest]}}),
    )
    open_sizes = pair("r = Cos (x) y = Neg (r)", "r = Sin (x) y = Neg (r)", "N,M", "N,M")
    yield "rows of an unknown tensor", related(open_sizes, {"original": "r", "optimized": "r", "rows": [0]})
    unit = same("y = Neg (x)", "N,M", "N,M")
    yield "rows of an open size", related(unit, {"original": "y", "optimized": "y", "rows": [0]})
    other = pair("r = Cos (x) y = Neg (r)", "r = Sin (x) z = Concat <axis = 1> (r, r) y = Neg (r)", "1,2", "1,2")
    yield "another function", related(other, {"original": "r", "optimized": "r"})
    yield "another shape", related(other, {"original": "r", "optimized": "z"})
    yield "a tensor that nothing computes", related(other, {"original": "r", "optimized": "zz"})
    body = "f = Flatten (x) b = Concat <axis = 2> (x, x) a = Neg (x) y = Neg (a)"
    unit = same(body, "1,3,4", "1,3,4")
    for name, tensor in (("rank", "f"), ("length", "b")):
        yield f"another {name}", related(unit, {"original": "a", "optimized": tensor, "rows": [0, 1, 2]})
    yield "another axis", related(_axes(), {"original": "y", "optimized": "y"})
    ones = "z = Constant <value_float = 0.0> () m = Mul (x, z) k = Abs (m) {} = Sigmoid (k) "
    body = ones.format("a") + "b = Concat <axis = 2> (a, a) c = Abs (a) y = Neg (c)"
    rows = {"original": "c", "optimized": "b", "rows": [0, 1, 2]}
    unit = within_box(same(body, "1,3,4", "1,3,4"))
    unit = Case(unit.original, unit.optimized, unit.content | {"promise": {"y": {"deviation": 3e-13, "rounding": 0.0}}})
    yield "longer rows of the same constants", related(unit, rows, {"original": "y", "optimized": "y"})
    long = ones.format("a").replace("Sigmoid", "HardSigmoid") + "y = Concat <axis = 1> (a, a)"
    models = (
        parse(ones.format("y"), "float[1,2] x", "float[1,2] y", {}),
        parse(long, "float[1,2] x", "float[1,4] y", {}),
    )
    unit = within_box(forged(same("y = Neg (x)", "1,2", "1,2"), *models))
    slight = {"promise": {"y": {"deviation": 1.5e-13, "rounding": 0.0}}}  # what rounded bounds of a constant are worth
    unit = Case(unit.original, unit.optimized, unit.content | slight)
    yield "more of the same constant", related(unit, {"original": "y", "optimized": "y"})


def _axes() -> Case:
    """Scaled along one axis here, along another one there."""
    weights = {"w": np.full((2, 1), 2.0, np.float32), "v": np.eye(2, dtype=np.float32)}
    models = tuple(
        parse(text, "float[1,2,2] x", "float[1,2,2] y", weights) for text in ("y = Mul (x, w)", "y = MatMul (x, v)")
    )
    return forged(same("y = Neg (x)", "1,2", "1,2"), *models)


def _deviations() -> Iterator[tuple[str, Attempt]]:
    case = split_case()
    changed = with_weight(case.optimized, "w3", 0, 1e-2)
    yield "another weight, and a promise that fits", promised(forged(case, case.original, changed)).check
    outputs = [{"original": "y", "optimized": "y"}]
    for name, body, other, rows in (
        ("units that are not active", IDENTITY, "h = Neg (x) r = Relu (h) y = Neg (r)", {"r": [0, 1]}),
        ("another function", "y = Cos (x)", "y = Sin (x)", {}),
    ):
        unit = within_box(pair(body, other, "1,2", "1,2"))
        relation = {"relation": {"tensors": outputs, "handed_on": rows}}
        yield (
            f"{name}, and a promise that fits",
            promised(Case(unit.original, unit.optimized, unit.content | relation)).check,
        )
