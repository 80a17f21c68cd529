"""No test remembers another run; hypothesis draws new examples everywhere but in continuous integration."""

import os

from hypothesis import settings

os.environ["ONNXPRUNE_CACHE"] = ""  # no claims of earlier runs

settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")
