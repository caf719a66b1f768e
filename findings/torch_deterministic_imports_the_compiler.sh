#!/usr/bin/env bash
# torch 2.13.0: torch.use_deterministic_algorithms sets one flag, and imports hundreds of modules to do so.
#
# Since Inductor has a setting of the same name, the function imports torch._inductor.config, and with it TorchDynamo and
# sympy. That is about 2.5 seconds of a core in every process that calls it, also where nothing is ever compiled: in each
# worker of a search, each rank, each test process. torch.set_deterministic_debug_mode("warn") sets the same flag in the
# core and imports nothing. The documentation of neither mentions it. What differs: Inductor's own flag stays as it was.
#
# Seen: more than 800 modules more, torch._dynamo and sympy among them, against none; the flag reads the same after both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$folder"
cat >flag.py <<'PY'
import sys

import torch

assert torch.__version__.partition("+")[0] == "2.13.0"
before = set(sys.modules)
if sys.argv[1] == "algorithms":
    torch.use_deterministic_algorithms(True, warn_only=True)
else:
    torch.set_deterministic_debug_mode("warn")
added = set(sys.modules) - before
print(f"{sys.argv[1]}: {len(added)} modules more, compiler {'torch._dynamo' in added}, sympy {'sympy' in added}")
assert torch.are_deterministic_algorithms_enabled()
assert torch.is_deterministic_algorithms_warn_only_enabled()
if sys.argv[1] == "algorithms":
    assert len(added) > 500
    assert {"torch._inductor.config", "torch._dynamo", "sympy"} <= added
else:
    assert not added
PY
"$folder/venv/bin/python" flag.py algorithms
"$folder/venv/bin/python" flag.py mode
