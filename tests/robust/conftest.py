from __future__ import annotations

from collections.abc import Iterator

import pytest

from .harness import Server, Servers
from .stage import Stage


@pytest.fixture
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Starts servers that belong to one test."""
    made = Servers(tmp_path_factory.mktemp("toolb"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Starts servers that all tests of a module use."""
    made = Servers(tmp_path_factory.mktemp("toolb"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def one(shared_servers: Servers) -> Server:
    """A server with one worker: what it sees, it sees in order."""
    return shared_servers.start(workers=1)


@pytest.fixture(scope="module")
def two(shared_servers: Servers) -> Server:
    return shared_servers.start(workers=2)


@pytest.fixture
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage(tmp_path_factory.mktemp("bus"))
    yield stage
    stage.close()
