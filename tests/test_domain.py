from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, get_args

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from onnxprune import vnnlib
from onnxprune.domain import Box, Constraint, Domain, InputSpec, SampleKind, around, parse_domain
from onnxprune.errors import InputError

INF = math.inf
FLOAT32 = np.dtype(np.float32)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
IMAGE = InputSpec("image", FLOAT32, ("batch", 3, None, 4))
VECTOR = InputSpec("x", FLOAT32, (1, 3))
PIXELS = InputSpec("pixels", np.dtype(np.uint8), (1, 2))
INDEX = InputSpec("index", np.dtype(np.int64), (1,))
FLAG = InputSpec("flag", np.dtype(np.bool_), ())
TEXT = InputSpec("text", np.dtype(object), (1,))
UNRANKED = InputSpec("any", FLOAT32, None)
KINDS: tuple[SampleKind, ...] = get_args(SampleKind)
DTYPES = [np.dtype(t) for t in "?bBhHiIlLefd"] + [BFLOAT16]
SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "models" / "vnncomp"
needs_vnncomp = pytest.mark.skipif(
    not SHARED.exists(), reason="the VNN-COMP files lie in shared/models/vnncomp beside the repository"
)

patient = settings(deadline=None)  # a busy machine is no failure
finite = st.floats(-1e6, 1e6)
decimals = st.decimals(-10000, 10000, allow_nan=False)


def below(text: str) -> float:
    return vnnlib.outward(Decimal(text), up=False)


def above(text: str) -> float:
    return vnnlib.outward(Decimal(text), up=True)


def scalar(dtype: np.dtype[Any]) -> InputSpec:
    return InputSpec("x", dtype, (1,))


def ends(domain: Domain, spec: InputSpec) -> tuple[Any, Any]:
    lower, upper = domain.bounds(spec)
    assert lower.dtype == upper.dtype == np.float64
    assert lower.shape == upper.shape
    assert lower.ndim in (0, len(spec.shape or ()))
    return lower.tolist(), upper.tolist()


def f32(values: object) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def save(path: Path, arrays: Mapping[str, object]) -> str:
    named: Any = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez(path, **named)
    return str(path)


def check_error(caught: pytest.ExceptionInfo[InputError], what: str, hint: str = "") -> None:
    assert caught.value.what == what
    assert hint in caught.value.hint
    assert caught.value.hint
    assert "\n" not in caught.value.what + caught.value.hint


class TestEverything:
    @pytest.mark.parametrize(
        ("dtype", "low", "high"),
        [
            (np.dtype(np.bool_), 0, 1),
            (np.dtype(np.uint8), 0, 255),
            (np.dtype(np.int8), -128, 127),
            (np.dtype(np.int64), -(2.0**63), 2.0**63),
            (np.dtype(np.float16), -65504, 65504),
            (FLOAT32, -(2.0**128 - 2.0**104), 2.0**128 - 2.0**104),
            (np.dtype(np.float64), -float(np.finfo(np.float64).max), float(np.finfo(np.float64).max)),
            (BFLOAT16, -(2.0**128 - 2.0**120), 2.0**128 - 2.0**120),
            (np.dtype(object), -INF, INF),
        ],
    )
    def test_bounds_are_the_range_of_the_type(self, dtype: np.dtype[Any], low: float, high: float) -> None:
        assert ends(Domain.everything(), scalar(dtype)) == (low, high)

    def test_reports(self) -> None:
        domain = Domain.everything()
        assert not domain.restricts
        assert domain.describe() == "every finite input"
        assert domain.to_metadata() == {}
        expected = {"kind": "everything", "inputs": {}, "constraints": 0, "origin": "everything finite"}
        assert domain.to_json() == expected

    def test_no_texts(self) -> None:
        assert parse_domain([], [VECTOR]).to_json() == Domain.everything().to_json()


class TestText:
    def test_all_numeric_inputs(self) -> None:
        domain = parse_domain(["-0.5:2"], [VECTOR, PIXELS, INDEX, FLAG, TEXT])
        assert ends(domain, VECTOR) == (-0.5, 2)
        assert ends(domain, PIXELS) == (0, 2)
        assert ends(domain, INDEX) == (0, 2)
        assert "flag" not in domain.boxes  # 0 and 1 are all a bool can be
        assert "text" not in domain.boxes
        assert domain.restricts
        assert domain.origin == "-0.5:2"

    def test_one_input(self) -> None:
        domain = parse_domain(["x=0:1"], [VECTOR, INDEX])
        assert list(domain.boxes) == ["x"]
        assert domain.boxes["x"].lower.ndim == 0

    @pytest.mark.parametrize("name", ["a=b", "x:0", "0", "onnx::Gemm_8", "=", "a=0:1"])
    def test_odd_names(self, name: str) -> None:
        spec = InputSpec(name, FLOAT32, (1,))
        assert ends(parse_domain([f"{name}=0:1"], [spec]), spec) == (0, 1)

    def test_texts_intersect(self) -> None:
        domain = parse_domain(["0:1", "x=-1:0.5", "x=0.25:3"], [VECTOR, INDEX])
        assert ends(domain, VECTOR) == (0.25, 0.5)
        assert ends(domain, INDEX) == (0, 1)
        assert domain.origin == "0:1, x=-1:0.5, x=0.25:3"

    def test_open_sides(self) -> None:
        largest = float(np.finfo(np.float32).max)
        assert ends(parse_domain(["-inf:1"], [VECTOR]), VECTOR) == (-largest, 1)
        assert ends(parse_domain(["0:inf"], [VECTOR]), VECTOR) == (0, largest)
        assert ends(parse_domain(["-1e-3:2.5E1"], [VECTOR]), VECTOR) == (below("-1e-3"), 25)

    @pytest.mark.parametrize("text", ["-inf:inf", "-1e39:1e39"])
    def test_box_that_excludes_nothing_restricts_nothing(self, text: str) -> None:
        assert not parse_domain([text], [VECTOR]).restricts

    def test_type_ranges_are_met(self) -> None:
        assert not parse_domain(["0:300"], [PIXELS]).restricts
        assert ends(parse_domain(["200:300"], [PIXELS]), PIXELS) == (200, 255)

    def test_integers_lie_inside(self) -> None:
        assert ends(parse_domain(["-1.5:2.9"], [INDEX]), INDEX) == (-1, 2)

    def test_decimals_fix_a_float32(self) -> None:
        near = float(FLOAT32.type(0.1))
        assert ends(parse_domain(["0.1:0.1"], [VECTOR]), VECTOR) == (near, near)
        exact = repr(near)  # its digits are a little off: both bounds are not quite equal
        assert below(exact) < above(exact)
        assert ends(parse_domain([f"{exact}:{exact}"], [VECTOR]), VECTOR) == (near, near)
        assert ends(parse_domain(["0.1:0.2"], [VECTOR]), VECTOR) == (below("0.1"), above("0.2"))
        double = scalar(np.dtype(np.float64))
        assert ends(parse_domain(["0.1:0.1"], [double]), double) == (below("0.1"), above("0.1"))

    @patient
    @given(decimals, decimals)
    def test_decimals_are_rounded_outward(self, a: Decimal, b: Decimal) -> None:
        low, high = sorted((a, b))
        double = scalar(np.dtype(np.float64))
        lower, upper = ends(parse_domain([f"{low}:{high}"], [double]), double)
        assert Fraction(lower) <= Fraction(low) < Fraction(math.nextafter(lower, INF))
        assert Fraction(math.nextafter(upper, -INF)) < Fraction(high) <= Fraction(upper)

    @pytest.mark.parametrize("text", ["0-1", "0:1:2", "1", "", "a:b", "nan:1", "0:nan", "x=0", "box.npy"])
    def test_unreadable(self, text: str) -> None:
        with pytest.raises(InputError) as caught:
            parse_domain([text], [VECTOR])
        check_error(caught, f"Cannot read the domain '{text}'.", "Write 0:1 or input=0:1")

    def test_unknown_input(self) -> None:
        with pytest.raises(InputError) as caught:
            parse_domain(["imge=0:1"], [IMAGE, INDEX])
        hint = "Did you mean 'image'? Inputs: image, index."
        check_error(caught, "imge=0:1: the model has no input 'imge'.", hint)
        with pytest.raises(InputError) as caught:
            parse_domain(["=0:1"], [IMAGE])
        check_error(caught, "=0:1: the model has no input ''.", "Inputs: image.")

    @pytest.mark.parametrize(
        ("texts", "spec", "why"),
        [
            (["1:0"], VECTOR, "lower 1 is above upper 0."),
            (["0:1", "x=2:3"], VECTOR, "lower 2 is above upper 1."),
            (["300:400"], PIXELS, "lower 300 is above upper 255."),
            (["0.2:0.8"], INDEX, "lower 1 is above upper 0."),
            (["inf:inf"], VECTOR, "lower inf is above upper 3.40282e+38."),
        ],
    )
    def test_empty(self, texts: list[str], spec: InputSpec, why: str) -> None:
        with pytest.raises(InputError) as caught:
            parse_domain(texts, [spec])
        check_error(caught, f"Empty or inverted domain for input '{spec.name}': {why}", str(spec.dtype))

    def test_text_inputs_have_no_bounds(self) -> None:
        with pytest.raises(InputError) as caught:
            parse_domain(["text=0:1"], [TEXT])
        check_error(caught, "Input 'text' holds object, which has no bounds.", "Bound numeric inputs only.")


class TestNormalization:
    MEAN = (0.485, 0.456, 0.406)
    STD = (0.229, 0.224, 0.225)

    def test_channels_of_an_image(self) -> None:
        domain = parse_domain(["0:1"], [IMAGE], mean=self.MEAN, std=self.STD)
        lower, upper = domain.bounds(IMAGE)
        assert lower.shape == upper.shape == (1, 3, 1, 1)
        for channel, (mean, std) in enumerate(zip(self.MEAN, self.STD, strict=True)):
            for value, exact, out in (
                (lower[0, channel, 0, 0], (0 - Fraction(str(mean))) / Fraction(str(std)), -INF),
                (upper[0, channel, 0, 0], (1 - Fraction(str(mean))) / Fraction(str(std)), INF),
            ):
                inner = Fraction(math.nextafter(float(value), -out))
                assert min(inner, Fraction(float(value))) <= exact <= max(inner, Fraction(float(value)))
                assert exact != inner
        assert domain.origin == "0:1; mean 0.485,0.456,0.406; std 0.229,0.224,0.225"

    def test_channels_last(self) -> None:
        spec = InputSpec("x", FLOAT32, (1, 8, 8, 3))
        assert parse_domain(["0:1"], [spec], std=(1, 2, 4)).boxes["x"].upper.tolist() == [[[[1, 0.5, 0.25]]]]

    def test_one_number_for_all(self) -> None:
        domain = parse_domain(["0:255"], [VECTOR], mean=[127.5], std=[127.5])
        assert ends(domain, VECTOR) == (-1, 1)
        domain = parse_domain(["image=0:1"], [IMAGE, VECTOR], mean=(1, 2, 3), std=[0.5])
        assert domain.boxes["image"].lower.ravel().tolist() == [-2, -4, -6]

    def test_open_sides_stay_open(self) -> None:
        box = parse_domain(["0:inf"], [IMAGE], mean=self.MEAN).boxes["image"]
        assert np.isposinf(box.upper).all()

    @pytest.mark.parametrize(
        ("mean", "std", "what"),
        [
            ((0, 0, 0), (1, 1), "Mean has 3 entries, std has 2."),
            ((), None, "Mean has 0 entries, std has 1."),
            ((0, 0, 0), (1, 0, 1), "Mean and std 0,0,0; 1,0,1 cannot be used."),
            ((0, 0, 0), (1, -1, 1), "Mean and std 0,0,0; 1,-1,1 cannot be used."),
            ((math.nan,), None, "Mean and std NaN; 1.0 cannot be used."),
            (
                (0, 0),
                (1, 1),
                "Mean and std have 2 entries, no channel axis of input 'image' (batchx3x?x4) has.",
            ),
        ],
    )
    def test_unusable_numbers(self, mean: tuple[float, ...], std: tuple[float, ...] | None, what: str) -> None:
        with pytest.raises(InputError) as caught:
            parse_domain(["0:1"], [IMAGE], mean=mean, std=std)
        check_error(caught, what)

    def test_without_a_pixel_box(self) -> None:
        with pytest.raises(InputError) as caught:
            parse_domain([], [IMAGE], mean=self.MEAN)
        check_error(caught, "Mean and std have no pixel box to act on.", "Add one, such as 0:1")


class TestArrays:
    def test_bounds_by_input(self, tmp_path: Path) -> None:
        arrays = {"x.lower": [0, 1, 2], "x.upper": f32([[1, 1, 3]]), "image.upper": 1}
        domain = parse_domain([save(tmp_path / "box.npz", arrays)], [VECTOR, IMAGE, INDEX])
        assert ends(domain, VECTOR) == ([[0, 1, 2]], [[1, 1, 3]])
        assert domain.boxes["image"].lower.tolist() == -INF
        assert domain.boxes["image"].upper.tolist() == 1
        assert "index" not in domain.boxes

    def test_bounds_per_channel(self, tmp_path: Path) -> None:
        path = save(tmp_path / "box.npz", {"image.lower": np.zeros((3, 1, 1)), "image.upper": 1})
        assert parse_domain([path], [IMAGE]).boxes["image"].upper.shape == (1, 3, 1, 1)

    def test_together_with_text(self, tmp_path: Path) -> None:
        path = save(tmp_path / "two.boxes.npz", {"x.upper": [1, 2, 3]})
        assert ends(parse_domain([path, "0:2"], [VECTOR]), VECTOR) == ([[0, 0, 0]], [[1, 2, 2]])

    def test_entry_of_an_inverted_box_is_named(self, tmp_path: Path) -> None:
        path = save(tmp_path / "box.npz", {"x.lower": [0, 0, 2], "x.upper": [1, 1, 1]})
        with pytest.raises(InputError) as caught:
            parse_domain([path], [VECTOR])
        what = "Empty or inverted domain for input 'x': lower 2 is above upper 1 at entry 2."
        check_error(caught, what, "Give lower:upper in this order")

    @pytest.mark.parametrize(
        ("array", "what", "hint"),
        [
            ([0, math.nan, 0], "NaN found.", "-inf and inf for no bound"),
            (["a"], "<U1 is no real number type.", "float64 or narrower"),
            ([1j], "complex128 is no real number type.", "float64 or narrower"),
            ([0, 1], "shape 2 does not fit input 'x' of shape 1x3.", "1 along dynamic axes"),
            (np.zeros((1, 1, 3)), "shape 1x1x3 does not fit input 'x' of shape 1x3.", "or 1"),
        ],
    )
    def test_unusable_arrays(self, tmp_path: Path, array: object, what: str, hint: str) -> None:
        path = save(tmp_path / "box.npz", {"x.lower": array})
        with pytest.raises(InputError) as caught:
            parse_domain([path], [VECTOR])
        check_error(caught, f"{path}, x.lower: {what}", hint)

    @pytest.mark.parametrize(("spec", "shape"), [(IMAGE, (2, 3, 1, 1)), (IMAGE, (1, 3, 5, 4)), (UNRANKED, (1,))])
    def test_dynamic_axes_take_no_array(self, tmp_path: Path, spec: InputSpec, shape: tuple[int, ...]) -> None:
        path = tmp_path / "box.npz"
        with pytest.raises(InputError, match="does not fit input"):
            parse_domain([save(path, {f"{spec.name}.lower": np.zeros(shape)})], [spec])

    def test_unknown_input(self, tmp_path: Path) -> None:
        path = save(tmp_path / "box.npz", {"X.lower": 0})
        with pytest.raises(InputError) as caught:
            parse_domain([path], [VECTOR])
        check_error(caught, f"{path}: the model has no input 'X'.", "Inputs: x.")

    def test_no_matching_arrays(self, tmp_path: Path) -> None:
        path = save(tmp_path / "box.npz", {"x": 0})
        with pytest.raises(InputError) as caught:
            parse_domain([path], [VECTOR])
        check_error(caught, f"{path}: no bounds found.", "<input>.lower and <input>.upper")

    def test_files_that_cannot_be_read(self, tmp_path: Path) -> None:
        path = tmp_path / "box.npz"
        with pytest.raises(InputError) as caught:
            parse_domain([str(path)], [VECTOR])
        check_error(caught, f"Cannot read {path}: No such file or directory.", "Check the path.")
        save(path, {"x.lower": [None]})
        pickled = path.read_bytes()
        for content in (b"", b"PK\x03\x04 but no zip", b"some text", pickled):
            path.write_bytes(content)
            with pytest.raises(InputError) as caught:
                parse_domain([str(path)], [VECTOR])
            check_error(caught, f"Cannot read {path}: no NumPy file of plain numbers.", "numpy.savez")
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
        with pytest.raises(InputError, match="no bounds found"):
            parse_domain([str(path)], [VECTOR])


class TestVnnLib:
    SPECS = (InputSpec("a", FLOAT32, ("batch", 2)), InputSpec("b", FLOAT32, (1, 1, 2)))
    TEXT = (
        "".join(f"(declare-const X_{i} Real)" for i in range(4))
        + "(declare-const Y_0 Real)(assert (>= X_0 -1))(assert (<= X_0 1))(assert (<= X_2 5))"
        + "(assert (<= X_1 X_3))(assert (<= Y_0 0))"
    )

    @pytest.fixture
    def path(self, tmp_path: Path) -> str:
        (tmp_path / "spec.vnnlib").write_text(self.TEXT)
        return str(tmp_path / "spec.vnnlib")

    def test_variables_run_over_all_inputs(self, path: str) -> None:
        domain = parse_domain([path], self.SPECS)
        assert domain.boxes["a"].lower.tolist() == [[-1, -INF]]
        assert domain.boxes["a"].upper.tolist() == [[1, INF]]
        assert domain.boxes["b"].upper.tolist() == [[[5, INF]]]
        assert domain.constraints == (Constraint((("a", 1, 1.0), ("b", 1, -1.0)), 0.0),)
        assert domain.restricts

    def test_reports(self, path: str) -> None:
        domain = parse_domain([path], self.SPECS)
        assert domain.describe() == "a in -inf:inf; b in -inf:inf; linear constraints: 1"
        report = domain.to_json()
        assert (report["kind"], report["constraints"]) == ("box+constraints", 1)
        assert report["inputs"]["b"] == {"lower": None, "upper": None, "free": 2, "fixed": 0}
        metadata = domain.to_metadata()
        assert set(metadata) == {"onnxprune.domain.a", "onnxprune.domain.b", "onnxprune.domain"}
        assert metadata["onnxprune.domain"].startswith("1 linear constraints, sha256:")

    def test_violated_constraints(self, path: str) -> None:
        domain = parse_domain([path], self.SPECS)
        a = np.array([[0, 1], [0, 2], [0, 3]], np.float32)
        b = np.array([[[0, 2]]], np.float32)
        assert domain.violations({"a": a, "b": b}) == ["1 of 3 samples break 1 a[1] + -1 b[1] <= 0."]
        assert domain.contains({"a": a[:2], "b": b})
        assert domain.violations({"a": a}) == []
        (broken,) = domain.violations({"a": a + np.inf, "b": b})
        assert "lie outside the domain" in broken

    @pytest.mark.parametrize("kind", ["uniform", "normal", "corner"])
    def test_samples_meet_constraints(self, path: str, kind: SampleKind) -> None:
        domain = parse_domain([path, "-1:1"], self.SPECS)
        rng = np.random.default_rng(0)
        for _ in range(20):
            assert domain.contains(domain.sample(self.SPECS, {"a": (1, 2), "b": (1, 1, 2)}, rng, kind))

    def test_samples_fall_back_to_the_box(self, tmp_path: Path) -> None:
        path = tmp_path / "thin.vnnlib"
        path.write_text(self.TEXT + "(assert (= X_1 (* 3 X_3)))")
        domain = parse_domain([str(path), "0.5:1"], self.SPECS)
        feeds = domain.sample(self.SPECS, {"a": (1, 2), "b": (1, 1, 2)}, np.random.default_rng(0))
        assert not domain.contains(feeds)
        assert Domain(domain.boxes).contains(feeds)

    def test_constraint_sums_are_exact(self, path: str) -> None:
        domain = parse_domain([path], self.SPECS)
        a, b = np.zeros((1, 2)), np.zeros((1, 1, 2))
        a[0, 1], b[0, 0, 1] = 1 + 2.0**-52, 1
        assert not domain.contains({"a": a, "b": b})
        b[0, 0, 1] = a[0, 1]
        assert domain.contains({"a": a, "b": b})

    def test_wrong_number_of_variables(self, path: str) -> None:
        with pytest.raises(InputError) as caught:
            parse_domain([path], self.SPECS[:1])
        what = f"{path}: 4 variables X_i for 2 input entries (a batchx2)."
        check_error(caught, what, "dynamic axes count as 1")
        with pytest.raises(InputError, match=r"4 variables X_i for 5 input entries \(a batchx2, .* any unknown"):
            parse_domain([path], [*self.SPECS, UNRANKED])

    @needs_vnncomp
    def test_fixed_pixels_stay_fixed(self) -> None:
        spec = InputSpec("x", FLOAT32, (1, 792))
        domain = parse_domain([str(SHARED / "dist_shift" / "index4462_delta0.13.vnnlib")], [spec])
        assert domain.boxes["x"].fixed == 784

    @needs_vnncomp
    @pytest.mark.parametrize(
        "path", sorted(SHARED.rglob("*.vnnlib")), ids=lambda path: f"{path.parent.name}-{path.stem}"[:60]
    )
    def test_samples_of_competition_files(self, path: Path) -> None:
        graph = onnx.load(next(path.parent.glob("*.onnx")), load_external_data=False).graph
        constants = {initializer.name for initializer in graph.initializer}
        (value,) = (value for value in graph.input if value.name not in constants)
        dims = tuple(dim.dim_value or None for dim in value.type.tensor_type.shape.dim)
        spec = InputSpec(value.name, FLOAT32, dims)
        domain = parse_domain([str(path)], [spec])
        shapes = {spec.name: tuple(dim or 2 for dim in dims)}
        for kind in KINDS:
            assert domain.contains(domain.sample([spec], shapes, np.random.default_rng(0), kind))


class TestAround:
    def test_box_around_an_array(self) -> None:
        domain = around(f32([[0, 1, 2]]), 0.5, [VECTOR])
        assert ends(domain, VECTOR) == ([[-0.5, 0.5, 1.5]], [[0.5, 1.5, 2.5]])
        assert domain.origin == "The point +- 0.5"

    def test_files(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", f32([0, 1, 2]))
        domain = around(tmp_path / "x.npy", "0.25", [VECTOR])
        assert ends(domain, VECTOR) == ([[-0.25, 0.75, 1.75]], [[0.25, 1.25, 2.25]])
        domain = around(save(tmp_path / "points.npz", {"index": [7]}), 1, [VECTOR, INDEX])
        assert list(domain.boxes) == ["index"]
        assert ends(domain, INDEX) == ([6], [8])

    def test_clipped(self) -> None:
        specs = [VECTOR, INDEX]
        clip = parse_domain(["0:1"], specs)
        domain = around({"x": f32([0, 0.5, 1])}, 0.25, specs, clip)
        assert ends(domain, VECTOR) == ([[0, 0.25, 0.75]], [[0.25, 0.75, 1]])
        assert ends(domain, INDEX) == (0, 1)
        assert domain.origin == "The point +- 0.25, 0:1"

    def test_radius_zero_fixes_every_entry(self) -> None:
        point = f32([0.1, 0.2, 0.3])
        assert around(point, 0, [VECTOR]).boxes["x"].fixed == 3

    @patient
    @given(st.floats(-1e30, 1e30), st.decimals(0, 1000, allow_nan=False))
    def test_rounded_outward(self, point: float, radius: Decimal) -> None:
        double = scalar(np.dtype(np.float64))
        box = around(np.array([point]), str(radius), [double]).boxes["x"]
        lower, upper = float(box.lower[0]), float(box.upper[0])
        low, high = Fraction(point) - Fraction(radius), Fraction(point) + Fraction(radius)
        ulps = Fraction(math.ulp(float(radius)))
        assert 0 <= low - Fraction(lower) <= ulps + Fraction(math.ulp(lower))
        assert 0 <= Fraction(upper) - high <= ulps + Fraction(math.ulp(upper))

    @pytest.mark.parametrize("radius", [-0.1, math.nan, math.inf, "wide"])
    def test_unusable_radius(self, radius: float | str) -> None:
        with pytest.raises(InputError) as caught:
            around(np.zeros(3), radius, [VECTOR])
        check_error(caught, f"Radius {radius} is not a number >= 0.", "0.02")

    def test_unusable_points(self, tmp_path: Path) -> None:
        with pytest.raises(InputError) as caught:
            around(np.zeros(3), 1, [VECTOR, INDEX])
        check_error(caught, "The point: one array for a model with 2 inputs.", "Name the arrays: x, index.")
        with pytest.raises(InputError) as caught:
            around(np.zeros(4), 1, [VECTOR])
        check_error(caught, "The point: shape 4 does not fit input 'x' of shape 1x3.")
        with pytest.raises(InputError) as caught:
            around(np.array([0, math.nan, 0]), 1, [VECTOR])
        check_error(caught, "The point: NaN found.")
        with pytest.raises(InputError, match="lower inf is above upper"):
            around(np.array([0, math.inf, 0]), 1, [VECTOR])
        with pytest.raises(InputError, match="the model has no input 'y'"):
            around(save(tmp_path / "point.npz", {"y": 0}), 1, [VECTOR])
        with pytest.raises(InputError, match="No such file"):
            around(tmp_path / "none.npy", 1, [VECTOR])

    def test_outside_the_clip(self) -> None:
        with pytest.raises(InputError, match="lower 2 is above upper 1 at entry 1"):
            around(np.array([0, 3, 0]), 1, [VECTOR], parse_domain(["0:1"], [VECTOR]))


class TestViolations:
    def test_worst_excess(self) -> None:
        domain = parse_domain(["x=0:1"], [VECTOR, INDEX])
        data: dict[str, NDArray[Any]] = {"x": f32([[0, 1, 1.5], [-2, 0, 1]]), "index": np.array([99])}
        expected = ["2 of 6 values of input 'x' lie outside the domain, by up to 2."]
        assert domain.violations(data) == expected
        assert not domain.contains(data)
        assert domain.contains({"x": f32([[0, 1, 0.5]])})

    def test_only_finite_values_are_in_any_domain(self) -> None:
        data = {"x": f32([[0, np.nan, np.inf]])}
        expected = ["2 of 3 values of input 'x' lie outside the domain, by up to inf."]
        assert Domain.everything().violations(data) == expected

    def test_text_is_never_outside(self) -> None:
        assert Domain.everything().contains({"text": np.array(["a"], dtype=object)})

    def test_bounds_are_exact(self) -> None:
        domain = parse_domain(["0:0.1"], [VECTOR])
        assert not domain.contains({"x": f32([0.1])})
        assert domain.contains({"x": np.nextafter(f32([0.1]), FLOAT32.type(0))})


class TestSample:
    @patient
    @given(
        st.sampled_from(DTYPES),
        st.lists(st.tuples(finite, finite), min_size=1, max_size=4),
        st.sampled_from(KINDS),
        st.integers(0, 2**32),
    )
    def test_always_inside(
        self, dtype: np.dtype[Any], pairs: list[tuple[float, float]], kind: SampleKind, seed: int
    ) -> None:
        spec = InputSpec("x", dtype, (None, len(pairs)))
        box = {"x": np.array([sorted(pair) for pair in pairs]).mean(axis=1)}
        radius = float(np.ptp(pairs, axis=1).max()) / 2
        try:
            domain = around(box, radius, [spec])
        except InputError:
            return  # nothing of that type lies in the box
        sample = domain.sample([spec], {"x": (3, len(pairs))}, np.random.default_rng(seed), kind)["x"]
        assert sample.shape == (3, len(pairs))
        assert sample.dtype == dtype
        lower, upper = (np.broadcast_to(ends, (1, len(pairs))) for ends in domain.bounds(spec))
        exact = [[Fraction(float(value)) for value in row] for row in sample.tolist()]
        for row in exact:
            for value, low, high in zip(row, lower.ravel(), upper.ravel(), strict=True):
                assert Fraction(float(low)) <= value <= Fraction(float(high))
        assert domain.contains({"x": sample})

    @patient
    @given(decimals, st.sampled_from([np.dtype(np.float16), FLOAT32, BFLOAT16]), st.sampled_from(KINDS))
    def test_fixed_decimals(self, value: Decimal, dtype: np.dtype[Any], kind: SampleKind) -> None:
        spec = scalar(dtype)
        domain = parse_domain([f"{value}:{value}"], [spec])
        feeds = domain.sample([spec], {"x": (1,)}, np.random.default_rng(0), kind)
        assert domain.contains(feeds)
        assert feeds["x"] == np.array([float(value)]).astype(dtype)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("text", ["", "1:inf", "-inf:1"])
    def test_open_sides(self, dtype: np.dtype[Any], kind: SampleKind, text: str) -> None:
        spec = scalar(dtype)
        domain = parse_domain([text] if text else [], [spec])
        rng = np.random.default_rng(0)
        for _ in range(30):
            feeds = domain.sample([spec], {"x": (4,)}, rng, kind)
            assert domain.contains(feeds)
            if dtype.itemsize > 1:
                assert np.abs(feeds["x"].astype(np.float64)).max() <= 60
            if dtype.itemsize > 1 and dtype.kind in "iu" and not text:
                assert set(feeds["x"].tolist()) <= {0, 1}

    def test_kinds(self) -> None:
        domain = parse_domain(["-1:3"], [VECTOR])
        rng = np.random.default_rng(0)
        shapes = {"x": (500, 3)}
        draws = {kind: domain.sample([VECTOR], shapes, rng, kind)["x"] for kind in KINDS}
        assert set(draws["corner"].ravel().tolist()) == {-1, 3}
        assert set(draws["center"].ravel().tolist()) == {1}
        assert len(np.unique(draws["uniform"])) > 1000
        assert 0.9 < draws["uniform"].mean() < 1.1
        assert 0.8 < draws["normal"].mean() < 1.2

    def test_corners_are_the_largest_values_inside(self) -> None:
        domain = parse_domain(["0:0.1"], [VECTOR])
        sample = domain.sample([VECTOR], {"x": (1, 30)}, np.random.default_rng(0), "corner")["x"]
        assert sample.max() == np.nextafter(FLOAT32.type(0.1), FLOAT32.type(0))

    def test_bytes_and_flags_take_every_value(self) -> None:
        shapes = {"pixels": (1, 5000), "flag": (100,)}
        feeds = Domain.everything().sample([PIXELS, FLAG], shapes, np.random.default_rng(0))
        assert len(np.unique(feeds["pixels"])) == 256
        assert set(feeds["flag"].tolist()) == {False, True}

    def test_scalars_are_arrays(self) -> None:
        for kind in KINDS:
            feeds = Domain.everything().sample([FLAG], {"flag": ()}, np.random.default_rng(0), kind)
            assert isinstance(feeds["flag"], np.ndarray)

    def test_seeds_decide(self) -> None:
        one, two = (Domain.everything().sample([VECTOR], {"x": (1, 3)}, np.random.default_rng(7)) for _ in range(2))
        assert np.array_equal(one["x"], two["x"])

    def test_text_cannot_be_sampled(self) -> None:
        with pytest.raises(InputError) as caught:
            Domain.everything().sample([TEXT], {"text": (1,)}, np.random.default_rng(0))
        check_error(caught, "Input 'text' holds object and cannot be sampled.", "Give data for it.")


class TestReports:
    def test_metadata_of_a_uniform_box(self) -> None:
        assert parse_domain(["0:1"], [VECTOR]).to_metadata() == {"onnxprune.domain.x": "0:1"}
        assert parse_domain(["-inf:1.5"], [VECTOR]).to_metadata() == {"onnxprune.domain.x": "-inf:1.5"}
        assert parse_domain(["-0.0:-0.0"], [VECTOR]).to_metadata() == {"onnxprune.domain.x": "0:0"}

    @patient
    @given(st.floats(allow_nan=False), st.floats(allow_nan=False), st.sampled_from([np.float32, np.float64]))
    def test_metadata_reads_back_as_the_same_box(self, a: float, b: float, kind: type) -> None:
        spec = scalar(np.dtype(kind))
        try:
            domain = parse_domain([f"{Decimal(min(a, b))}:{Decimal(max(a, b))}"], [spec])
        except InputError:
            return  # outside the type's range
        for text in domain.to_metadata().values():
            again = parse_domain([text], [spec])
            assert ends(again, spec) == ends(domain, spec)
            assert again.to_metadata() == domain.to_metadata()

    def test_metadata_is_rounded_inward(self) -> None:
        (text,) = parse_domain(["0.1:0.2"], [scalar(np.dtype(np.float64))]).to_metadata().values()
        lower, upper = map(Fraction, text.split(":"))
        assert Fraction(below("0.1")) <= lower <= Fraction(1, 10)
        assert upper == Fraction(1, 5)

    def test_metadata_of_other_boxes_is_a_hash(self) -> None:
        def text(lower: list[float], upper: list[float]) -> str:
            box = Box(np.array([lower], dtype=np.float64), np.array([upper], dtype=np.float64))
            return Domain({"x": box}).to_metadata()["onnxprune.domain.x"]

        one = text([0, 0, 0], [1, 2, 3])
        assert one.startswith("sha256:")
        assert one.endswith(" of lower and upper, hull 0:3")
        assert one == text([-0.0, 0, 0], [1, 2, 3])
        assert one != text([0, 0, 0], [2, 1, 3])

    def test_json(self) -> None:
        domain = around(f32([0, 1, 2]), 0.5, [VECTOR], parse_domain(["0.5:1.5"], [VECTOR]))
        assert json.loads(json.dumps(domain.to_json(), allow_nan=False)) == {
            "kind": "box",
            "inputs": {"x": {"lower": 0.5, "upper": 1.5, "free": 1, "fixed": 2}},
            "constraints": 0,
            "origin": "The point +- 0.5, 0.5:1.5",
        }

    def test_describe(self) -> None:
        specs = [InputSpec(name, FLOAT32, (1, 2)) for name in "abcde"]
        assert parse_domain(["a=0:1", "b=2:2"], specs).describe() == "a in 0:1; b in 2:2 (1 of 1 fixed)"
        expected = "a in 0:0.1; b in 0:0.1; c in 0:0.1; 2 more inputs bounded"
        assert parse_domain(["0:0.1"], specs).describe() == expected
