"""Benchmarks: named workloads, and one table that compares the implementations of each.

    python -m benchmarks [workload…] [--records N] [--repeat N] [--json] [--markdown FILE] [--plot
    FILE]

Each contender runs in a process of its own. The processes take turns, run by run, so that a machine
that slows down slows down all of them. The table has the median of the runs; compare ratios within
one table, not rates of different tables.

Peers that are not installed are built (the C program, by CMake, in ``build/ceiling``) or downloaded
(the packages for Node, by npm, in ``benchmarks/node/node_modules``). ``--no-install`` skips them.

A run of all workloads takes some minutes with the default of 100,000 records, and half an hour with
the 1,000,000 records that the targets are for (``--records 1000000``). Slow contenders use fewer
records, and their rows say how many. ``load10m`` uses ten times as many.

Stores are in the folder for temporary files: set ``TMPDIR`` to a folder on a disk. In a file system
in memory, durable writes cost nothing.
"""
