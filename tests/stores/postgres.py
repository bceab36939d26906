"""A real PostgreSQL of its own: made in a temporary directory, reached by a Unix socket only."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import pytest

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
FOUND = BINARIES[-1].parent if BINARIES else None
START_S_MAX = 30.0
# initdb refuses root; who runs the server when we are root, first that exists.
USERS = ("postgres", "nobody")


def folder_of_programs() -> Path | None:
    """Where initdb and postgres are; None when they are not installed."""
    if FOUND is not None:
        return FOUND
    initdb = shutil.which("initdb")
    return Path(initdb).resolve().parent if initdb else None


def _user() -> str | None:
    """Whom to run as; None: as ourselves."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in USERS if name in names)


class Postgres:
    """The server; `url` makes a new empty database each time."""

    def __init__(self, programs: Path) -> None:
        self.programs = programs
        self.user = _user()
        # Not below pytest's folders: another user must enter it, and paths of sockets are short.
        self.folder = Path(tempfile.mkdtemp(prefix="rtb-pg-"))
        if self.user is not None:
            shutil.chown(self.folder, self.user)
        self.data = self.folder / "data"
        self._run("initdb", "-D", self.data, "-A", "trust", "-U", "rtb", "--no-sync", "-E", "UTF8")
        self.start()

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        options = ["-c", "listen_addresses=", "-k", str(self.folder), "-c", "shared_buffers=16MB"]
        self.process = subprocess.Popen(
            [self.programs / "postgres", "-D", self.data, *options],
            user=self.user, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        limit_s = time.monotonic() + START_S_MAX
        while time.monotonic() < limit_s:
            if self._ready():
                return
            time.sleep(0.05)
        raise AssertionError("PostgreSQL did not start")

    def _ready(self) -> bool:
        command = [self.programs / "pg_isready", "-q", "-h", self.folder]
        return subprocess.run(command, check=False).returncode == 0

    def url(self) -> str:
        """A new database."""
        name = f"t{uuid.uuid4().hex}"
        self._run("createdb", "-h", self.folder, "-U", "rtb", name)
        return f"postgresql://rtb@/{name}?unix_sock={self.folder}/.s.PGSQL.5432"

    def kill(self) -> None:
        """Ends all of it at once, as a power cut would."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(START_S_MAX)

    def stop(self) -> None:
        """Ends the server and removes what it had."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: object) -> None:
        subprocess.run(
            [self.programs / program, *map(str, arguments)],
            user=self.user, cwd=self.folder, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip


def sqlite_url(folder: Path) -> str:
    """The books beside which the server's are tested."""
    return f"sqlite:///{folder}/ledger.db"


def start_or_skip() -> Postgres:
    """The server, or a skip that says what is missing."""
    programs = folder_of_programs()
    if programs is None:
        pytest.skip("no PostgreSQL: neither /usr/lib/postgresql/*/bin nor initdb in PATH")
    return Postgres(programs)
