"""The wheel and the sdist, built and used as strangers do: without the source tree, on every Python of this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
DATA = (
    "onnxprune/py.typed",
    "onnxprune/report/report.schema.json",
    "onnxprune/verify/certificate.schema.json",
    "onnxprune/passes/tidy.py",
)
BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, "build_" + sys.argv[1])(sys.argv[2]))
"""
SOURCES = ("onnxprune", "passes", "pyproject.toml", "README.md", "LICENSE")
pytestmark = pytest.mark.slow


def interpreter(version: str) -> str | None:
    """A Python of that version: on the path, or one of pyenv's."""
    homes = sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}.*/bin/python"))
    for candidate in (*map(str, homes), shutil.which(f"python{version}")):
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True, check=False).returncode == 0:
            return candidate
    return None


def ran(*arguments: str | Path, cwd: Path) -> str:
    """What a command prints; it has to succeed."""
    quiet = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "ONNXPRUNE_CACHE": ""}
    quiet.pop("PYTHONPATH", None)
    done = subprocess.run(arguments, cwd=cwd, env=quiet, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (arguments, done.stdout[-2000:], done.stderr[-2000:])
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made from the unpacked sdist, so that neither lacks anything."""
    folder = tmp_path_factory.mktemp("build")
    tree = folder / "tree"
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        tree.mkdir(exist_ok=True)
        copy(ROOT / name, tree / name)
    sdist = ran(sys.executable, "-c", BUILD, "sdist", folder, cwd=tree).splitlines()[-1]
    shutil.unpack_archive(folder / sdist, folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    name = ran(sys.executable, "-c", BUILD, "wheel", folder, cwd=unpacked).splitlines()[-1]
    return folder / name


def test_the_wheel_has_everything(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert set(DATA) <= names
    kept = {".py", ".json", ".css", ".js", ".typed"}
    sources = {path.relative_to(ROOT) for path in (ROOT / "onnxprune").rglob("*") if path.suffix in kept}
    assert {path.as_posix() for path in sources} - names == set()
    assert not any(name.startswith(("tests", "models", "docs")) for name in names)


@pytest.mark.parametrize("version", VERSIONS)
def test_it_installs_and_works(version: str, wheel: Path, tmp_path: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed")
    ran(python, "-m", "venv", "venv", cwd=tmp_path)
    scripts = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    inside, program = scripts / "python", scripts / "onnxprune"
    ran(inside, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    ran(inside, "-m", "pip", "check", cwd=tmp_path)
    assert "optimize" in ran(inside, "-W", "error", "-m", "onnxprune", "--help", cwd=tmp_path)
    shutil.copy(ROOT / "models" / "slim_cnn.onnx", tmp_path)
    files = ("--report", "r.json", "--html", "r.html", "--certificate", "c.json")
    out = ran(
        program, "optimize", "slim_cnn.onnx", "small.onnx", "--align", "8", "--goal", "size", *files, cwd=tmp_path
    )
    assert "48 of 154 units removed" in out
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["units"]["removed"] == 48
    assert "VERIFIED" in ran(program, "verify", "c.json", "slim_cnn.onnx", "small.onnx", cwd=tmp_path)
    assert "remove_inactive" in ran(program, "passes", cwd=tmp_path)
    assert "_shtab_onnxprune" in ran(program, "completion", "bash", cwd=tmp_path)
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        check_types(inside, tmp_path)


def check_types(python: Path, folder: Path) -> None:
    """mypy, strict, on code that uses the public names, against the installed package."""
    shutil.copy(Path(__file__).with_name("consumer.py"), folder)
    mypy = (sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--python-executable", python)
    assert "Success" in ran(*mypy, "consumer.py", cwd=folder)
