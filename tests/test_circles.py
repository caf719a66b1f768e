"""No file imports itself by way of others, also where an import stands within a function."""

from graphlib import TopologicalSorter

import grimp


def test_no_file_imports_itself_by_way_of_others() -> None:
    graph = grimp.build_graph("operators", "profiler", "proxy_train", "search", cache_dir=None)
    assert len(graph.modules) > 400
    # It raises an error with the names on a circle.
    TopologicalSorter(
        {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    ).prepare()
