"""The module that the server of workers imports once, so that a trial starts in milliseconds."""

import sweeps.workers.jobs  # noqa: F401
from pipelines.runtime.process import preload

preload()
