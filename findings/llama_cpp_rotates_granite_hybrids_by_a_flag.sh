#!/usr/bin/env bash
# llama.cpp b11549 (xllamacpp 2026.10.11549): in a granitehybrid file, `rope.scaling.finetuned: false` turns rotary
# positions off.
#
# By its name the key tells whether a model was trained further for a stretched context, and that is all it means for
# other families: in a llama file it changes nothing. So a writer who states it truthfully, false for a model that was
# never stretched, gets a granitehybrid whose attention has no positions, whatever `rope.freq_base` and
# `rope.dimension_count` say. It loads without a warning and answers with other probabilities. Left out, the key counts
# as true there.
#
# Seen: with the key false, log-probabilities of a granitehybrid are the same to the last bit for a base of 10,000 and
# of 100; with true, and without it, they differ by 4.1 at most. Those of a llama of the same attention depend on the
# base in all three cases, and not on the key.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.6
cd "$folder"
cat >rotated.py <<'PY'
import gguf
import numpy as np
import xllamacpp

WIDTH, HEADS, HIDDEN, STATE, TAPS = 32, 2, 48, 8, 4
INNER = 2 * WIDTH
CHANNELS, PROMPT = INNER + 2 * STATE, [5, 9, 7, 5, 30, 9, 5, 9, 9, 7, 30, 30]


def write(path: str, family: str, base: float, finetuned: bool | None) -> None:
    writer, hybrid = gguf.GGUFWriter(path, family), family == "granitehybrid"
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(2)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count([HEADS] * 2 if hybrid else HEADS)
    writer.add_head_count_kv([0, HEADS] if hybrid else HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(base)
    if finetuned is not None:
        writer.add_rope_scaling_finetuned(finetuned)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*map(chr, range(33, 33 + 63)), "<end>"])
    writer.add_token_types([1] * 63 + [3])
    writer.add_token_merges(["! !"])
    writer.add_eos_token_id(63)
    writer.add_bos_token_id(63)
    writer.add_add_bos_token(False)
    random = np.random.default_rng(0)

    def matrix(*shape: int) -> np.ndarray:
        return 2 * random.normal(size=shape).astype("f4") / np.float32(shape[-1]) ** 0.5

    tensors = {"token_embd.weight": matrix(64, WIDTH), "output.weight": matrix(64, WIDTH)}
    tensors["output_norm.weight"] = np.ones(WIDTH, "f4")
    for number in (0, 1):
        layer = f"blk.{number}"
        tensors[f"{layer}.attn_norm.weight"] = tensors[f"{layer}.ffn_norm.weight"] = np.ones(WIDTH, "f4")
        tensors |= {f"{layer}.ffn_{name}.weight": matrix(HIDDEN, WIDTH) for name in ("gate", "up")}
        tensors[f"{layer}.ffn_down.weight"] = matrix(WIDTH, HIDDEN)
        if number or not hybrid:
            tensors |= {f"{layer}.attn_{name}.weight": matrix(WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
    if hybrid:
        writer.add_ssm_conv_kernel(TAPS)
        writer.add_ssm_inner_size(INNER)
        writer.add_ssm_state_size(STATE)
        writer.add_ssm_time_step_rank(4)
        writer.add_ssm_group_count(1)
        tensors |= {
            "blk.0.ssm_in.weight": matrix(INNER + CHANNELS + 4, WIDTH),
            "blk.0.ssm_conv1d.weight": matrix(CHANNELS, TAPS),
            "blk.0.ssm_conv1d.bias": np.zeros(CHANNELS, "f4"),
            "blk.0.ssm_dt.bias": np.zeros(4, "f4"),
            "blk.0.ssm_a": -np.ones((4, 1), "f4"),
            "blk.0.ssm_d": np.ones((4, 1), "f4"),
            "blk.0.ssm_norm.weight": np.ones((1, INNER), "f4"),
            "blk.0.ssm_out.weight": matrix(WIDTH, INNER),
        }
    for name, values in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def log_probabilities(family: str, base: float, finetuned: bool | None) -> np.ndarray:
    write("x.gguf", family, base, finetuned)
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.warmup = "x.gguf", 256, 1, False
    params.fit_params = False
    server = xllamacpp.Server(params)
    answer = server.handle_completions({"prompt": PROMPT, "n_predict": 1, "n_probs": 64, "temperature": 0.0})
    found = {each["id"]: each["logprob"] for each in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]}
    return np.array([found[token] for token in range(64)])


def apart(family: str, one: tuple[float, bool | None], other: tuple[float, bool | None]) -> float:
    return float(np.abs(log_probabilities(family, *one) - log_probabilities(family, *other)).max())


for family in ("granitehybrid", "llama"):
    by_base = {key: apart(family, (1e4, key), (1e2, key)) for key in (None, True, False)}
    by_key = apart(family, (1e4, True), (1e4, False))
    bases = ", ".join(f"{far:.3f} ({key})" for key, far in by_base.items())
    print(f"{family}: by the base {bases}; by the key {by_key:.3f}")
    assert min(by_base[None], by_base[True]) > 0.01
    assert (by_base[False] == 0) == (family == "granitehybrid")
    assert (by_key > 0.01) == (family == "granitehybrid")
PY
"$folder/venv/bin/python" rotated.py 2>/dev/null
