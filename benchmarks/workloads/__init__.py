"""The workloads. Each one prepares once, and can then be run and measured any number of times."""

from . import (
    building,
    first_sync,
    lag,
    live_clients,
    network,
    others,
    plyvel_alone,
    postgres_alone,
    reading,
    replicating,
    sqlite_alone,
    writing,
)
from .common import NotInstalledError, Workload

__all__ = ["WORKLOADS", "NotInstalledError"]

WORKLOADS: dict[str, Workload] = {
    **building.WORKLOADS,
    **writing.WORKLOADS,
    **reading.WORKLOADS,
    **replicating.WORKLOADS,
    **network.WORKLOADS,
    **live_clients.WORKLOADS,
    **first_sync.WORKLOADS,
    **lag.WORKLOADS,
    **plyvel_alone.WORKLOADS,
    **postgres_alone.WORKLOADS,
    **sqlite_alone.WORKLOADS,
    **others.WORKLOADS,
}
