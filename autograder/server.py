"""The fork server: imports everything once, then forks a child for every submission.

``python -m autograder.server FD SETTINGS`` speaks over the socket FD, a line of JSON at a time,
with the process that grades:

========================  ========================================================================
from the grading process  ``{"run": n, "seconds": s}`` with three file descriptors: the job (JSON,
                          see :meth:`autograder.engine.Job.to_json`), where its frames go, and
                          where its standard error goes; ``{"kill": n}``
to the grading process    ``{"ready": pid}``; for every submission ``{"started": n}`` and at last
                          ``{"ended": n, "code": c, "signal": s, "reason": text, "peak": bytes}``
========================  ========================================================================

The server itself reads no byte of a submission and never hears from a child: a child gets the job,
two pipes and nothing else. See :mod:`autograder.sandbox` for how it is shut in.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any, NoReturn

from autograder import sandbox

_LOOK_EVERY = 0.2  # seconds between two looks at what the running submissions use


@dataclass
class _Running:
    """A submission that runs: its first process, and what it may use."""

    number: int
    pid: int
    folder: str | None
    peak: int = 0
    reason: str = ""


class Server:
    """Forks, watches and ends the processes of submissions."""

    def __init__(self, control: socket.socket, settings: dict[str, Any]) -> None:
        self.control = control
        self.enclosure = sandbox.Enclosure(
            tuple(settings["layers"]),
            sandbox.View.from_json(settings["view"]),
            sandbox.Bounds(**settings["bounds"]),
        )
        self.folder = settings["folder"]  # where submissions work that have no mounts of their own
        self.running: dict[int, _Running] = {}
        self.selector = selectors.DefaultSelector()
        self.received = b""
        self.descriptors: list[int] = []
        self.base = _anonymous(os.getpid())
        self.next_look = 0.0

    def serve(self) -> None:
        """Serves until the grading process hangs up, then ends whatever still runs."""
        woken, wake = socket.socketpair()
        woken.setblocking(False)
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.selector.register(self.control, selectors.EVENT_READ, self._hear)
        self.selector.register(woken, selectors.EVENT_READ, lambda: bool(woken.recv(4096)))
        self._tell({"ready": os.getpid()})
        try:
            while all(
                key.data() for key, _ in self.selector.select(_LOOK_EVERY if self.running else None)
            ):
                self._reap()
                self._look()
        finally:
            for pid in _family(os.getpid())[1:]:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)

    def _hear(self) -> bool:
        """Takes what the grading process says; False where it has hung up."""
        data, descriptors, _, _ = socket.recv_fds(self.control, 1 << 16, 30)
        self.received += data
        self.descriptors += descriptors
        while b"\n" in self.received:
            line, self.received = self.received.split(b"\n", 1)
            message = json.loads(line)
            if "kill" in message:
                running = self.running.get(message["kill"])
                if running:
                    self._kill(running)
                continue
            given, self.descriptors = self.descriptors[:3], self.descriptors[3:]
            try:
                self._start(message["run"], message["seconds"], given)
                self._tell({"started": message["run"]})
            except OSError as error:
                self._tell({"ended": message["run"], "failed": str(error)})
            finally:
                for fd in given:
                    os.close(fd)
        return bool(data)

    def _start(self, number: int, seconds: float, descriptors: list[int]) -> None:
        if self.enclosure.has("namespaces"):
            folder = None
            pid = self._fork_apart(seconds, descriptors, sandbox.user_of(number))
        else:
            folder = os.path.join(self.folder, str(number))
            os.makedirs(os.path.join(folder, "work"))
            pid = os.fork()
            if pid == 0:
                self._child(seconds, descriptors, None, folder)
        self.running[number] = _Running(number, pid, folder)

    def _fork_apart(self, seconds: float, descriptors: list[int], user: int | None) -> int:
        """Starts a child in namespaces of its own; returns its process id.

        New process namespaces begin with the next child, so a helper makes them and is gone.
        """
        reader, writer = os.pipe()
        wait, go = os.pipe()
        helper = os.fork()
        if helper == 0:
            try:
                os.close(reader)
                os.close(go)
                sandbox.unshare()
                pid = os.fork()
                if pid == 0:
                    os.close(writer)
                    os.read(wait, 1)  # until the helper is gone and the server is the parent
                    self._child(seconds, descriptors, user, None)
                os.write(writer, b"%d" % pid)
            except BaseException as error:
                os.write(writer, f"{type(error).__name__}: {error}".encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.read()
        os.waitpid(helper, 0)
        os.close(wait)
        os.close(go)
        if not answer.isdigit():
            raise OSError(f"no namespaces: {answer.decode('utf-8', 'replace')}")
        return int(answer)

    def _child(
        self, seconds: float, descriptors: list[int], user: int | None, folder: str | None
    ) -> NoReturn:
        """What a child does: shuts itself in, and runs the submission."""
        from autograder import worker

        code = 70
        try:
            job, frames, errors = descriptors
            sandbox.die_with_parent()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.setsid()
            os.umask(0o022)
            with os.fdopen(os.dup(job), "rb") as file:
                work = json.load(file)
            files = {name: base64.b64decode(data) for name, data in work["files"].items()}
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, 0)
            os.dup2(nothing, 1)
            os.dup2(errors, 2)
            os.dup2(frames, 3)
            os.set_inheritable(3, False)
            os.closerange(4, 65_536)
            if folder is None:
                sandbox.furnish(self.enclosure, files, user)
                where = sandbox.WORK
            else:
                where = os.path.join(folder, "work")
                sandbox.lay_out(files, where)
                os.chdir(where)
                os.environ["TMPDIR"] = os.environ["HOME"] = folder
            tempfile.tempdir = None  # chosen anew when it is asked for
            alone = bool(work["without"])
            sandbox.shut(self.enclosure, seconds, user, folder or where, alone)
            worker.run(work, worker.Channel(3).send)
            code = 0
        except BaseException as error:
            with contextlib.suppress(BaseException):
                os.write(2, f"{type(error).__name__}: {error}".encode()[:1000])
        finally:
            # Without os._exit, threads that a cell left behind would keep the process alive.
            os._exit(code)

    def _kill(self, running: _Running) -> None:
        # Not waited for yet, so the id is still its own. In a process namespace, everything else
        # in there ends with it.
        family = [running.pid] if self.enclosure.has("namespaces") else _family(running.pid)
        for pid in family:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Takes leave of the processes that have ended."""
        by_pid = {running.pid: running for running in self.running.values()}
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in by_pid:  # others are orphans of a submission without a namespace
                self._ended(by_pid[pid], os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)

    def _ended(self, running: _Running, code: int, size: int) -> None:
        del self.running[running.number]
        if running.folder:
            shutil.rmtree(running.folder, ignore_errors=True)
        self._tell(
            {
                "ended": running.number,
                "code": max(code, 0),
                "signal": max(-code, 0),
                "reason": running.reason,
                "peak": max(running.peak, size - self.base),
            }
        )

    def _look(self) -> None:
        """Ends submissions whose processes together take more memory than they may."""
        if time.monotonic() < self.next_look:
            return
        self.next_look = time.monotonic() + _LOOK_EVERY
        for running in self.running.values():
            if running.reason:
                continue
            family = _family(running.pid)
            used = sum(max(_anonymous(pid) - self.base, 0) for pid in family)
            running.peak = max(running.peak, used)
            bounds = self.enclosure.bounds
            if not self.enclosure.has("rlimits"):
                continue
            # A little more than its own limit allows one process: that one gets a MemoryError.
            if used > bounds.memory * 1.1:
                running.reason = f"it used more than {bounds.memory / 2**20:,.0f} MiB of memory"
            elif len(family) > bounds.processes:
                running.reason = f"it started more than {bounds.processes} processes"
            if running.reason:
                self._kill(running)

    def _tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.control.sendall(json.dumps(message).encode() + b"\n")


def _family(pid: int) -> list[int]:
    """A process and all that descend from it, as far as this process can see them."""
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        try:
            for task in os.listdir(f"/proc/{current}/task"):
                with open(f"/proc/{current}/task/{task}/children") as file:
                    waiting += map(int, file.read().split())
        except OSError:
            continue
    return found


def _anonymous(pid: int) -> int:
    """Bytes of memory of a process that no file backs."""
    total = 0
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith(("RssAnon:", "RssShmem:")):
                    total += int(line.split()[1]) * 1024
    except OSError:
        return 0
    return total


def warm(modules: list[str]) -> None:
    """Imports and first uses that would otherwise cost every submission anew.

    Args:
        modules: what the course's notebook imports.
    """
    from autograder import worker

    for name in modules:
        # What is not installed fails in the cell that imports it, with its own message.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    worker.prepare()
    gc.collect()
    # The collector must not touch, and so copy, what all children share.
    gc.freeze()


def main() -> None:
    """The command ``python -m autograder.server FD SETTINGS``."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    settings = json.loads(sys.argv[2])
    sandbox.die_with_parent()
    sandbox.adopt_orphans()
    # Ctrl-C is for the process that grades; it hangs up, and this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.argv = [""]
    try:
        warm(settings["modules"])
        server = Server(control, settings)
    except Exception as error:
        said = json.dumps({"failed": f"{type(error).__name__}: {error}"})
        control.sendall(said.encode() + b"\n")
        raise
    server.serve()
    # No destructors, no exit handlers: nothing here is worth the time.
    os._exit(0)


if __name__ == "__main__":
    main()
