"""Life of the process that works on one model: ``python -m onnxprune.zoo.child``.

It is started in an empty folder and reads its job, one line of JSON, from standard input. What it produces goes below
``files`` in that folder, what it has to say into ``result.json``; its parent moves the files into place. A further
line asks it to end with what is proved; when its standard input ends, its parent is gone and so is it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.errors import OnnxpruneError
from onnxprune.zoo.job import FILES, RESULT, Job, data_name, report_path
from onnxprune.zoo.rows import FIGURES, Status

if TYPE_CHECKING:
    import onnx

    from onnxprune.optimizer import Result

_BAD_ALLOC = ("bad_alloc", "Failed to allocate memory", "out of memory")


def main() -> None:
    """Do the job, and say what became of it."""
    staging = Path.cwd()
    parent = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 # a buffer's lock would stop Python at its end
    job = Job.from_json(parent.readline())
    asked = threading.Event()
    threading.Thread(target=_listen, args=(parent, asked), daemon=True).start()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # when memory runs out, this process is the one to go
    with contextlib.suppress(OSError):
        os.chdir(job.home)
    content = _outcome(job, staging, asked.is_set)
    content |= {"early": asked.is_set(), "processor": round(sum(os.times()[:4]), 3)}
    (staging / RESULT).write_text(json.dumps(content), encoding="utf-8")


def _listen(parent: io.FileIO, asked: threading.Event) -> None:
    while parent.readline():
        asked.set()
    os._exit(1)


def _outcome(job: Job, staging: Path, stopped: Callable[[], bool]) -> dict[str, Any]:
    """What a row says of the work itself."""
    folder = staging / FILES
    folder.mkdir()
    try:
        return _copy(job, folder) if job.copy_of else _optimize(job, folder, stopped)
    except OnnxpruneError as error:
        return _failure(error.what)
    except MemoryError:
        return {"status": Status.OUT_OF_MEMORY.value, "reason": "an allocation failed"}
    except Exception as error:  # a bad model may find a mistake of ours: its row says so, and the others go on
        traceback.print_exc()
        place = traceback.extract_tb(error.__traceback__)[-1]
        return _failure(f"unexpected {type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})")


def _failure(reason: str) -> dict[str, Any]:
    short = any(sign in reason for sign in _BAD_ALLOC)
    return {"status": (Status.OUT_OF_MEMORY if short else Status.FAILED).value, "reason": " ".join(reason.split())}


def _optimize(job: Job, folder: Path, stopped: Callable[[], bool]) -> dict[str, Any]:
    from onnxprune.domain import Domain, parse_domain  # noqa: PLC0415 # a copy needs none of these
    from onnxprune.graph.files import load, write_text  # noqa: PLC0415
    from onnxprune.optimizer import optimize_source  # noqa: PLC0415
    from onnxprune.options import Options  # noqa: PLC0415
    from onnxprune.samples import input_specs  # noqa: PLC0415

    source = load(job.model)
    domain = Domain.everything()
    if job.domain:
        domain = parse_domain(job.domain, input_specs(source.model), mean=job.mean, std=job.std)
    result = optimize_source(source, domain, Options(**job.options, stopped=stopped))
    name = Path(job.path).name
    _write(result, folder / name, job.key)
    write_text(folder / report_path(name), result.report.to_json())
    report = result.report.content
    return {
        "status": (Status.OPTIMIZED if result.modified else Status.UNCHANGED).value,
        "before": {figure: report["before"][figure] for figure in FIGURES},
        "after": {figure: report["after"][figure] for figure in FIGURES},
        "units": [report["units"]["total"], report["units"]["removed"]],
        "error": report["validation"]["max_abs_error"],
        "samples": report["validation"]["samples"],
    }


def _write(result: Result[onnx.ModelProto], path: Path, key: str) -> None:
    """Write the result; external data get a name that no other model's data have."""
    from onnx import save_model  # noqa: PLC0415

    from onnxprune.graph.files import copy_unchanged, save  # noqa: PLC0415
    from onnxprune.protobuf import LIMIT, byte_size  # noqa: PLC0415

    if not result.modified:
        copy_unchanged(result.source, path)
    elif result.source.external or byte_size(result.model) > LIMIT:
        data = data_name(path.name, key)
        save_model(result.model, path, save_as_external_data=True, location=data, size_threshold=1024)
    else:
        save(result.model, path)


def _copy(job: Job, folder: Path) -> dict[str, Any]:
    from onnxprune.graph.files import copy_unchanged, load, write_text  # noqa: PLC0415

    name = Path(job.path).name
    copy_unchanged(load(Path(job.output, job.copy_of)), folder / name)
    report = json.loads(Path(job.output, report_path(job.copy_of)).read_text(encoding="utf-8"))
    report["model"]["path"] = job.model
    write_text(folder / report_path(name), json.dumps(report, indent=1) + "\n")
    return {"status": Status.UNCHANGED.value}


if __name__ == "__main__":
    main()
