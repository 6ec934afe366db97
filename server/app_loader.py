"""AppLoader: from ``module:app`` to an App that is checked, and to its next version.

A module that cannot be imported says why in one line, with the place in the program; a new version
that cannot be loaded leaves the old one as it was.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from dosql.errors import InvalidRequestError
from dosql.objects.app import App

_PACKAGES = Path(__file__).resolve().parents[1]
_OURS = tuple(str(_PACKAGES / name) for name in ("dosql", "server"))
_NOT_THEIRS = ("<", *_OURS)


class AppLoader:
    """Loads one app. ``target`` is ``module:name``; without ``:name`` the app is called ``app``.

    The module is looked for in ``directory`` first, then where Python looks.
    """

    def __init__(self, target: str, directory: Path) -> None:
        self._target = target
        module, _, name = target.partition(":")
        self._module = module
        self._name = name or "app"
        self._directory = directory.resolve()
        self._loaded: dict[str, ModuleType] = {}
        """The program's own modules, of the version that runs."""
        self._failing: set[Path] = set()
        """Files of a version that could not be loaded."""
        if not module or not all(part.isidentifier() for part in [*module.split("."), self._name]):
            raise _invalid(f"app must be module:name, for example chat.app:app, not {target!r}")

    @property
    def files(self) -> set[Path]:
        """The source files of the app's own modules, whose change makes a new version."""
        return {Path(path) for path in map(_file_of, self._loaded.values()) if path} | self._failing

    def load(self) -> App:
        """Import the program and check it.

        Raises:
            InvalidRequestError: ``app_invalid``.
        """
        if str(self._directory) not in sys.path:
            sys.path.insert(0, str(self._directory))
        importlib.invalidate_caches()
        before = set(sys.modules)
        try:
            app = self._app_in(self._import())
            app.check(self._module)
        except BaseException as exc:
            failed = dict(self._own(set(sys.modules) - before))
            files = [_file_of(module) for module in failed.values()]
            self._failing = {Path(path) for path in [*files, *_files_in(exc)] if path}
            for name in failed:
                del sys.modules[name]
            raise
        self._loaded |= dict(self._own(set(sys.modules) - before))
        self._failing = set()
        return app

    def reload(self) -> App:
        """Import the program again, as its files are now.

        Raises:
            InvalidRequestError: ``app_invalid``; the modules of the old version stay in place.
        """
        old = self._loaded
        for name in old:
            sys.modules.pop(name, None)
        self._loaded = {}
        try:
            return self.load()
        except BaseException:
            self._loaded = old
            sys.modules.update(old)
            raise

    def _import(self) -> ModuleType:
        try:
            return importlib.import_module(self._module)
        except ModuleNotFoundError as exc:
            if exc.name is not None and f"{self._module}.".startswith(f"{exc.name}."):
                raise _invalid(
                    f"there is no module {exc.name!r} in {self._directory}, nor among the "
                    "installed packages"
                ) from None
            raise self._failed(exc) from exc
        except InvalidRequestError as exc:
            if exc.code == "app_invalid":
                raise _invalid(f"{exc.message} ({self._place(exc)})") from None
            raise self._failed(exc) from exc
        except (Exception, SystemExit) as exc:
            raise self._failed(exc) from exc

    def _app_in(self, module: ModuleType) -> App:
        found: object = getattr(module, self._name, None)
        if isinstance(found, App):
            return found
        names = [name for name, value in vars(module).items() if isinstance(value, App)]
        hint = f"write {self._module}:{names[0]}" if names else f"write `{self._name} = App()`"
        raise _invalid(f"{self._name!r} in module {self._module!r} is no dosql App; {hint}")

    def _failed(self, exc: BaseException) -> InvalidRequestError:
        what = "".join(traceback.format_exception_only(exc)[-1:]).strip()
        if isinstance(exc, SyntaxError):
            what = f"{type(exc).__name__}: {exc.msg}"
        return _invalid(f"{self._target} cannot be loaded: {what} ({self._place(exc)})")

    def _place(self, exc: BaseException) -> str:
        """Where in the program it happened, as ``file:line``."""
        place = self._module
        if isinstance(exc, SyntaxError) and exc.filename:
            return f"{self._shown(exc.filename)}:{exc.lineno}"
        for frame in traceback.extract_tb(exc.__traceback__):
            if not frame.filename.startswith(_NOT_THEIRS):
                place = f"{self._shown(frame.filename)}:{frame.lineno}"
        return place

    def _shown(self, filename: str) -> str:
        path = Path(filename)
        return str(
            path.relative_to(self._directory) if path.is_relative_to(self._directory) else path
        )

    def _own(self, names: set[str]) -> Iterator[tuple[str, ModuleType]]:
        """Those of the modules that are the program's: below its directory, and not installed."""
        for name in sorted(names):
            module = sys.modules[name]
            path = _file_of(module)
            if path is None or "site-packages" in path or path.startswith(_OURS):
                continue
            if Path(path).resolve().is_relative_to(self._directory):
                yield name, module


def _file_of(module: ModuleType) -> str | None:
    """Its source file; None for a module that has none."""
    path: object = getattr(module, "__file__", None)
    return path if isinstance(path, str) else None


def _files_in(exc: BaseException | None) -> Iterator[str]:
    """The program's files that an error comes from: a module that fails is not kept anywhere."""
    while exc is not None:
        if isinstance(exc, SyntaxError) and exc.filename:
            yield exc.filename
        for frame in traceback.extract_tb(exc.__traceback__):
            if not frame.filename.startswith(_NOT_THEIRS):
                yield frame.filename
        exc = exc.__cause__


def _invalid(what: str) -> InvalidRequestError:
    return InvalidRequestError(what, code="app_invalid")
