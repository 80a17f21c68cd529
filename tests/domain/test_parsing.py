"""Domains from ``lower:upper``, with mean and std, and from VNN-LIB files."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given

from onnxprune.domain import Constraint, Domain, InputSpec, SampleKind, parse_domain
from onnxprune.errors import InputError
from tests.domain.support import (
    FLAG,
    FLOAT32,
    IMAGE,
    INDEX,
    INF,
    KINDS,
    PIXELS,
    SHARED,
    TEXT,
    UNRANKED,
    VECTOR,
    above,
    below,
    check_error,
    decimals,
    ends,
    needs_vnncomp,
    patient,
    scalar,
)


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
        check_error(caught, f"Cannot read the domain '{text}'.", f"Write 0:1 or {VECTOR.name}=0:1")

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
