"""Named workloads, every implementation in one table.

    python -m benchmarks [workload…] [--records N] [--repeat N] [--json]

Each core runs in a process of its own, since it is chosen at import. The processes take turns, run by run, so that a
machine that slows down slows all of them down; what counts is the median, and the ratio within one table.
"""
