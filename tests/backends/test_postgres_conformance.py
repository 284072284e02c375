"""The conformance suite on the PostgreSQL backend."""

from __future__ import annotations

import pytest
from backends.tables import Table

from treehub_level.backends.base import Backend
from treehub_level.backends.postgres import PostgresBackend
from treehub_level.testing import BackendConformance
from treehub_level.testing.conformance import BackendFactory

pytestmark = pytest.mark.once


class TestPostgres(BackendConformance):
    @pytest.fixture
    def backend_factory(self, table: Table) -> BackendFactory:
        return table.backend

    @pytest.fixture
    def unusable(self) -> Backend:
        return PostgresBackend("postgresql://alice@127.0.0.1:1/nowhere")
