"""Hypothesis draws new examples on every machine but one: continuous integration repeats itself."""

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")
