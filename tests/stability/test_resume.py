"""Claims survive the run that made them: killed runs resume, and no run believes what is not its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from onnx import ModelProto

from onnxprune import Report, inspect
from onnxprune.certificate import Claim, ClaimStore, from_line
from onnxprune.errors import ProofError
from onnxprune.stability import programmes
from onnxprune.stability.solving import Found, Task, solve
from tests.helpers import command, snapshot
from tests.stability.planted import BOX, model, planted

SEED = 0
ROOT = Path(__file__).resolve().parents[2]
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
STATES = ("inactive", "active", "constant", "unstable", "undecided")
Place = tuple[str, int, str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where claims are kept."""
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path))
    return tmp_path / "claims"


class Asked(list[tuple[str, Place]]):
    """What solvers are asked: kind of the task, and question."""

    def of(self, *kinds: str) -> set[Place]:
        return {place for kind, place in self if kind in kinds}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What solvers are asked from now on."""
    places = Asked()

    def noting(task: Task) -> list[Found]:
        name = task.blocks.blocks[task.index].name
        places.extend((task.kind, (name, unit, "upper" if sign > 0 else "lower")) for unit, sign in task.pairs)
        return solve(task)

    monkeypatch.setattr(programmes, "solve", noting)
    return places


class Kept(NamedTuple):
    """What a complete run of the cascade left in its folder, and what it found."""

    name: str
    data: bytes
    counts: list[list[int]]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    home = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONNXPRUNE_CACHE", str(home))
        report = inspect(model(SEED), BOX)
    path = file_of(home / "claims")
    return Kept(path.name, path.read_bytes(), counts(report))


def counts(report: Report) -> list[list[int]]:
    return [[layer[state] for state in STATES] for layer in report["layers"]]


def file_of(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def claims(path: Path) -> Iterator[Claim]:
    for line in path.read_text().splitlines():
        if line:
            record = from_line(line.split(" ", 2)[2])
            if isinstance(record, Claim):
                yield record


def settled(path: Path) -> set[Place]:
    """Questions that claims answer."""
    return {
        (claim.layer, claim.unit, claim.side)
        for claim in claims(path)
        if (claim.bound <= 0 if claim.side == "upper" else claim.bound >= 0)
    }


CHILD = """
import os, sys
from onnxprune import inspect
from onnxprune.stability import programmes, solving

method, most = sys.argv[1], int(sys.argv[2])
calls = 0

def mortal(task):
    global calls
    calls += 1
    if calls > most:
        os.kill(os.getpid(), {kill})
    return solving.solve(task)

programmes.solve = mortal
programmes.CHUNK = 2
inspect(sys.stdin.buffer.read(), "{box}", method=method)
"""


def killed(method: str, calls: int, data: bytes) -> None:
    """Run until a solver has been called that often, and one more time; then the process is gone."""
    ran = subprocess.run(
        [sys.executable, "-c", CHILD.format(kill=int(KILL), box=BOX), method, str(calls)],
        input=data,
        capture_output=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert ran.returncode == -KILL, ran.stderr.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize(("method", "calls"), [("cascade", 3), ("cascade", 9), ("leo", 4)])
def test_a_killed_run_resumes(method: str, calls: int, folder: Path, asked: Asked) -> None:
    whole = inspect(model(SEED), BOX, method=method, remember=False)
    needed = len(asked)
    asked.clear()
    killed(method, calls, planted(SEED))
    path = file_of(folder)
    before = {(claim.layer, claim.unit, claim.side) for claim in claims(path)}
    proved = settled(path)
    assert before, "the killed run left nothing behind"
    resumed = inspect(model(SEED), BOX, method=method)
    assert counts(resumed) == counts(whole)
    assert not proved & asked.of("relax", "branch", "exact"), "proved once more"
    assert not before & asked.of("relax"), "solved once more"
    assert len(asked) < needed
    bounds = [(claim.layer, claim.unit, claim.side, claim.bound) for claim in claims(path)]
    assert len(bounds) == len(set(bounds))


@pytest.mark.parametrize("method", ["cascade", "leo", "single"])
def test_a_second_run_asks_no_solver(method: str, folder: Path, asked: Asked) -> None:
    first = inspect(model(SEED), BOX, method=method)
    assert first["units"]["undecided"] == 0
    before = file_of(folder).read_bytes()
    asked.clear()
    second = inspect(model(SEED), BOX, method=method)
    assert not asked
    assert counts(second) == counts(first)
    assert second["proof"]["trust"] == first["proof"]["trust"]
    after = file_of(folder).read_bytes()
    assert after.startswith(before)
    assert len(list(claims(file_of(folder)))) == before.count(b'"claim"')


def test_a_solver_s_word_does_not_pass_for_a_certificate(folder: Path) -> None:
    first = inspect(model(SEED), BOX, method="leo")
    assert first["proof"]["trust"]["solver"] > 0
    strict = inspect(model(SEED), BOX, method="leo", trust="certified")
    assert strict["proof"]["trust"]["solver"] == 0
    assert strict["units"]["undecided"] == first["proof"]["trust"]["solver"]


def test_one_method_uses_the_certified_claims_of_another(kept: Kept, folder: Path, asked: Asked) -> None:
    laid(folder, kept, kept.data)
    inspect(model(SEED), BOX, method="leo")
    assert not settled(file_of(folder)) & asked.of("exact")


DAMAGE = {
    "cut": lambda data: data[: len(data) // 2],
    "torn in a line": lambda data: data[:-7],
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "garbage around": lambda data: b"\xff\xfe garbage\n" + data.replace(b"\n", b"\n{}\n") + b"onnxprune-claims/1 ",
    "every bound changed": lambda data: data.replace(b'"bound":-', b'"bound":-9'),
    "another unit": lambda data: data.replace(b'"unit":', b'"unit":1'),
    "a text": lambda data: b"Dear diary,\n",
    "a model": lambda data: planted(SEED),
    "a newer version": lambda data: data.replace(b"onnxprune-claims/1 ", b"onnxprune-claims/9 "),
}


def laid(folder: Path, kept: Kept, data: bytes) -> Path:
    """The file of an earlier run with these contents."""
    folder.mkdir()
    path = folder / kept.name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_store_does_no_harm(damage: Any, kept: Kept, folder: Path) -> None:
    laid(folder, kept, damage(kept.data))
    assert counts(inspect(model(SEED), BOX)) == kept.counts


def test_a_foreign_file_is_left_alone(kept: Kept, folder: Path) -> None:
    path = laid(folder, kept, b"Dear diary,\n")
    again = inspect(model(SEED), BOX)
    assert counts(again) == kept.counts
    assert path.read_bytes() == b"Dear diary,\n"
    assert any(str(path) in note for note in again["notes"])


def test_a_folder_in_the_way(kept: Kept, folder: Path) -> None:
    (folder / kept.name).mkdir(parents=True)
    assert counts(inspect(model(SEED), BOX)) == kept.counts


def test_a_cache_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path / "file"))
    report = inspect(model(SEED), BOX)
    assert report["units"]["undecided"] == 0
    assert any("not kept" in note for note in report["notes"])


def test_a_false_claim_is_found_out(kept: Kept, folder: Path) -> None:
    """Whoever can write to the folder can lie; a run that shows the opposite ends the job."""
    with ClaimStore(folder, Path(kept.name).stem) as store:
        store.append([Claim("h1", 0, "lower", 1e6, "lp", "certified")])
    with pytest.raises(ProofError, match="A proof is wrong"):
        inspect(model(SEED), BOX)


def test_forget_neither_reads_nor_writes(folder: Path, asked: Asked) -> None:
    first = inspect(model(SEED), BOX, remember=False)
    needed = len(asked)
    assert not folder.exists()
    inspect(model(SEED), BOX)
    before = snapshot(folder)
    asked.clear()
    again = inspect(model(SEED), BOX, remember=False)
    assert len(asked) == needed
    assert snapshot(folder) == before
    assert counts(again) == counts(first)


def test_forget_on_the_command_line(
    folder: Path, tmp_path: Path, asked: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(planted(SEED))
    for _ in range(2):
        asked.clear()
        assert command(capsys, "inspect", path, "--domain", BOX, "--forget", "--quiet").code == 0
        assert asked
        assert not folder.exists()
    assert command(capsys, "inspect", path, "--domain", BOX, "--quiet").code == 0
    assert file_of(folder).suffix == ".jsonl"


def test_an_empty_variable_means_no_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXPRUNE_CACHE", "")
    inspect(model(SEED), BOX)
    assert not folder.exists()


def test_without_a_domain_nothing_is_kept(folder: Path) -> None:
    inspect(model(SEED))
    assert not folder.exists()


def changed() -> ModelProto:
    """One weight is another."""
    other = model(SEED)
    tensor = next(t for t in other.graph.initializer if t.name == "b1")
    data = bytearray(tensor.raw_data)
    data[0] ^= 1
    tensor.raw_data = bytes(data)
    return other


def test_models_share_no_claims(kept: Kept, folder: Path, asked: Asked) -> None:
    inspect(changed(), BOX, remember=False)
    needed = list(asked)
    laid(folder, kept, kept.data)
    asked.clear()
    inspect(changed(), BOX)
    assert asked == needed
    assert len(list(folder.iterdir())) == 2


def test_domains_share_no_claims(kept: Kept, folder: Path, asked: Asked) -> None:
    laid(folder, kept, kept.data)
    inspect(model(SEED), "-1.001:1.001")
    assert settled(folder / kept.name) & asked.of("relax", "branch")
    assert len(list(folder.iterdir())) == 2
    assert (folder / kept.name).read_bytes() == kept.data


def test_names_and_notes_of_a_model_make_no_difference(kept: Kept, folder: Path, asked: Asked) -> None:
    laid(folder, kept, kept.data)
    other = model(SEED)
    other.doc_string = "the same network"
    other.metadata_props.add(key="onnxprune.align", value="1")
    inspect(other, BOX)
    assert len(list(folder.iterdir())) == 1
    assert not asked


def dies_once(task: Task) -> list[Found]:
    """The first process that gets here dies."""
    try:
        os.close(os.open(os.environ["ONNXPRUNE_TEST_MARK"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return solve(task)
    os.kill(os.getpid(), KILL)
    raise AssertionError


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_worker_that_dies_loses_nothing(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = inspect(model(SEED), BOX, method="leo", remember=False)
    mark = tmp_path / "mark"
    monkeypatch.setenv("ONNXPRUNE_TEST_MARK", str(mark))
    monkeypatch.setattr(programmes, "solve", dies_once)
    found = inspect(model(SEED), BOX, method="leo", jobs=2, budget=120.0)
    assert mark.exists()
    assert counts(found) == counts(expected)
    assert not found["notes"]
