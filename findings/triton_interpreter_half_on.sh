#!/usr/bin/env bash
# triton 3.9.0: TRITON_INTERPRET=1 that is set after `import triton` gives an interpreter for some kernels and not for others.
#
# The variable is read whenever @triton.jit decorates a function. Triton's own functions, such as tl.zeros and tl.sum, are
# decorated when triton is imported. A program that sets the variable between the import and its kernels, as a test suite
# does when another file imported triton first, gets interpreted kernels that call compiled helpers. A kernel that uses
# only built-ins (tl.load, tl.arange) then works. One with tl.zeros or tl.sum raises "Cannot call @triton.jit'd outside of
# the scope of a kernel", which names neither the variable nor the import.
#
# Seen: set before the import, both kernels work; set after it, the first works and the second raises.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps triton==3.9.0
cd "$folder"
cat >kernels.py <<'PY'
import os
import sys

early = sys.argv[1] == "before"
if early:
    os.environ["TRITON_INTERPRET"] = "1"
import torch
import triton
import triton.language as tl

os.environ["TRITON_INTERPRET"] = "1"
assert triton.__version__ == "3.9.0"


@triton.jit
def doubled(x, y, size: tl.constexpr):
    at = tl.arange(0, size)
    tl.store(y + at, tl.load(x + at) * 2)


@triton.jit
def copied(x, y, size: tl.constexpr):
    at = tl.arange(0, size)
    tl.store(y + at, tl.zeros([size], tl.float32) + tl.load(x + at))


def outcome(kernel):
    x, y = torch.arange(8.0), torch.full((8,), -1.0)
    try:
        kernel[(1,)](x, y, size=8)
    except Exception as error:
        return str(error)
    return y.tolist()


print(f"set {sys.argv[1]} the import: {outcome(doubled)}, {outcome(copied)}")
assert outcome(doubled) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0]
if early:
    assert outcome(copied) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
else:
    assert "outside of the scope of a kernel" in outcome(copied)
PY
for moment in before after; do "$folder/venv/bin/python" kernels.py "$moment"; done
