#!/usr/bin/env bash
# transformers 5.23.0 (torch 2.13.0, CPU): Mamba2 keeps `time_step_limit` when it reads a prompt, and forgets it in
# every cached step after that.
#
# The configuration's `time_step_limit` bounds the step size that each head takes, behind softplus. The pass over a
# whole sequence clamps it; the branch for one token with a cache does not. So the logits of a token depend on
# whether it was read with the sequence or generated, and text that a model with a finite limit generates is not
# what its training would predict. `use_cache=False` gives the right tokens. Without a limit both ways agree.
#
# Seen: without a limit the two ways differ by 1e-6 at most; with limits of 0 to 0.05 and of 0.5 to infinity by 0.02
# to 0.05, of logits up to 1.6.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 transformers==5.23.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import torch
import transformers
from transformers import Mamba2Config, Mamba2ForCausalLM

assert (transformers.__version__, torch.__version__.partition("+")[0]) == ("5.23.0", "2.13.0")
transformers.logging.set_verbosity_error()
READ, ALL = 6, 12


@torch.no_grad()
def difference(limit: tuple[float, float]) -> tuple[float, float]:
    """The largest difference of logits between one pass and cached steps: in the prompt, and behind it."""
    config = Mamba2Config(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, num_heads=4, head_dim=16, state_size=8, n_groups=1,
        expand=2, chunk_size=8, time_step_limit=limit,
    )
    torch.manual_seed(0)
    model = Mamba2ForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("dt_bias"):
            parameter.uniform_(-2, 1)
    tokens = torch.randint(0, 64, (1, ALL))
    whole = model(tokens).logits
    out = model(tokens[:, :READ], use_cache=True)
    found = [out.logits]
    for place in range(READ, ALL):
        out = model(
            tokens[:, place : place + 1], cache_params=out.cache_params, use_cache=True,
            cache_position=torch.tensor([place]),
        )
        found.append(out.logits)
    far = (whole - torch.cat(found, 1)).abs().amax((0, 2))
    return far[:READ].max().item(), far[READ:].max().item()


for limit in ((0.0, float("inf")), (0.0, 0.05), (0.5, float("inf"))):
    prompt, steps = difference(limit)
    print(f"limit {limit}: in the prompt {prompt:.1e}, in the steps behind it {steps:.1e}")
    assert prompt < 1e-5
    assert (steps < 1e-5) == (limit == (0.0, float("inf"))), steps
PY
