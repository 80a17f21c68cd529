"""``python -m tests.benchmarks.peers``."""

import sys

from .benchmark import main

sys.exit(main())
