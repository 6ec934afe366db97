"""Generate the synchronous client from the asynchronous one.

``python scripts/generate_sync.py`` rewrites ``dosql/client/_sync``; with ``--check`` it changes
nothing and fails if that directory is not what it would write.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from unasync import Rule, unasync_files

ROOT = Path(__file__).resolve().parent.parent
CLIENT = ROOT / "dosql" / "client"
HEADER = "# Generated from dosql/client/_async by scripts/generate_sync.py; do not edit.\n"
NAMES = {
    "AsyncAdmin": "Admin",
    "AsyncAnyCall": "AnyCall",
    "AsyncAuth": "Auth",
    "AsyncBaseTransport": "BaseTransport",
    "AsyncBranches": "Branches",
    "AsyncClient": "Client",
    "AsyncLine": "Line",
    "AsyncMigrations": "Migrations",
    "AsyncNamespace": "Namespace",
    "AsyncObjectSocket": "ObjectSocket",
    "AsyncSlots": "Slots",
    "AsyncPastTenant": "PastTenant",
    "AsyncReads": "Reads",
    "AsyncResponse": "SyncResponse",
    "AsyncSnapshots": "Snapshots",
    "AsyncStub": "Stub",
    "AsyncTenant": "Tenant",
    "AsyncTenants": "Tenants",
    "AsyncTokens": "Tokens",
    "AsyncTransaction": "Transaction",
    "AsyncTransport": "Transport",
    "AsyncTurn": "Turn",
    "_async": "_sync",
    "aclose": "close",
    "aiter_bytes": "iter_bytes",
    "aiter_raw": "iter_raw",
    "anext": "next",
    "aread": "read",
    "asleep": "sleep",
    "async_dial": "dial",
}


def generate() -> dict[str, str]:
    """File name to content, formatted as the rest of the repository."""
    rule = Rule(fromdir="/_async/", todir="/_sync/", additional_replacements=NAMES)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "_async"
        source.mkdir()
        for path in sorted((CLIENT / "_async").glob("*.py")):
            (source / path.name).write_text(_without_async_prose(path.read_text()))
        unasync_files([str(path) for path in sorted(source.iterdir())], [rule])
        return {
            path.name: _formatted(HEADER + path.read_text(), CLIENT / "_sync" / path.name)
            for path in sorted((Path(scratch) / "_sync").iterdir())
        }


def _without_async_prose(code: str) -> str:
    """Docstrings name classes too; whole-token replacement does not reach into them."""
    lines = code.splitlines(keepends=True)
    for old in sorted(NAMES, key=len, reverse=True):
        if old.startswith("Async"):
            lines = [
                line.replace(f"`{old}", f"`{NAMES[old]}").replace(f'"""{old}:', f'"""{NAMES[old]}:')
                for line in lines
            ]
    return "".join(lines)


def _formatted(code: str, path: Path) -> str:
    # Said outright, or import order would depend on whether the directory exists yet.
    own = ["--config", "lint.isort.known-first-party = ['dosql']"]
    mend = ["check", "--select", "I,UP028", "--fix", "--unsafe-fixes", *own]
    for arguments in (mend, ["format"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "--quiet", "--stdin-filename", path, "-"],
            input=code,
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        code = done.stdout
    return code


def main() -> int:
    """Returns the exit code."""
    wanted = generate()
    target = CLIENT / "_sync"
    present = {path.name: path.read_text() for path in target.glob("*.py")}
    if "--check" in sys.argv[1:]:
        stale = sorted(
            name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name)
        )
        for name in stale:
            print(f"{target / name}: stale; run scripts/generate_sync.py", file=sys.stderr)
        return 1 if stale else 0
    target.mkdir(exist_ok=True)
    for name in present.keys() - wanted.keys():
        (target / name).unlink()
    for name, code in wanted.items():
        (target / name).write_text(code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
