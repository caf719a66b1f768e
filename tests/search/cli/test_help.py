"""The lists of commands in `--help`: every command has a sentence that is not cut."""

import pytest


@pytest.mark.parametrize("group", [(), ("configs",), ("data",), ("table",), ("law",), ("study",)])
def test_every_command_in_a_list_has_a_whole_sentence(call, group, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")  # a common terminal
    listed = call(*group, "--help")[1].partition("Commands:\n")[2].splitlines()
    assert listed
    assert [line for line in listed if line.endswith("...")] == []
