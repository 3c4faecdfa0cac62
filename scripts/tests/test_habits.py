"""Bad habits must be flagged, and their excuses be heard."""

from __future__ import annotations

import habits
import pytest


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("tests/test_a.py", "    time.sleep(0.1)"),
        ("tests/test_a.py", "    await asyncio.sleep(0)"),
        ("tests/test_a.py", "    sleep(1)"),
        ("core/tests/ring.rs", "    thread::sleep(Duration::from_millis(5));"),
        ("core/tests/ring.rs", "    std::thread::sleep(SHORT);"),
        ("tests/c/test_a.c", "    usleep(1000);"),
        ("tests/wait.sh", "for i in 1 2; do sleep 1; done"),
        ("tests/test_a.py", "    sock.connect(('127.0.0.1', 8080))"),
        ("tests/test_a.py", "    sock.bind((host, 8080))"),
        ("tests/test_a.py", "    run('--port', '8080')"),
        ("tests/test_a.py", "    run(f'toolb run main:app --port 8080')"),
        ("tests/test_a.py", "    httpx.get('http://127.0.0.1:8080/')"),
        ("core/tests/ring.rs", '    TcpListener::bind("127.0.0.1:8080")'),
        ("core/tests/ring.rs", '    TcpStream::connect(("127.0.0.1", 8080))'),
        ("tests/c/test_a.c", "    addr.sin_port = htons(8080);"),
        ("examples/fastapi/test_main.py", "    time.sleep(1)"),
        ("bindings/python/tests/conftest.py", "    time.sleep(1)"),
        ("docs/index.md", "see /home/" + "anna/notes"),
        ("core/src/lib.rs", 'const A: &str = "/root/' + 'x";'),
        ("Makefile", "\tcp x /work/" + "y"),
    ],
)
def test_flagged(where: str, line: str) -> None:
    problems = habits.problems_in(where, f"first\n{line}\n")
    assert len(problems) == 1
    assert problems[0].startswith(f"{where}:2: ")


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("tests/test_a.py", "    time.sleep(0.1)  # not-sync: the handler under test is slow"),
        ("core/tests/ring.rs", "    thread::sleep(A); // not-sync: paces the load"),
        ("tests/test_a.py", "    run('--port', '8080')  # not-bound: refused before it binds"),
        ("tests/test_a.py", "    run('--port', '0')"),
        ("tests/test_a.py", "async def sleep(request):"),
        ("tests/test_a.py", "    # time.sleep(1) would be wrong here"),
        ("tests/test_a.py", "    sock.bind(('127.0.0.1', 0))"),
        ("core/tests/ring.rs", '    TcpListener::bind("127.0.0.1:0")'),
        ("core/src/http/mod.rs", "    thread::sleep(A);"),
        ("examples/fastapi/main.py", "    await asyncio.sleep(1)"),
        ("docs/index.md", "open the /home page, ~/work/x or {root}/root/x"),
    ],
)
def test_passed(where: str, line: str) -> None:
    assert habits.problems_in(where, f"first\n{line}\n") == []


def test_an_excuse_stands_on_the_line_or_the_one_above() -> None:
    excuse = "# not-sync: the handler is slow"
    assert habits.problems_in("tests/test_a.py", f"{excuse}\ntime.sleep(1)\n") == []
    assert len(habits.problems_in("tests/test_a.py", f"{excuse}\n\ntime.sleep(1)\n")) == 1


def test_an_excuse_needs_a_reason() -> None:
    assert len(habits.problems_in("tests/test_a.py", "time.sleep(1)  # not-sync:\n")) == 1


def test_unit_tests_inside_a_source_count() -> None:
    source = "fn f() { thread::sleep(A); }\n#[cfg(test)]\nmod tests {\n    fn g() { thread::sleep(A); }\n}\n"
    assert [problem.split(":")[1] for problem in habits.problems_in("core/src/a.rs", source)] == [
        "4"
    ]
