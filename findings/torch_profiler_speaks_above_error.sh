#!/usr/bin/env bash
# torch 2.13.0: every use of torch.autograd.profiler writes two lines to stderr, and asking for errors alone keeps them.
#
# Kineto ranks the lines "USDT: ... profiler_start" and "profiler_stop" above its errors, and PyTorch's own level lets them
# through. So a program whose stderr is read by others says two lines for each profile, on a CPU too. KINETO_LOG_LEVEL from
# 0 to 5 keeps them; 3 adds three more lines to what is said without the variable. 6, one above the last level, is silent.
# The variable is read at the profiler's first use in a process: set before that it holds, also after `import torch`; set
# later it changes nothing.
#
# Seen: 2 lines without the variable and at level 5, 5 lines at level 3, none at level 6; none when a program sets 6 before
# its first profile, still 2 for the second profile when it sets 6 between the two.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$folder"
cat >profiles.py <<'PY'
import os
import sys

import torch

assert torch.__version__.partition("+")[0] == "2.13.0"
if sys.argv[1] == "first":
    os.environ["KINETO_LOG_LEVEL"] = "6"
with torch.autograd.profiler.profile(profile_memory=True):
    torch.ones(3)
if sys.argv[1] == "between":
    os.environ["KINETO_LOG_LEVEL"] = "6"
    print("between", file=sys.stderr)
    with torch.autograd.profiler.profile(profile_memory=True):
        torch.ones(3)
PY
lines() { "$folder/venv/bin/python" profiles.py "$1" 2>said; grep -c . said || true; }
expect() {
    echo "$1: $2 lines"
    test "$2" -eq "$3"
}
expect "no variable" "$(lines never)" 2
expect "level 5" "$(KINETO_LOG_LEVEL=5 lines never)" 2
expect "level 3" "$(KINETO_LOG_LEVEL=3 lines never)" 5
expect "level 6" "$(KINETO_LOG_LEVEL=6 lines never)" 0
expect "6, set before the first profile" "$(lines first)" 0
expect "two profiles, 6 set between them" "$("$folder/venv/bin/python" profiles.py between 2>&1 | sed '1,/^between$/d' | grep -c .)" 2
