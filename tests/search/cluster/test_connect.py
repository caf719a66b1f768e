import pytest

from operators.base.errors import ConfigError
from search.cluster.connect import demands, room, spans_machines

H100 = {"CPU": 16.0, "GPU": 2.0, "accelerator_type:H100": 1.0}
A100 = {"CPU": 3.0, "GPU": 8.0, "accelerator_type:A100": 1.0}
PLAIN = {"CPU": 4.0}


@pytest.mark.parametrize(
    ("device", "workers"),
    [("cpu", 23), ("cuda", 5), ("cuda:0", 23)],
)
def test_a_worker_takes_a_core_and_where_it_is_not_shared_a_gpu_of_any_kind(device, workers):
    assert room([H100, A100, PLAIN], device=device, kinds=()) == workers
    assert room([H100, A100, PLAIN], device=device, kinds=("H100",)) == workers
    assert room([H100, A100, PLAIN], device=device, kinds=("H100", "A100")) == workers


@pytest.mark.parametrize(
    ("nodes", "device", "kinds", "says"),
    [
        (
            [H100, A100],
            "cuda",
            ("H100", "B200"),
            "device_kind B200: no node of the cluster has it, expected one of: A100, H100",
        ),
        ([PLAIN], "cuda", ("H100",), "expected one of: none"),
        ([PLAIN], "cuda", (), "device cuda: no worker fits into the cluster, which has 4 CPUs and 0 GPUs"),
        ([{"CPU": 0.5}], "cpu", (), "no worker fits"),
        (
            [{**H100, "GPU": 0.0}, A100],
            "cuda",
            ("A100", "H100"),
            "whose nodes with H100 have 16 CPUs and 0 GPUs",
        ),
    ],
)
def test_a_cluster_without_what_is_asked_for_is_refused(nodes, device, kinds, says):
    with pytest.raises(ConfigError, match=says):
        room(nodes, device=device, kinds=kinds)


def test_only_device_cuda_reserves_a_gpu():
    assert demands("cuda", "H100") == {
        "num_cpus": 1,
        "num_gpus": 1,
        "resources": {"accelerator_type:H100": 0.001},
    }
    assert demands("cuda:0", "", on_one_gpu=2) == {"num_cpus": 1, "num_gpus": 0}


def test_workers_that_share_a_gpu_reserve_parts_of_it():
    assert demands("cuda", "", on_one_gpu=4)["num_gpus"] == 0.25
    # A core each: two GPUs for six workers, and eight GPUs on three cores.
    assert room([H100, A100], device="cuda", kinds=(), on_one_gpu=3) == 6 + 3
    assert room([H100], device="cuda:0", kinds=(), on_one_gpu=3) == 16


def test_a_dead_node_does_not_make_a_cluster_span_machines():
    nodes = [
        {"NodeManagerAddress": "10.0.0.1", "Alive": True},
        {"NodeManagerAddress": "10.0.0.2", "Alive": False},
    ]
    assert not spans_machines(nodes)
    assert spans_machines([{**node, "Alive": True} for node in nodes])
