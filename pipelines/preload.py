"""The module that the server of workers imports once, so that a trial starts in milliseconds."""

from pipelines.runtime import preload

preload()
