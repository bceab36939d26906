"""What a node has for itself: its state directory and its address.

Workers share a port by SO_REUSEPORT, so a second node on it would start without a word and take a
part of the traffic. It is asked for once without that option, before the first worker.
"""

import errno
import fcntl
import os
import socket
import time
from pathlib import Path
from typing import Final

from rtb.base.errors import ConfigError
from rtb.server.settings import Server
from rtb.stores.serving import StatePaths

POLL_S: Final = 0.1


def is_claimed(paths: StatePaths) -> bool:
    """Whether a node runs on a state directory. Raises: ConfigError when it cannot be told."""
    try:
        descriptor = os.open(_lock_of(paths), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigError(f"cannot read {_lock_of(paths)}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _lock_of(paths: StatePaths) -> Path:
    return paths.serving.with_name("lock")


def claim_state(paths: StatePaths, wait_s: float) -> int:
    """A lock on the state directory, held while the descriptor that is returned is open.

    Raises: ConfigError when another node has it, or it cannot be made.
    """
    path = _lock_of(paths)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    limit_s = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() > limit_s:
                os.close(descriptor)
                raise ConfigError(f"{paths.root}: another `rtb serve` runs there") from error
            time.sleep(POLL_S)
        else:
            return descriptor


def claim_address(server: Server, wait_s: float) -> None:
    """Returns when nobody listens on the node's address.

    Raises: ConfigError when somebody still does, or it is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    limit_s = time.monotonic() + wait_s
    while True:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((server.host, server.port))
            except (OSError, OverflowError) as error:
                if time.monotonic() > limit_s or not _is_taken(error):
                    where = f"{server.host}:{server.port}"
                    raise ConfigError(f"cannot listen on {where}: {error}") from error
                time.sleep(POLL_S)
            else:
                return


def _is_taken(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EADDRINUSE
