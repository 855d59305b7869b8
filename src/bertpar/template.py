"""A warm parent of job processes: `python -m bertpar.template SOCKET_FD PARENT_PID`.

It imports once what every job needs, about seven seconds of CPU time, and then forks a process for each job, which
starts at once and shares the imported pages. It stays fit to be forked: no torch operation, no accelerator, no client
of Temporal, no thread.

Messages over the socket are one JSON object each: `{"id", "kind", "log_file", "gpus"}` and the
descriptors of the job and for events come in; `{"id", "pid"}` and, when the process has ended,
`{"id", "exit_code"}` go out.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from bertpar import jobs
from bertpar.logs import open_log
from bertpar.preload import preload

_MESSAGE_BYTES = 65536


class Template:
    """Forks a process per request until the other end of the socket closes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ids_by_pid: dict[int, int] = {}

    def serve(self) -> None:
        """Answer requests and report ended children; returns when the worker is gone."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._connection, selectors.EVENT_READ)
            selector.register(wake_read, selectors.EVENT_READ)
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                if wake_read in ready:
                    os.read(wake_read, _MESSAGE_BYTES)
                    self._report_ended()
                if self._connection in ready and not self._accept():
                    return

    def _accept(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._connection, _MESSAGE_BYTES, 2)
        if not message:
            return False
        request = json.loads(message)
        job_fd, events_fd = descriptors
        template_pid = os.getpid()
        is_set_up, set_up = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(is_set_up)
            self._become_job(request, job_fd, events_fd, template_pid, set_up)
        for descriptor in (job_fd, events_fd, set_up):
            os.close(descriptor)
        os.read(is_set_up, 1)  # a signal to its process group would reach nobody before
        os.close(is_set_up)
        self._ids_by_pid[pid] = request["id"]
        self._send(id=request["id"], pid=pid)
        return True

    def _become_job(
        self, request: dict[str, Any], job_fd: int, events_fd: int, template_pid: int, set_up: int
    ) -> NoReturn:
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()  # one signal then reaches whatever the job starts
            os.close(set_up)
            self._connection.close()
            if request["gpus"]:  # before anything has touched an accelerator
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(request["gpus"])
            with open_log(Path(request["log_file"])) as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            jobs.main(request["kind"], job_fd, events_fd, template_pid)
        finally:
            os._exit(1)  # jobs.main has ended the process unless it could not even begin

    def _report_ended(self) -> None:
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                self._send(id=self._ids_by_pid.pop(pid), exit_code=os.waitstatus_to_exitcode(status))

    def _send(self, **message: Any) -> None:
        with suppress(BrokenPipeError):
            self._connection.send(json.dumps(message).encode())


def main(argv: list[str]) -> None:
    socket_fd, parent_pid = map(int, argv)
    jobs.die_with(parent_pid)
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the worker, which lets its jobs leave in order
        signal.signal(number, signal.SIG_IGN)
    preload()
    Template(socket.socket(fileno=socket_fd)).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
