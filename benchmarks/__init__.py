"""Named workloads, every implementation in one table.

    python -m benchmarks [workload…] [--records N] [--repeat N] [--json] [--markdown FILE] [--plot
    FILE]

Each contender runs in a process of its own. The processes take turns, run by run, so that a machine
that slows down slows all of them down; what counts is the median, and the ratio within one table.
Peers that are not installed are built (the C program, by CMake, in ``build/ceiling``) or fetched
(the packages for Node, by npm, in ``benchmarks/node/node_modules``), unless ``--no-install``
forbids it.

A run of everything takes some minutes with the default 100,000 records, and about half an hour with
the million of the targets (``--records 1000000``). A contender that would take too long gets fewer
records and its row says how many; ``load10m`` loads ten times as many.

Stores are written to where ``TMPDIR`` says; on a disk in memory durable writes cost nothing.
"""
