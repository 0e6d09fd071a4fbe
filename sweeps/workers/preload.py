"""The module that the server of workers imports once, so that a trial starts in milliseconds."""

import gc

import sweeps.workers.jobs  # noqa: F401
from pipelines.runtime.process import preload_keras

# First, since it also says what all later imports may print.
preload_keras()

import matplotlib.backends.backend_agg  # noqa: E402
import matplotlib.figure  # noqa: E402, F401

import pipelines.evaluation.figures  # noqa: E402
import pipelines.training.trial  # noqa: E402, F401

# A worker's garbage collector need not look through what was imported: that takes 0.2 s each time,
# and copies the memory that the server's children share.
gc.freeze()
