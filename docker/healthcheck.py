#!/usr/bin/env python3
"""Ends with 0 if an address answers with a success, else with 1: `docker/healthcheck.py URL`."""

import sys
import urllib.error
import urllib.request

if len(sys.argv) != 2 or not sys.argv[1].startswith("http://"):
    print("error: one address must be given, such as http://127.0.0.1:5000/health", file=sys.stderr)
    sys.exit(2)
try:
    # Through no proxy: the address is this machine's own.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    direct.open(sys.argv[1], timeout=5).close()
except (urllib.error.URLError, OSError) as error:
    print(f"unhealthy: {error}", file=sys.stderr)
    sys.exit(1)
