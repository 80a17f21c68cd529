"""The benchmark's own arithmetic: counting, differences, tables. No peer is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from tests.benchmarks.peers.counting import metadata_kept, open_session, size
from tests.benchmarks.peers.measure import difference, outputs_of, parse_domain, working_feeds
from tests.benchmarks.peers.table import ORIGINAL, Row, markdown, merge, read_csv, write_csv

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
tiny (float[N, 3, H, W] x) => (float[N, 8] y) <float[4, 3, 3, 3] w, float[8, 4] v>
{
    c = Conv <pads = [1, 1, 1, 1]> (x, w)
    two = Constant <value_floats = [2.0, 2.0, 2.0, 2.0]> ()
    p = GlobalAveragePool (c)
    f = Flatten (p)
    s = Mul (f, two)
    y = Gemm <transB = 1> (s, v)
}
"""


def tiny() -> onnx.ModelProto:
    model = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    for name, shape in {"w": (4, 3, 3, 3), "v": (8, 4)}.items():
        values = rng.normal(size=shape).astype(np.float32)
        tensor = next((t for t in model.graph.initializer if t.name == name), None)
        (tensor or model.graph.initializer.add()).CopyFrom(onnx.numpy_helper.from_array(values, name))
    return model


def test_counts_differences_and_tables(tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    onnx.save(tiny(), path)
    session = open_session(path, optimize=False)
    sets = working_feeds(session, parse_domain(["x=0:1"]))
    assert sets[0]["x"].shape == (1, 3, 64, 64)
    assert 0 <= min(f["x"].min() for f in sets) <= max(f["x"].max() for f in sets) <= 1

    found = size(path, sets[0])
    assert (found.nodes, found.params) == (5, 108 + 32 + 4)  # the Constant is weights, not a node
    assert found.macs == 64 * 64 * 108 + 32
    assert found.bytes == path.stat().st_size

    reference = outputs_of(session, sets)
    assert difference(reference, reference) == (0.0, 0.0)
    off = [{name: value + np.float32(0.5) for name, value in run.items()} for run in reference]
    absolute, relative = difference(reference, off)
    spread = np.ptp([run["y"] for run in reference])
    assert np.isclose(absolute, 0.5, atol=1e-5)
    assert np.isclose(relative, absolute / spread)
    assert difference(reference, [{"y": run["y"][0]} for run in reference])[1] == float("inf")

    before, after = tiny(), tiny()
    assert metadata_kept(before, after) is None
    before.metadata_props.add(key="names", value="a,b")
    assert metadata_kept(before, after) is False

    restless, result = (Row("m", tool, "ok", max_rel_diff=gap) for tool, gap in ((ORIGINAL, 5e-4), ("t", 2e-3)))
    assert not result.is_wrong(restless)
    assert result.is_wrong(Row("m", ORIGINAL, ORIGINAL, max_rel_diff=1e-7))

    rows = [
        Row("tiny.onnx", "onnxprune", "ok", nodes=5, params=100, loads=True, latency_ratio=0.5, seconds=1.0),
        Row("tiny.onnx", "onnxslim", "wrong", nodes=4, params=50, loads=True, max_rel_diff=float("inf")),
        Row("tiny.onnx", "onnxsim", "ok", nodes=4, params=140, loads=True, mutated=False, message="a|b"),
        Row("tiny.onnx", ORIGINAL, ORIGINAL, nodes=5, params=144, macs=10),
    ]
    write_csv(merge([], rows), tmp_path / "peers.csv")
    kept = read_csv(tmp_path / "peers.csv")
    assert [row.tool for row in kept] == [ORIGINAL, "onnxsim", "onnxslim", "onnxprune"]
    assert sorted(kept, key=str) == sorted(rows, key=str)
    text = markdown(kept)
    assert "`onnxprune` removed strictly more than every peer on 1 of the 1 models" in text
    assert "| onnxslim |  | 1 | 1 | 1 | 0 | 0 | 0.00 % | 0.00 % |" in text  # a wrong result removes nothing
