"""The comparisons in bench/: what they read, what they compute, and that nothing goes missing
quietly. Nothing is measured here."""

from __future__ import annotations

import json
from pathlib import Path

import hotspots
import load
import promises
import pytest
import report
import run as program
import servers
import trips

WRK = """\
Running 2s test @ http://host/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   480.95us  171.69us  16.37ms   92.52%
    Req/Sec   133.01k     4.13k  138.49k    80.00%
  Latency Distribution
     50%  474.00us
     75%  511.00us
     90%  560.00us
     99%    1.02ms
  264650 requests in 2.00s, 28.27MB read
  Socket errors: connect 0, read 3, write 0, timeout 0
  Non-2xx or 3xx responses: 7
Requests/sec: 132253.04
Transfer/sec:     14.13MB
"""

STRACE = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ------------------
 48.90    0.105705      105705         1           wait4
 29.79    0.064381          21      4000           write
 20.66    0.044649          15      4002         2 epoll_wait
------ ----------- ----------- --------- --------- ------------------
100.00    0.216136          23      8003         2 total
"""


def sample(number: int, rate: float = 100.0, cpu: float = 10.0) -> load.Sample:
    return load.Sample(number, 1000, rate, 0.5, 1.0, cpu, 2048, 1024, 1, 0.0)


def plan(run_loads: list[str], native: list[str]) -> report.Plan:
    return report.Plan("test", 1, run_loads, {"native": native})


def row(number: int, way: str, size: int, p50: int) -> dict[str, object]:
    return {"round": number, "way": way, "bytes": size, "trips": 99999, "p50": p50, "p99": 2 * p50}


def test_what_wrk_says_is_read() -> None:
    answer = load.parse(WRK, "64")
    assert answer is not None
    assert (answer.requests, answer.rate) == (264650, 132253.04)
    assert answer.p50 == pytest.approx(0.474)
    assert answer.p99 == pytest.approx(1.02)
    assert [r.split()[0] for r in answer.remarks] == ["Socket", "Non-2xx"]


def test_latencies_of_pipelined_requests_are_not_believed() -> None:
    answer = load.parse(WRK, load.PIPELINED)
    assert answer is not None
    assert (answer.p50, answer.p99) == (None, None)


def test_no_request_is_no_result() -> None:
    assert load.parse("unable to connect to host\n", "64") is None
    assert load.parse("  0 requests in 1.00s\nRequests/sec: 0.00\n", "64") is None


def test_each_load_is_another_call_of_wrk() -> None:
    url = "http://host/"
    calls = {name: load.command(url, name, 2) for name in ("1", "64", *load.NATIVE_LOADS)}
    assert all(words[0] == "wrk" and words[-1] == url for words in calls.values())
    assert "-c1" in calls["1"]
    assert all("-c64" in calls[name] for name in ("64", *load.NATIVE_LOADS))
    assert "Connection: close" in calls[load.CLOSING]
    assert Path(calls[load.PIPELINED][-2]).is_file()
    assert len({load.title(name) for name in calls}) == len(calls)


def test_ratios_are_of_one_round_each() -> None:
    found = promises.Run()
    found.samples["native", "ours", "64"] = [sample(0, 50), sample(1, 300), sample(2, 7)]
    found.samples["native", "peer", "64"] = [sample(0, 100), sample(1, 100), sample(3, 1)]
    assert found.ratios("native", "64", "ours", "peer", "rate") == [0.5, 3.0]
    assert found.ratios("native", "64", "ours", "nobody", "rate") == []


@pytest.mark.parametrize(
    ("small", "ratio", "word"),
    [
        (True, 1.1, "aim"), (True, 1.25, "floor"), (True, 1.31, "BELOW"),
        (False, 1.31, "BELOW"), (False, 1.6, "floor"), (False, 2.0, "aim"),
    ],
)  # fmt: skip
def test_a_promise_is_kept_or_not(small: bool, ratio: float, word: str) -> None:
    floor, aim = (1.3, 1.15) if small else (1.5, 2.0)
    assert promises.verdict("x", small, [ratio], floor, aim).verdict == word


def test_what_was_not_measured_holds_no_promise() -> None:
    assert promises.verdict("x", True, [], 1.3, 1.15).verdict == "not measured"
    assert promises.verdict("x", False, [4.9], None, 5.0).verdict == "short of aim"


def test_every_promise_is_about_a_server_that_is_measured() -> None:
    there = servers.all_servers(servers.Tools(Path(), None, Path()))
    names = {group: [s.name for s in found] for group, found in there.items()}
    assert names.keys() == promises.TITLES.keys() == promises.BASELINES.keys()
    assert all(promises.BASELINES[group] in found for group, found in names.items())
    everything = report.Plan("x", 1, program.parse([]).loads, names)
    for floor in promises.FLOORS:
        assert {floor.ours, floor.peer} <= set(names[floor.group])
        assert floor.load in everything.loads_of(floor.group)
    labels = [floor.label() for floor in promises.FLOORS]
    assert len(set(labels)) == len(labels)


def test_what_is_missing_stands_there_in_bold() -> None:
    found = promises.Run(trips=trips.Trips(absent={"iceoryx2": "no network\nsecond line"}))
    found.samples["native", "toolb inline C", "64"] = [sample(0)]
    found.absent["native", "nginx"] = "nginx is not installed"
    text = report.document(found, plan(["64"], ["toolb inline C", "nginx"]))
    assert "**Missing: native, nginx**: nginx is not installed\n" in text
    assert "**Missing: iceoryx2**: no network\n" in text
    assert "second line" not in text
    assert any(line.split()[1:4] == ["nginx", "|", "missing"] for line in text.splitlines())
    assert text.count("not measured") == sum(
        f.load == "64" and f.group == "native" for f in promises.FLOORS
    ) + len(["polling", "sleeping"])


def test_programs_that_are_not_there_are_named(tmp_path: Path) -> None:
    found = trips.gather(tmp_path, 1, 1, 1)
    assert len(found.absent) == 3
    assert "toolb-bench-bus is not there" in found.absent["bus round trips"]
    assert "lateness is not there" in found.absent["lateness of stream timeouts"]
    tools = servers.Tools(tmp_path, None, tmp_path)
    for server in servers.all_servers(tools)["native"][:3]:
        with pytest.raises(servers.MissingError, match="scripts"):
            server.command(tmp_path, 0)


def test_round_trips_without_the_middleware_say_so(tmp_path: Path) -> None:
    line = json.dumps(row(0, trips.POLLING, 64, 800))
    starved = json.dumps(row(1, trips.BARE, 8, 10**8) | {"trips": 1})
    fake = tmp_path / "toolb-bench-bus"
    fake.write_text(f"#!/bin/sh\necho '{line}'; echo '{starved}'\n")
    fake.chmod(0o755)
    late = tmp_path / "lateness"
    late.write_text("#!/bin/sh\necho no streams here >&2\nexit 3\n")
    late.chmod(0o755)
    found = trips.gather(tmp_path, 1, 1, 1)
    assert found.rows == [json.loads(line)]
    assert "others had the core" in found.absent[trips.BARE]
    assert "1 of 2 measurements" in report.trips_table(found)
    assert "built without it" in found.absent["iceoryx2"]
    assert found.absent["lateness of stream timeouts"] == ("lateness ended with 3: no streams here")


def test_round_trips_are_held_against_the_bare_line_of_their_round() -> None:
    found = trips.Trips(
        rows=[
            row(0, trips.BARE, 8, 400), row(0, trips.POLLING, 64, 600),
            row(0, trips.POLLING, 1024, 9000),
            row(1, trips.POLLING, 64, 1000), row(1, trips.BARE, 8, 100),
        ]
    )  # fmt: skip
    assert found.ratios(trips.POLLING, 64) == [1.5, 10.0]
    assert found.ratios(trips.IN_PLACE, 64) == []
    assert found.rounds_on_one_core() == 1
    assert found.ways() == [trips.BARE, trips.POLLING]
    assert found.value(trips.POLLING, 64, "p50") == 800
    text = report.trips_table(found)
    assert "3.20 x" in text
    assert "36.00 x" in text
    assert "in 1 of 2 rounds" in text
    assert all(len(line.split("|")) == 12 for line in text.splitlines() if line.startswith("|"))


def test_a_promise_about_round_trips_stands_beside_what_moves_the_bytes_alone() -> None:
    rows = [row(0, trips.BARE, 8, 100), row(0, trips.POLLING, 64, 250)]
    (held, _) = promises.judge(promises.Run(trips=trips.Trips(rows=rows)), [], [])
    assert (held.ratio, held.limit, held.verdict) == (2.5, None, "BELOW")
    rows.append(row(0, trips.IN_PLACE, 64, 180))
    (held, _) = promises.judge(promises.Run(trips=trips.Trips(rows=rows)), [], [])
    assert held.limit == 1.8


def test_system_calls_are_those_of_the_trips_alone() -> None:
    few = trips.parse_strace(STRACE)
    assert few == {"wait4": 1, "write": 4000, "epoll_wait": 4002}
    more = {"wait4": 1, "write": 8000, "epoll_wait": 8002}
    calls = trips.calls_per_trip(few, more)
    assert calls == {"write": 2.0, "epoll_wait": 2.0}
    assert trips.Trips(calls=calls).calls_per_sleep() == 1.0
    assert trips.Trips(calls=calls | {"read": 2.0}).calls_per_sleep() == 1.5
    assert trips.Trips(calls={}).calls_per_sleep() is None


def test_lateness_is_shown_in_milliseconds() -> None:
    late = {"timeouts": 3840, "streams": 64, "wait_ms": 50, "min": 12, "p50": 480, "p90": 900,
            "p99": 1010, "max": 1200}  # fmt: skip
    text = report.lateness_table(trips.Trips(lateness=late))
    assert "| 3,840 |" in text
    assert "0.48" in text
    assert report.lateness_table(trips.Trips()) == ""


def test_the_result_can_be_read_by_programs() -> None:
    found = promises.Run(trips=trips.Trips(rows=[row(0, trips.BARE, 8, 300)]), rounds=1)
    found.samples["native", "nginx", "64"] = [sample(0)]
    data = json.loads(report.as_json(found, plan(["64"], ["nginx"])))
    assert data["samples"][0]["server"] == "nginx"
    assert data["trips"]["rows"][0]["p50"] == 300


def test_options(capsys: pytest.CaptureFixture[str]) -> None:
    quick, full = program.parse(["--quick"]), program.parse([])
    assert set(quick.loads) < set(full.loads)
    assert set(load.NATIVE_LOADS) < set(quick.loads)
    assert quick.only == full.only == program.GROUPS
    for wrong in (["--loads", "many"], ["--only", "go"], ["--name", "../x"]):
        with pytest.raises(SystemExit):
            program.parse(wrong)
    assert "not many" in capsys.readouterr().err


def test_profiles_of_c_and_cpp_do_not_overwrite_each_other() -> None:
    names = {hotspots.file_name(f"native/toolb inline {name}") for name in ("C", "C++")}
    assert names == {"native-toolb-inline-C", "native-toolb-inline-cpp"}
