#!/usr/bin/env python3
"""Makes Optuna's tables in the database that SWEEPS_STORAGE names; again is harmless.

optuna-dashboard makes none and ends where there are none; made here, first and alone, nobody waits.
"""

import os
import sys

import optuna

from search_spaces.errors import InputError
from tracking.stores import check_database

storage = os.environ.get("SWEEPS_STORAGE")
if not storage:
    print("error: SWEEPS_STORAGE must name a database", file=sys.stderr)
    sys.exit(2)
try:
    check_database(storage, "SWEEPS_STORAGE")
except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
optuna.storages.RDBStorage(storage)
