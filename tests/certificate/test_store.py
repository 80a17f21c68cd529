"""Claims on disk: exact, shared, and never in the way of a run."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.certificate import (
    Claim,
    ClaimStore,
    Record,
    Refutation,
    default_folder,
    from_line,
    store,
    store_key,
    to_line,
)
from onnxprune.domain import Domain, parse_domain
from onnxprune.domain.types import InputSpec

KEY = "ab" * 32


def claim(unit: int = 0, bound: float = -1.0, **changes: Any) -> Claim:
    values = {"layer": "h", "unit": unit, "side": "upper", "bound": bound, "method": "linear", "trust": "certified"}
    return Claim(**{**values, **changes})


SOME: list[Record] = [
    claim(0, -0.1),
    claim(1, 1e-300, layer="späte\nSchicht \ud800", side="lower", evidence={"leaves": [[0.1, True], None]}),
    Refutation("h", 2, "positive", 3.5),
]


def saved(folder: Path, records: Sequence[Record] = SOME) -> Path:
    with ClaimStore(folder, KEY) as target:
        target.append(records)
        assert target.path is not None
        assert not target.notes
        return target.path


def loaded(folder: Path) -> list[Record]:
    with ClaimStore(folder, KEY) as source:
        assert not source.notes
        return source.load()


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(finite, st.text(st.characters()), st.integers(0, 10**9))
def test_lines_are_exact(number: float, layer: str, unit: int) -> None:
    records: list[Record] = [claim(unit, number, layer=layer, evidence={"at": [number]})]
    if number:
        records.append(Refutation(layer, unit, "positive" if number > 0 else "negative", number))
    for record in records:
        line = to_line(record)
        assert line.isascii()
        assert "\n" not in line
        assert from_line(line) == record
        assert math.copysign(1, json.loads(line).get("bound", 1)) == math.copysign(1, getattr(record, "bound", 1))


def test_numpy_numbers_become_plain_ones() -> None:
    given_ = claim(np.int64(3), np.float32(0.1))  # type: ignore[arg-type]
    assert from_line(to_line(given_)) == claim(3, float(np.float32(0.1)))
    assert hash(claim(evidence={"a": 1})) == hash(claim())


@pytest.mark.parametrize(
    "changes",
    [
        {"bound": math.nan},
        {"bound": -math.inf},
        {"unit": -1},
        {"side": "left"},
        {"method": "luck"},
        {"trust": "full"},
        {"layer": None},
        {"evidence": [1]},
    ],
)
def test_what_is_no_claim_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(changes))} cannot be"):
        claim(**changes)


@pytest.mark.parametrize(("side", "value"), [("positive", 0.0), ("negative", 1.0), ("positive", math.inf)])
def test_what_refutes_nothing_is_refused(side: Any, value: float) -> None:
    with pytest.raises(ValueError, match="value"):
        Refutation("h", 0, side, value)


@pytest.mark.parametrize(
    "line",
    [
        *(
            "",
            "[]",
            "7",
            '"claim"',
            "{}",
            '{"kind":[]}',
            '{"kind":"claim"}',
            to_line(claim())[:-1] + ',"if":1}',
            "[" * 10**5,
        ),
        '{"kind":"refutation","layer":"h","unit":1.5,"side":"positive","value":1}',
    ],
)
def test_what_is_no_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        from_line(line)


def test_a_run_resumes_with_what_was_proved(tmp_path: Path) -> None:
    assert loaded(tmp_path / "deep" / "folder") == []
    assert not (tmp_path / "deep").exists()
    path = saved(tmp_path / "deep" / "folder")
    assert loaded(path.parent) == SOME
    size = path.stat().st_size
    saved(path.parent)
    assert path.stat().st_size == size  # nothing new, nothing written
    saved(path.parent, [claim(9)])
    assert loaded(path.parent) == [*SOME, claim(9)]
    with ClaimStore(path.parent, "cd" * 32) as other:
        assert other.load() == []
    with pytest.raises(ValueError, match="hex"):
        ClaimStore(tmp_path, "../x")


def test_a_killed_run_loses_nothing(tmp_path: Path) -> None:
    with ClaimStore(tmp_path, KEY) as running:
        running.append(SOME[:1])
        running.append(SOME[1:])
        assert loaded(tmp_path) == SOME


def test_the_disk_is_asked_once_a_second_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [100.0], list[int]()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(os, "fsync", calls.append)
    with ClaimStore(tmp_path, KEY) as target:
        for unit in range(40):
            target.append([claim(unit)])
            now[0] += 0.1
        assert len(calls) in (4, 5)
    assert len(calls) in (5, 6)
    target.close()


def test_the_strongest_of_several_records_stays(tmp_path: Path) -> None:
    certified, solver, looser = claim(bound=-1.0), claim(bound=-2.0, trust="solver"), claim(bound=-0.5, trust="solver")
    lower = claim(bound=0.25, side="lower")
    with ClaimStore(tmp_path, KEY) as target:
        target.append([claim(bound=-0.5), solver, certified, looser, claim(bound=-0.7), claim(bound=0.1, side="lower")])
        target.append([lower, claim(bound=0.2, side="lower"), Refutation("h", 0, "negative", -1e-9)])
        target.append([Refutation("h", 0, "negative", -2.0), Refutation("h", 0, "negative", -1.0)])
        wanted = {certified, solver, lower, Refutation("h", 0, "negative", -2.0)}
        assert set(target.load()) == wanted
        assert set(loaded(tmp_path)) == wanted
        target.append([claim(bound=-2.0, method="split")])  # a certified proof replaces the solver's word
        assert (
            set(target.load())
            == set(loaded(tmp_path))
            == wanted - {certified, solver} | {claim(bound=-2.0, method="split")}
        )


def test_a_file_cut_anywhere_gives_its_whole_lines_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # slow, and not what matters here
    path = saved(tmp_path)
    whole = path.read_bytes()
    ends = [whole.index(b"\n", whole.index(to_line(record).encode())) for record in SOME]
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        expected = [record for record, end in zip(SOME, ends, strict=True) if length >= end]
        assert loaded(tmp_path) == expected
        saved(tmp_path, [claim(7)])
        assert loaded(tmp_path) == [*expected, claim(7)]


def test_a_damaged_byte_costs_at_most_its_line(tmp_path: Path) -> None:
    path = saved(tmp_path)
    whole = path.read_bytes()
    for at in range(1, len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :])
        found = loaded(tmp_path)
        assert all(record in SOME for record in found)
        assert len(found) >= len(SOME) - (2 if whole[at] == 10 else 1)


def test_garbage_between_lines_is_skipped(tmp_path: Path) -> None:
    path = saved(tmp_path)
    lines = path.read_bytes().splitlines()
    rng = np.random.default_rng(3)
    for _ in range(50):
        noise = [rng.bytes(int(rng.integers(0, 200))) for _ in range(6)] + [bytes(4096)]
        noise += [lines[1][: int(rng.integers(len(lines[1])))] + rng.bytes(5)]
        mixed = [*lines, *noise]
        path.write_bytes(b"\n".join(mixed[i] for i in rng.permutation(len(mixed))) + b"\r\n")
        assert set(loaded(tmp_path)) == set(SOME)


def test_lines_of_another_key_are_not_believed(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.rename(tmp_path / f"{'cd' * 32}.jsonl")
    with ClaimStore(tmp_path, "cd" * 32) as other:
        assert other.load() == []


def write_many(folder: Path, layer: str) -> None:
    with ClaimStore(folder, KEY) as target:
        for start in range(0, 500, 10):
            target.append(claim(unit, layer=layer, evidence={"fill": "x" * 300}) for unit in range(start, start + 10))
        assert not target.notes


def test_two_processes_write_at_the_same_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(tmp_path, layer)) for layer in "ab"]
    for writer in writers:
        writer.start()
    with ClaimStore(tmp_path, KEY) as target:
        while any(writer.is_alive() for writer in writers):
            target.append([claim(len(target.load()), layer="c")])
        for writer in writers:
            writer.join()
            assert writer.exitcode == 0
        found = target.load()
    units = {layer: {r.unit for r in found if r.layer == layer} for layer in "ab"}
    assert units == {"a": set(range(500)), "b": set(range(500))}
    assert set(loaded(tmp_path)) == set(found)


def test_large_batches_keep_lines_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    write = os.write

    def note(file: int, data: bytes) -> int:
        sizes.append(len(data))
        assert data.startswith(b"\n")
        assert data.endswith(b"\n")
        return write(file, data)

    monkeypatch.setattr(os, "write", note)
    records = [claim(unit, evidence={"fill": "x" * 1000}) for unit in range(3000)]
    saved(tmp_path, [*records, claim(5000, evidence={"fill": "y" * 3 * 10**6})])
    assert 4 <= len(sizes) <= 6
    assert len(loaded(tmp_path)) == 3001


def fail(number: int) -> Any:
    def call(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize(
    ("where", "number"),
    [
        ("open", errno.EACCES),
        ("open", errno.EROFS),
        ("write", errno.ENOSPC),
        ("fsync", errno.EIO),
    ],
)
def test_a_disk_that_refuses_turns_the_store_off(
    where: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new"
    with ClaimStore(folder, KEY) as target:
        with monkeypatch.context() as patch:
            patch.setattr(os, where, fail(number))
            target.append(SOME[:2])
            target.append(SOME[2:])
        target.append([claim(8)])
        assert target.load() == [*SOME, claim(8)]
    assert len(target.notes) == 1
    assert target.notes[0].startswith("Proofs are not kept for later runs: cannot write ")
    assert os.strerror(number) in target.notes[0]


def test_a_disk_that_fills_up_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with ClaimStore(tmp_path, KEY) as target:
        target.append(SOME[:1])
        monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:20]))
        target.append(SOME[1:])
        monkeypatch.undo()
        assert target.load() == SOME
    assert "the disk is full" in target.notes[0]
    assert loaded(tmp_path) == SOME[:1]
    saved(tmp_path, SOME[2:])
    assert loaded(tmp_path) == [SOME[0], SOME[2]]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_read_only_folder_is_read_and_not_written(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.chmod(0o400)
    tmp_path.chmod(0o500)
    try:
        with ClaimStore(tmp_path, KEY) as target:
            assert target.load() == SOME
            target.append([claim(8)])
            assert target.load() == [*SOME, claim(8)]
        assert len(target.notes) == 1
    finally:
        tmp_path.chmod(0o700)


def test_a_file_that_cannot_be_read_turns_the_store_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path)
    monkeypatch.setattr(Path, "open", fail(errno.EIO))
    with ClaimStore(tmp_path, KEY) as target:
        target.append(SOME)
        assert target.load() == SOME
    assert "cannot read" in target.notes[0]
    monkeypatch.undo()
    path.unlink()
    path.mkdir()
    assert "not a regular file" in ClaimStore(tmp_path, KEY).notes[0]
    (tmp_path / "file").touch()
    with ClaimStore(tmp_path / "file", KEY) as target:
        target.append(SOME)
        assert target.load() == SOME
        assert len(target.notes) == 1


def test_newer_and_foreign_files_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store, "FORMAT", 2)
        path = saved(tmp_path)
    for content, reason in (
        (path.read_bytes(), "was written by a newer version"),
        (b"a,b\n1,2\n", "holds something else"),
        (os.urandom(1000), "holds something else"),
    ):
        path.write_bytes(content)
        with ClaimStore(tmp_path, KEY) as target:
            target.append(SOME)
            assert target.load() == SOME
        assert len(target.notes) == 1
        assert reason in target.notes[0]
        assert path.read_bytes() == content


def test_evidence_that_is_not_json_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    with ClaimStore(tmp_path, KEY) as target:
        with pytest.raises(TypeError, match="not JSON serializable"):
            target.append([claim(1), claim(2, evidence={"a": object()})])
        assert target.load() == []
    assert not list(tmp_path.iterdir())


def test_claims_unused_for_long_are_deleted(tmp_path: Path) -> None:
    path = saved(tmp_path)
    content = path.read_bytes()
    names = {
        "used": "11.jsonl",
        "old": "22.jsonl",
        "foreign": "33.jsonl",
        "named": "claims.jsonl",
        "folder": "44.jsonl",
    }
    places = {name: tmp_path / file for name, file in names.items()}
    for name in ("used", "old", "named"):
        places[name].write_bytes(content)
    places["foreign"].write_text("precious")
    places["folder"].mkdir()
    long_ago = time.time() - 91 * 86400
    for place in [path, *places.values()]:
        if place != places["used"]:
            os.utime(place, (long_ago, long_ago))
    assert loaded(tmp_path) == SOME  # being opened is being used
    assert not places["old"].exists()
    assert all(place.exists() for name, place in places.items() if name != "old")
    assert path.stat().st_mtime > time.time() - 3600


def test_without_a_folder_everything_stays_in_memory() -> None:
    with ClaimStore(None, KEY) as target:
        target.append(SOME)
        assert target.load() == SOME
    assert not target.notes
    assert target.path is None


def test_the_folder_is_the_users_cache_or_the_one_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONNXPRUNE_CACHE", "")
    assert default_folder() is None
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path))
    assert default_folder() == tmp_path / "claims"
    monkeypatch.delenv("ONNXPRUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = default_folder()
    assert folder is not None
    assert folder.is_absolute()
    if sys.platform == "linux":
        assert folder == tmp_path / "onnxprune" / "claims"


def test_keys_tell_models_and_domains_apart() -> None:
    specs = [InputSpec("x", np.dtype(np.float32), (1, 4))]
    unit = parse_domain(["0:1"], specs)
    keys = [
        store_key("m", Domain.everything()),
        store_key("n", Domain.everything()),
        store_key("m", unit),
        store_key("m", parse_domain(["0:2"], specs)),
    ]
    assert len(set(keys)) == 4
    assert all(len(key) == 64 for key in keys)
    assert store_key("m", parse_domain(["x=0:1"], specs)) == keys[2]
