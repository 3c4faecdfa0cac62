"""The native half. Nothing here is for applications, except what `toolb` itself exports."""

from asyncio import AbstractEventLoop, Task
from collections.abc import Callable, Generator, Sequence
from typing import Any, final

from typing_extensions import Self

__version__: str

class ClientDisconnected(OSError):
    """The client has gone: nothing more can be sent."""

class AttachError(ConnectionError):
    """The worker could not attach to its engine."""

class EngineAbsent(AttachError):
    """There is no engine at that address, or not now."""

class BusError(ConnectionError):
    """The engine broke the rules of the bus."""

@final
class Exchange:
    """A request and its response: exchange() receives a message, exchange(message) sends one."""

    def __call__(self, message: Any = ..., /) -> Answer: ...
    def send(self, value: Any, /) -> Any: ...
    def throw(self, *args: Any) -> Any: ...
    def close(self) -> None: ...
    def __await__(self) -> Generator[Any, Any, Any]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...

@final
class Answer:
    """What receive() and send() return: await it."""

    def send(self, value: Any, /) -> Any: ...
    def throw(self, *args: Any) -> Any: ...
    def close(self) -> None: ...
    def __await__(self) -> Generator[Any, Any, Any]: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Any: ...

@final
class Worker:
    """This process as the engine sees it."""

    def __new__(
        cls,
        bus: str,
        *,
        name: str,
        pool: str,
        generation: int,
        token: int,
        slots: int,
        concurrency: int,
        window: int,
        timeout: float,
    ) -> Worker: ...
    def reattach(self, bus: str) -> None:
        """Attaches to an engine again, after the last one has gone."""
    def leave(self) -> None:
        """Says that no more requests are wanted."""
    @property
    def fd(self) -> int:
        """The doorbell."""
    @property
    def control_fd(self) -> int:
        """Readable when `control` has something to say."""
    @property
    def in_flight(self) -> int:
        """Requests that came and are not done."""
    @property
    def served(self) -> int:
        """Requests started so far."""
    def control(self) -> tuple[str, str, float | None] | None:
        """The next word of the engine: kind, text, seconds that are left. None if there is none."""
    def ready(self) -> None:
        """Says that the application has started."""
    def fail(self, reason: str, permanent: bool) -> None:
        """Says that the application does not start."""
    def drained(self) -> None:
        """Says that everything is finished."""
    def serve(
        self,
        app: Callable[..., Any],
        event_loop: AbstractEventLoop,
        *,
        report: Callable[[str, BaseException | None], object],
        broken: Callable[[str], object],
        root_path: str,
        state: dict[str, Any] | None,
    ) -> None:
        """Prepares for requests: what to call, on which loop."""
    def drain(self) -> int:
        """Serves what has come. Returns how many events that were."""
    def before_poll(self, timeout: float | None) -> float | None:
        """Serves what has come. Returns how long the loop may block (-1: for ever).

        None: it need not poll at all this time.
        """
    def after_poll(self, found: int) -> None:
        """Serves what the loop was woken for."""
    def attach_uv(self, event_loop: AbstractEventLoop) -> None:
        """Serves from within the libuv loop of `event_loop`, a `uvloop.Loop`."""
    def detach_uv(self) -> None:
        """Ends that."""
    def arm(self) -> bool:
        """Announces that the loop is about to block. False: it must not."""
    def disarm(self) -> None:
        """Announces that the loop runs again."""
    def flush(self, idle: bool) -> None:
        """Tells the engine's loops what they were not told of."""
    def clear_doorbell(self) -> None:
        """Makes the doorbell unreadable."""
    def when_idle(self, callback: Callable[[], object]) -> None:
        """Has `callback` called from the loop, once, when nothing is in flight."""
    def end_streams(self) -> None:
        """Tells the applications in the middle of a response, if they receive, that it is to end."""
    def give_up(self) -> None:
        """Says that what is in flight is about to be cancelled, through no fault of its own."""
    def tasks(self) -> tuple[Task[None], ...]:
        """The tasks of the requests in flight."""

@final
class Leash:
    """What ties this process to the `toolb work` that has started it."""

    def __new__(cls, address: str) -> Leash: ...
    @property
    def fd(self) -> int:
        """Readable when `word` has something to say."""
    def ready(self) -> None:
        """Says that the application has started."""
    def fail(self, reason: str, permanent: bool) -> None:
        """Says that the application does not start."""
    def leave(self) -> None:
        """Says that it ends when it has finished, though it was not told to."""
    def attached(self, attached: bool, why: str = "") -> None:
        """Says whether there is an engine, and if not, why."""
    def word(self) -> tuple[str, str, float | None] | None:
        """The next word of the supervisor, None if there is none.

        To drain is to take leave and to finish; said a second time, it is to hurry.
        """

def name_aborts() -> None:
    """Has what the fault handler says on SIGABRT begin with a line that names this process."""

def run_cli(args: Sequence[str], executable: str) -> int:
    """Runs the `toolb` program and returns its exit code."""
