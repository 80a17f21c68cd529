"""The same command started as a file: ``python tests/benchmarks/peers/run.py``."""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
runpy.run_module("tests.benchmarks.peers", run_name="__main__")
