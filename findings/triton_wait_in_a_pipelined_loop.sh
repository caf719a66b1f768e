#!/usr/bin/env bash
# triton 3.8.0 and 3.9.0: gdc_wait in a loop with num_stages. Up to 3.8.0 it does not hold back the loads behind it; 3.9.0
# holds them, and turns the loop's pipelining off without a word.
#
# gdc_wait is to make what the kernel before wrote visible to all instructions behind it (programmatic dependent launch).
# In tl.range(..., num_stages=3) Triton 3.8.0 copies the first two turns' tiles before the loop, and so before a wait that
# stands in the body in front of the load: the kernel reads what the kernel before has not written yet. It is right only
# for what that kernel does not write, such as weights, and then it is what one wants. In 3.9.0 the wait is an operation of
# its own, and a loop that has it, also in a branch that is taken once, gets plain loads: correct, with no pipeline. An
# upgrade so changes a kernel's results or its speed, and nothing is said. gdc_launch_dependents changes neither.
# No GPU is needed: the kernels are compiled for sm_90.
#
# Seen, asynchronous copies and whether the first one stands before the wait:
#   3.8.0: none 3, before 3, inside 3 ahead of the wait, branch 3 ahead of the wait, launch 3
#   3.9.0: none 3, before 3, inside 0, branch 0, launch 3
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/kernel.py" <<'PY'
import sys

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def kernel(x, y, out, count, WHERE: tl.constexpr):
    columns, rows, few = tl.arange(0, 64), tl.arange(0, 128), tl.arange(0, 16)
    a = tl.load(x + few[:, None] * 64 + columns[None, :])
    total = tl.zeros([16, 128], tl.float32)
    if WHERE == "before":
        gdc_wait()
    for start in tl.range(0, count, 128, num_stages=3):
        if WHERE == "inside":
            gdc_wait()
        if WHERE == "branch":
            if start == 0:
                gdc_wait()
        if WHERE == "launch":
            gdc_launch_dependents()
        b = tl.load(y + (start + rows)[:, None] * 64 + columns[None, :])
        total += tl.dot(a, tl.trans(b))
    tl.store(out + few[:, None] * 128 + rows[None, :], total)


def described(where):
    kinds = {"x": "*bf16", "y": "*bf16", "out": "*fp32", "count": "i32", "WHERE": "constexpr"}
    aligned = {(place,): [["tt.divisibility", 16]] for place in range(4)}
    source = ASTSource(kernel, kinds, constexprs={"WHERE": where}, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    count, ptx = compiled.asm["ttgir"].count("async_copy_global_to_local"), compiled.asm["ptx"]
    copy, wait = ptx.find("cp.async.cg"), ptx.find("griddepcontrol.wait")
    return f"{where} {count}" + (" ahead of the wait" if 0 <= copy < wait else "")


assert triton.__version__ == sys.argv[1]
seen = ", ".join(described(where) for where in ("none", "before", "inside", "branch", "launch"))
print(f"{triton.__version__}: {seen}")
expected = {
    "3.8.0": "none 3, before 3, inside 3 ahead of the wait, branch 3 ahead of the wait, launch 3",
    "3.9.0": "none 3, before 3, inside 0, branch 0, launch 3",
}
assert seen == expected[sys.argv[1]]
PY
for version in 3.8.0 3.9.0; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet --disable-pip-version-check --no-deps "triton==$version" 2>/dev/null
  TRITON_CACHE_DIR="$folder/cache" "$folder/$version/bin/python" -W ignore "$folder/kernel.py" "$version"
done
