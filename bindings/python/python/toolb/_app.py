"""Finding the application that was named on the command line."""

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class AppError(Exception):
    """The application cannot be loaded; the text is one line that says how to mend it."""


def load(target: str, *, factory: bool, app_dir: str) -> App:
    """The application that `module:attribute` names."""
    module_name, colon, attribute = target.partition(":")
    if not (module_name and colon and attribute):
        raise AppError(
            f'"{target}" does not name an application: it takes the form module:attribute, like main:app'
        )
    directory = os.path.abspath(app_dir or os.curdir)
    # As `python -m` has it, which the worker has undone for its own imports.
    here = [] if getattr(sys.flags, "safe_path", False) else [os.getcwd()]
    for folder in [*here, directory]:
        if folder not in sys.path:
            sys.path.insert(0, folder)
    app: Any = _import(module_name, directory)
    app = _find(app, attribute, module_name)
    if factory:
        app = _make(app, target)
    _check(app, target)
    return app  # type: ignore[no-any-return]


def _import(name: str, directory: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing != name and not name.startswith(f"{missing}."):
            _show(error)
            raise AppError(
                f'module "{name}" does not import: it needs "{missing}", which is not installed in the '
                f"environment of {sys.executable}"
            ) from error
        raise AppError(
            f'there is no module "{name}" in {directory} or on sys.path: check the name, or say where it is '
            "with --app-dir"
        ) from error
    except BaseException as error:
        _show(error)
        raise AppError(
            f'module "{name}" does not import: {_brief(error)}; the traceback is above'
        ) from error


def _find(module: Any, attribute: str, module_name: str) -> Any:
    found = module
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            names = [name for name, value in vars(module).items() if _is_likely(name, value)]
            hint = f"; did you mean {module_name}:{names[0]}?" if names else ""
            where = getattr(module, "__file__", None) or module_name
            raise AppError(
                f'module "{module_name}" ({where}) has no attribute "{attribute}"{hint}'
            ) from error
    return found


def _is_likely(name: str, value: object) -> bool:
    if name.startswith("_") or inspect.ismodule(value) or inspect.isclass(value):
        return False
    call = getattr(type(value), "__call__", None)  # noqa: B004 - the function, not whether there is one
    is_async = inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(call)
    return is_async and _positional(value) == 3


def _make(factory: Any, target: str) -> Any:
    if not callable(factory):
        raise AppError(
            f"{target} cannot be called: leave --factory out, it is for functions that make the app"
        )
    try:
        return factory()
    except BaseException as error:
        _show(error)
        raise AppError(
            f"the factory {target} failed: {_brief(error)}; the traceback is above"
        ) from error


def _check(app: Any, target: str) -> None:
    if not callable(app):
        raise AppError(
            f"{target} is a {type(app).__name__}, which is no application: it cannot be called"
        )
    takes = _positional(app)
    if takes == 0:
        raise AppError(f"{target} takes no arguments: if it makes the application, add --factory")
    if takes == 2:
        raise AppError(
            f"{target} takes two arguments, as a WSGI application does: this worker runs ASGI applications, "
            "which take (scope, receive, send)"
        )


def _positional(app: Any) -> int:
    """How many arguments `app` must be given; 3 if that cannot be told."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return 3
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return 3
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p for p in parameters if p.kind in positional and p.default is p.empty]
    return len(required)


def _brief(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _show(error: BaseException) -> None:
    """Prints where `error` came from, without the frames of this module and of importlib."""
    tb = error.__traceback__
    skip = (
        __file__,
        importlib.__file__,
        "<frozen importlib._bootstrap>",
        "<frozen importlib._bootstrap_external>",
    )
    while tb is not None and tb.tb_frame.f_code.co_filename in skip:
        tb = tb.tb_next
    traceback.print_exception(type(error), error, tb, file=sys.stderr)
