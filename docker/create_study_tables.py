#!/usr/bin/env python3
"""Makes Optuna's tables in the database that SWEEPS_STORAGE names; again is harmless.

optuna-dashboard makes none and ends where there are none; made here, first and alone, nobody waits.
"""

import os
import sys

import optuna

storage = os.environ.get("SWEEPS_STORAGE")
if not storage:
    print("error: SWEEPS_STORAGE must name a database", file=sys.stderr)
    sys.exit(2)
optuna.storages.RDBStorage(storage)
