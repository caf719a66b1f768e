#!/usr/bin/env bash
# mamba-ssm 2.3.2.post1: the angles of Mamba3's state come back from a prefill rounded to bfloat16, in a float32 state.
#
# Mamba3 turns keys and queries by an angle that adds up over all tokens, modulo a whole turn. The state keeps it in
# float32, and the library's module hands its angles over in float32, "as required by the MIMO/SISO kernels". But
# `mamba3_siso_combined` first makes them bfloat16, and `angle_dt_fwd` allocates the angles of all tokens, and the final
# one, in the dtype of its input. Numbers up to 6.28 are 0.03 apart in bfloat16 above 4. So each prefill that goes on from
# a state changes its angles by up to 0.016, and by twice that where a store cuts instead of rounding, even if no token
# turns at all. Single steps keep them in float32: reading a text in parts and step by step ends in different states.
# No GPU is needed: the library's kernel runs in the interpreter of Triton 3.9.0. Its tanh is written in PTX and gets a stand-in,
# and its autotuner is left out.
#
# Seen, an angle of 6.27 behind four tokens that turn by nothing:
#   torch.float32 -> torch.float32 6.27
#   torch.bfloat16 -> torch.bfloat16 6.25
#   mamba3_siso_combined: Angles = Angles.to(torch.bfloat16)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/angles.py" <<'PY'
import sys
import types

import torch
import triton
import triton.language as tl

root = sys.argv[1]
for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton", "mamba_ssm.ops.triton.mamba3"):
    package = types.ModuleType(name)  # without what the packages import, which is built for a GPU
    package.__path__ = [f"{root}/{name.replace('.', '/')}"]
    sys.modules[name] = package
from mamba_ssm.ops.triton.mamba3 import angle_dt


@triton.jit
def tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


angle_dt.tanh_approx = tanh
angle_dt.angle_dt_fwd_kernel = angle_dt.angle_dt_fwd_kernel.fn
state, dt = torch.full((1, 1, 8), 6.27), torch.ones(1, 1, 4)
for dtype in (torch.float32, torch.bfloat16):
    angles = torch.zeros(1, 4, 1, 8, dtype=dtype)
    _, final = angle_dt.angle_dt_fwd(angles, dt, init_state=state, chunk_size=16, return_output_state=True)
    assert len(final.unique()) == 1
    print(f"{dtype} -> {final.dtype} {final.flatten()[0].item():.4g}")
PY
python3 -m venv "$folder/venv"
pip() { "$folder/venv/bin/python" -m pip "$@" --quiet --disable-pip-version-check; }
pip install torch==2.13.0 triton==3.9.0 numpy==2.4.6 setuptools wheel packaging
MAMBA_SKIP_CUDA_BUILD=TRUE pip download --no-deps --no-build-isolation --no-binary :all: -d "$folder" mamba-ssm==2.3.2.post1
tar xzf "$folder"/mamba_ssm-2.3.2.post1.tar.gz -C "$folder"
root="$folder/mamba_ssm-2.3.2.post1"
seen=$(TRITON_INTERPRET=1 "$folder/venv/bin/python" "$folder/angles.py" "$root")
seen+=$'\n'"mamba3_siso_combined: $(sed -n 's/^ *\(Angles = Angles.to.*\)/\1/p' "$root/mamba_ssm/ops/triton/mamba3/mamba3_siso_combined.py")"
echo "$seen"
expected="torch.float32 -> torch.float32 6.27
torch.bfloat16 -> torch.bfloat16 6.25
mamba3_siso_combined: Angles = Angles.to(torch.bfloat16)"
[ "$seen" = "$expected" ] || { echo "expected: $expected" >&2; exit 1; }
