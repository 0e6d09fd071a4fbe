"""The module that the server of workers imports once, so that a trial starts in milliseconds."""

import sweeps.jobs  # noqa: F401
from pipelines.runtime import preload

preload()
