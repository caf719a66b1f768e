"""What `frontrunner warm` makes of its arguments."""

from pathlib import Path

import pytest

from operators.base.errors import ArchitectureError, ConfigError
from search.config import run as config_module
from search.evaluation.fidelity import proxy_of
from search.runs.warming import first_candidates_first, warm_jobs
from search.spaces.staged import make_space

RUN = """
data: {vocabulary: 300}
proxy: {batch_size: 4, sequence_length: 64, tokens: 1024}
profile: {batch_sizes: [1, 3], contexts: [32, 48]}
space:
  operators: [attention, swiglu]
  widths: [64, 128]
  genes: {attention: {head_dim: [32], group: [1], qk_norm: [none], window: [null]}, swiglu: {ratio: [2, 4]}}
"""


def test_a_run_gives_every_shape_of_its_space_once_at_its_own_sizes(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(RUN, encoding="utf-8")
    found = warm_jobs([str(file), str(file)], batches=None, tokens=None, device="cpu")
    shapes = [
        (job.layer.operator, job.architecture.width, *job.layer.shape.model_dump().values())
        for job in found
        if not job.whole
    ]
    assert len(set(shapes)) == len(shapes)
    # A ratio of 4 at width 64 and one of 2 at width 128 are the same hidden size, and other products.
    assert sorted((width, hidden) for name, width, hidden, *_ in shapes if name == "swiglu") == [
        (64, 128), (64, 256), (128, 256), (128, 512),
    ]  # fmt: skip
    assert sum(name == "attention" for name, *_ in shapes) == 2
    heads = [job.architecture for job in found if job.whole]
    assert [(head.width, head.vocabulary, head.depth) for head in heads] == [(64, 300, 1), (128, 300, 1)]
    assert {job.workload.training for job in found} == {((4, 64),)}
    assert {job.workload.decoding for job in found} == {((1, 32), (3, 32), (1, 48), (3, 48))}


def test_what_is_trained_at_half_its_width_is_prepared_at_half_its_width(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(RUN + "fidelity: {width_scale: 0.5}\n", encoding="utf-8")
    found = warm_jobs([str(file)], batches=None, tokens=None, device="cpu")
    hidden = {
        (job.layer.shape.model_dump()["hidden"], bool(job.workload.training), bool(job.workload.decoding))
        for job in found
        if job.layer.operator == "swiglu" and not job.whole
    }
    trained, measured = (
        [(64, True, False), (128, True, False), (256, True, False)],
        [(128, False, True), (256, False, True), (512, False, True)],
    )
    assert hidden == {*trained, *measured}
    heads = {
        job.layer.shape.model_dump()["heads"]
        for job in found
        if job.layer.operator == "attention" and job.workload.training and not job.whole
    }
    assert heads == {1, 2}


def test_what_the_first_candidates_need_comes_first(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    larger = RUN.replace("ratio: [2, 4]", "ratio: [1, 2, 3, 4]") + "fidelity: {width_scale: 0.5}\n"
    file.write_text(larger, encoding="utf-8")
    work = warm_jobs([str(file)], batches=None, tokens=None, device="cuda")[::-1]
    config = config_module.load(file)
    ordered = first_candidates_first(work, config)
    assert len(ordered) == len(work)
    assert all(job in work for job in ordered)
    heads = [job.whole for job in ordered]
    assert heads == sorted(heads, reverse=True)  # those that every candidate needs

    found = [
        (job.layer.operator, job.layer.shape, job.architecture.width) for job in ordered if not job.whole
    ]
    seeds = make_space(config.space, 300).seeds()
    turns = [
        min(
            (
                number
                for number, seed in enumerate(seeds)
                for member in (seed, proxy_of(seed, 0.5))
                for layer in member.layers
                if (layer.operator, layer.shape, member.width) == shape
            ),
            default=len(seeds),
        )
        for shape in found
    ]
    assert turns == sorted(turns)
    assert {0, 1, len(seeds)} <= set(turns)  # some are needed at once, some by no seed
    behind = [job for job in ordered if not job.whole][turns.index(len(seeds)) :]
    assert behind == [job for job in work if job in behind]  # in their order


def test_architectures_are_found_by_name_and_sizes_can_be_given() -> None:
    found = warm_jobs(["tiny-hybrid"], batches=[2], tokens=128, device="cpu")
    assert [job.layer.operator for job in found if not job.whole] == [
        "deltanet", "swiglu", "attention", "mamba2",
    ]  # fmt: skip
    assert found[0].workload.decoding == ((2, 128),)


def test_on_a_gpu_the_anchor_is_prepared_too() -> None:
    found = warm_jobs(["tiny-hybrid"], batches=[2], tokens=128, device="cuda:0")
    assert [job.architecture.name for job in found if job.whole] == ["tiny-hybrid", "anchor-cuda"]


def test_what_is_neither_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match="nonsense"):
        warm_jobs(["nonsense"], batches=None, tokens=None, device="cpu")
    file = tmp_path / "broken.yaml"
    file.write_text("layers: [", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"broken\.yaml: not YAML: line 1, column 10: "):
        warm_jobs([str(file)], batches=None, tokens=None, device="cpu")
