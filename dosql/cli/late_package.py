"""A package that is entered before it is run.

``import package.module`` runs the whole ``__init__`` of the package first, which may import much
more than the module. uvicorn's imports its own command line, a tenth of all that we import.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec, module_from_spec


def enter_late(name: str) -> None:
    """Let modules below the package ``name`` be imported without its ``__init__``. That runs as
    soon as something is asked of the package itself, so nobody can tell the difference.

    A package that is imported already, or not installed, is left alone.
    """
    spec = None if name in sys.modules else find_spec(name)
    if spec is None or spec.loader is None:
        return
    package, loader = module_from_spec(spec), spec.loader

    def run(attribute: str) -> object:
        package.__dict__.pop("__getattr__", None)
        loader.exec_module(package)
        return getattr(package, attribute)

    package.__dict__["__getattr__"] = run
    sys.modules[name] = package
