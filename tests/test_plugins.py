"""Plug-ins: a real package, installed by pip, whose pass and operator are found; and broken ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnx
import pytest

from onnxprune import pass_registry
from onnxprune.errors import EnvironmentFailure, InputError
from onnxprune.operators import registry as operator_registry
from tests.helpers import assert_equal_models, parse, weights

SOURCE = Path(__file__).parent / "plugins" / "demo_plugin"
OPTIMIZE = """
import json, sys, onnx, onnxprune
path, out, options = sys.argv[1:]
result = onnxprune.optimize(path, goal="size", align=1, **json.loads(options))
onnx.save(result.model, out)
print(json.dumps({key: result.report[key] for key in ("passes", "units", "kept_because")}))
"""


def can_build() -> bool:
    """Whether the setuptools of this environment can build wheels alone."""
    try:
        return int(version("setuptools").split(".")[0]) >= 71
    except PackageNotFoundError:
        return False


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables under which Python sees the installed plug-in."""
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(SOURCE, folder / "source")  # building leaves folders behind
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    isolation = ["--no-build-isolation"] if can_build() else []
    subprocess.run([*pip, *isolation, "--target", folder / "site", folder / "source"], check=True, capture_output=True)
    return {**os.environ, "PYTHONPATH": str(folder / "site")}


def python(environment: Mapping[str, str] | None, folder: Path, *arguments: str | Path) -> str:
    """What another Python prints, started away from the source tree."""
    ran = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def model(tail: str = "y = Gemm <transB = 1> (r, w2, b2)") -> onnx.ModelProto:
    """The custom operator, written as a local function so that ONNX Runtime can run it."""
    return parse(
        f"h = Gemm <transB = 1> (x, w1, b1) t = demo.Twice (h) r = Relu (t) {tail}",
        weights=weights(),
        imports=', "demo": 1',
        functions='<domain: "demo", opset_import: ["": 17]> Twice (a) => (b) { b = Add (a, a) }',
    )


def optimized(
    environment: Mapping[str, str] | None, folder: Path, original: onnx.ModelProto, **options: Any
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    onnx.save(original, folder / "in.onnx")
    text = python(environment, folder, "-c", OPTIMIZE, "in.onnx", "out.onnx", json.dumps(options))
    return onnx.load(folder / "out.onnx"), json.loads(text)


def test_the_commands_list_what_a_plugin_brings(installed: dict[str, str], tmp_path: Path) -> None:
    passes = python(installed, tmp_path, "-m", "onnxprune", "passes")
    names = [line.split()[0] for line in passes.splitlines() if line.split()]
    assert names.index("remove_unused") < names.index("demo_cancel_negations{limit}") < names.index("merge_parallel")
    assert "Remove pairs of Neg nodes; exact." in " ".join(passes.split())
    operators = python(installed, tmp_path, "-m", "onnxprune", "operators")
    assert ["demo.Twice", "yes", "yes"] in [line.split()[:3] for line in operators.splitlines()]


def test_nothing_of_it_is_found_without_the_installation(tmp_path: Path) -> None:
    assert "demo_" not in python(None, tmp_path, "-m", "onnxprune", "passes")


def test_the_operator_opens_the_way_through_a_custom_node(installed: dict[str, str], tmp_path: Path) -> None:
    original = model()
    result, report = optimized(installed, tmp_path, original)
    assert report["units"]["removed"] == 3
    assert_equal_models(original, result)
    _, without = optimized(None, tmp_path, original)
    assert without["units"]["removed"] == 0
    assert without["kept_because"]["demo.Twice is opaque"] == 8


@pytest.mark.parametrize(("options", "left"), [({}, 0), ({"skip": ["demo_cancel_negations"]}, 4)])
def test_the_pass_runs_by_default(
    installed: dict[str, str], tmp_path: Path, options: dict[str, Any], left: int
) -> None:
    original = model("p = Neg (r) q = Neg (p) s = Neg (q) t2 = Neg (s) y = Gemm <transB = 1> (t2, w2, b2)")
    result, report = optimized(installed, tmp_path, original, **options)
    assert [node.op_type for node in result.graph.node].count("Neg") == left
    assert_equal_models(original, result)
    assert ("demo_cancel_negations" in [entry["name"] for entry in report["passes"]]) == (left == 0)


def test_its_options_are_read(installed: dict[str, str], tmp_path: Path) -> None:
    script = "from onnxprune.pass_registry import select; print(select('demo_cancel_negations{limit=1}'))"
    assert "limit=1" in python(installed, tmp_path, "-c", script)


def test_a_wrong_pass_is_rolled_back_and_named(installed: dict[str, str], tmp_path: Path) -> None:
    original = model()
    result, report = optimized(installed, tmp_path, original, passes="demo_wrong,remove_inactive")
    wrong, right = report["passes"]
    assert (wrong["name"], wrong["modified"]) == ("demo_wrong", False)
    assert wrong["rolled_back"]
    assert (right["name"], right["removed"], right["rolled_back"]) == ("remove_inactive", 3, "")
    assert_equal_models(original, result)


@pytest.fixture
def fresh() -> Iterator[None]:
    """Entry points are read anew, before and after."""
    yield
    pass_registry.available.cache_clear()
    operator_registry.cache_clear()


def entry(monkeypatch: pytest.MonkeyPatch, module: str, value: str | None) -> None:
    """Pretend that this is the only entry point."""
    pass_registry.available.cache_clear()
    operator_registry.cache_clear()
    found = [] if value is None else [EntryPoint("extra", value, "any")]
    monkeypatch.setattr(import_module(module), "entry_points", lambda group: found)


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(
    ("value", "text"),
    [("json:JSONDecoder", "is not a pass"), ("onnxprune.domain:Domain", "is not a pass"), (None, "No passes")],
)
def test_a_broken_pass_is_named(monkeypatch: pytest.MonkeyPatch, value: str | None, text: str) -> None:
    entry(monkeypatch, "onnxprune.pass_registry", value)
    with pytest.raises(EnvironmentFailure, match=text) as error:
        pass_registry.available()
    assert error.value.hint
    assert value is None or value in error.value.what


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("value", ["json:JSONDecoder", "json:loads"])
def test_a_broken_operator_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    entry(monkeypatch, "onnxprune.operators.registry", value)
    with pytest.raises(EnvironmentFailure, match="is not a subclass") as error:
        operator_registry()
    assert value in error.value.what
    assert error.value.hint


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize(("module", "value"), [
    ("onnxprune.pass_registry", "no_such_package:Pass"), ("onnxprune.pass_registry", "json:NoSuchPass"),
    ("onnxprune.operators.registry", "no_such_package:Operator"),
])  # fmt: skip
def test_a_plugin_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch, module: str, value: str) -> None:
    entry(monkeypatch, module, value)
    with pytest.raises(EnvironmentFailure, match=value.replace(".", r"\.")):
        (pass_registry.available if "pass_registry" in module else operator_registry)()


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ("remove_inactiv", "Did you mean 'remove_inactive'"),
        ("zzz", "Known passes"),
        ("tidy{depth=1}", "no option 'depth'"),
        ("tidy(1)", "Cannot read"),
    ],
)
def test_unknown_names_and_options(names: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        pass_registry.select(names)


def test_the_default_order() -> None:
    names = [item.name for item in pass_registry.select(None)]
    assert names[:5] == ["tidy", "remove_inactive", "fold_constant", "remove_unused", "merge_parallel"]
    assert [item.name for item in pass_registry.select(None, skip=names[1:])] == ["tidy"]
    assert [item.name for item in pass_registry.select("merge_parallel, tidy")] == ["merge_parallel", "tidy"]
