"""What frameworks expect of the task that runs a request, and of the loop."""

from __future__ import annotations

import json
import sys
import threading

import pytest
from conftest import Server


def test_a_request_runs_in_a_task(server: Server) -> None:
    said = json.loads(server.ask("/tasks").text)
    assert said["first"] == [True, True, True]
    assert said["same"]
    assert said["name"] == "app"
    assert "scenarios/__init__.py" in said["repr"]
    assert said["stack"] >= 1


def test_all_tasks_are_known(server: Server) -> None:
    assert json.loads(server.ask("/all-tasks").text) == [51, 51, 1, 0]


@pytest.mark.parametrize("how", ["copy", "difference", "discard", "equal", "repr", "subset"])
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="asyncio keeps its sets itself")
def test_the_set_of_all_tasks_is_one_like_others(server: Server, how: str) -> None:
    assert json.loads(server.ask(f"/set-of-all-tasks?{how}").text) is True


def test_a_task_is_known_though_another_is_made_within_its_first_step(
    server: Server, loop: str
) -> None:
    if loop == "uvloop":
        pytest.skip("uvloop cannot be run within itself")
    with server.connect() as waiting, server.connect() as outer:
        waiting.request("/await-event?nested-begun")
        assert server.ask("/hello").status == 200
        outer.request("/nested")
        assert waiting.response().status == 200
        assert server.ask("/release?nested-done").status == 200
        assert json.loads(outer.response().text) is True


def test_timeouts_and_groups(server: Server) -> None:
    expected = ["wait_for", "wait_for", "timeout", "group"]
    assert json.loads(server.ask("/timeouts").text) == expected


def test_anyio(server: Server) -> None:
    expected = ["timed out: True", "from a thread", "listener cancelled"]
    assert json.loads(server.ask("/anyio-task-group").text) == expected


def test_another_task_may_send(server: Server) -> None:
    response = server.ask("/send-from-child")
    assert (response.text, response.whole) == ("one two three", True)


def test_many_at_once(server: Server) -> None:
    """More requests wait in handlers than fit the window; each gets its own answer."""
    answers: list[str] = []

    def ask() -> None:
        answers.append(server.ask("/slow").text)

    threads = [threading.Thread(target=ask) for _ in range(64)]
    for thread in threads:
        thread.start()
    assert server.ask("/await-event?slow-started").status == 200
    assert server.ask("/release?go").status == 200
    for thread in threads:
        thread.join()
    assert answers == ["slow"] * 64


def test_what_is_scheduled_while_a_task_is_made_runs_too(server: Server) -> None:
    with server.connect() as connection:
        for target, text in [("/disturb", "disturbed"), ("/hello", "Hello, World!")]:
            connection.request(target)
            assert connection.response().text == text
        connection.request("/await-event?disturbed")
        assert connection.response().status == 200


def test_a_task_that_is_made_while_another_is_made_is_known(server: Server) -> None:
    with server.connect() as connection:
        for target in ("/disturb-by-a-task", "/hello"):
            connection.request(target)
            assert connection.response().status == 200
        connection.request("/born-is-known")
        assert json.loads(connection.response().text) == [1, True, True]
