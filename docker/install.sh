#!/usr/bin/env bash
# Installs what an image needs into the Python that is first on the path, pinned by constraints.txt.
#   docker/install.sh server|cpu|gpu
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
  server)
    # Without TensorFlow and Keras: a server trains nothing. Read from pyproject.toml, which says why.
    requirements=$(python - <<'PYTHON'
import pathlib
import re
import tomllib

project = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]
light = {"filelock", "PyYAML", "requests", "SQLAlchemy"}
wanted = [line for line in project["dependencies"] if re.match(r"[\w.-]+", line)[0] in light]
assert len(wanted) == len(light), wanted
print("\n".join(wanted + project["optional-dependencies"]["server"]))
PYTHON
    )
    python -m pip install -c constraints.txt -r <(printf '%s\n' "$requirements")
    python -m pip install --no-deps -e .
    ;;
  cpu) python -m pip install -c constraints.txt -e ".[postgresql${EXTRAS:+,$EXTRAS}]" ;;
  gpu) python -m pip install -c constraints.txt -e ".[postgresql,gpu${EXTRAS:+,$EXTRAS}]" ;;
  *)
    echo "error: one of server, cpu, gpu must be named. Received: '${1:-}'." >&2
    exit 2
    ;;
esac
