"""Kernels are compiled for a Hopper GPU, which needs no GPU: the interpreter accepts more than the compiler."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PROGRAM = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from operators.kernels import attention_step, choice, delta_rule_step, mamba2_step, products

BF16 = "x weight out norm_weight norm_bias bias projected conv conv_weight conv_bias qkv key value q_norm k_norm logits"
KINDS = {
    **dict.fromkeys(BF16.split(), "*bf16"),
    **dict.fromkeys("recurrent A_log D dt_bias divisor parts frequencies values".split(), "*fp32"),
    **dict.fromkeys("arrived places".split(), "*i32"),
    **dict.fromkeys("position tokens".split(), "*i64"),
    **dict.fromkeys("eps scale".split(), "fp32"),
}

def build(kernel, warps, /, parts="i32", **constants):
    kinds = {
        name: "constexpr" if name in constants else parts if name == "parts" else KINDS.get(name, "i32")
        for name in kernel.arg_names
    }
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if "*" in kinds[name]}
    source = ASTSource(kernel, kinds, constexprs=constants, attrs=aligned)
    compiled = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    print(kernel.__name__, "griddepcontrol.wait" in compiled.asm["ptx"])

after = dict(BIAS=True, DIVIDED=True, ONTO=True, EVEN=False, EARLY=True)
build(products._one_row, 2, BLOCK_OUT=4, BLOCK_IN=512, NORM="layernorm", ACTIVATION="swiglu", **after)
build(products._few_rows, 1, ROWS=8, BLOCK_OUT=32, BLOCK_IN=128, STAGES=3, ACTIVATION="swiglu", **after)
build(products._normalized, 8, BLOCK=2048, NORM="layernorm", EARLY=True)
heads = dict(SIZE=96, GROUP=3, ROWS=16, HALF=64, WHOLE=128, SPLITS=3, SPLITS_POWER=4, GROUP_POWER=4, PIECE=64)
for stages in (0, 3):
    build(attention_step._attend, 4, "*fp32", BLOCK=32, STAGES=stages, NORMED=True, ROTATED=True, EARLY=True, **heads)
build(mamba2_step._step, 4, SIZE=64, STATE=128, TAPS=4, BLOCK=32, STATE_POWER=128, EARLY=True)
sizes = dict(KEY=96, VALUE=128, TAPS=3, KEY_POWER=128, HALF=64)
build(delta_rule_step._step, 8, DECAYS=True, NEGATIVE=True, EARLY=True, **sizes)
build(choice._best_of_part, 4, BLOCK=2048, EARLY=True)
build(choice._best_of_all, 4, BLOCK=64, EARLY=True)
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_kernels_compile_and_wait_for_the_kernel_before(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        env={"PYTHONPATH": ":".join(sys.path), "TRITON_CACHE_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.split() == [
        word for name in ran.stdout.split()[::2] for word in (name, "True")
    ], ran.stdout
    assert len(ran.stdout.split()) == 18
