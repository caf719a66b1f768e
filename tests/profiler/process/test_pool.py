import os

import pytest

from profiler.process.pool import SAFE_PATH, process_pool


@pytest.mark.usefixtures("cold_python")
@pytest.mark.parametrize("before", [None, "1"])
def test_processes_import_nothing_from_the_start_folder(tmp_path, monkeypatch, before):
    for name in ("pickle", "random", "socket"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('imported from the start folder')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(SAFE_PATH, raising=False)
    if before:
        monkeypatch.setenv(SAFE_PATH, before)
    with process_pool(1, tasks_each=1) as pool:
        assert len({pool.submit(os.getpid).result(60) for _ in range(2)} - {os.getpid()}) == 2
    assert os.environ.get(SAFE_PATH) == before
