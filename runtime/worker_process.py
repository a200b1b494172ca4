"""A worker as a process of its own: `python -m vr_trt.runtime.worker_process SOCKET`."""

import os
import pickle
import sys
import threading
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from vr_trt.runtime.workers import Failed, Finished, Ready, Said, attempt


def main() -> None:
    """Open the server that is sent first, then do the tasks that follow, until the parent ends."""
    sys.excepthook = _one_line
    connection: Connection[Any, Any] = Connection(int(sys.argv[1]))
    received: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(connection, received), daemon=True).start()
    sending = threading.Lock()

    def send(message: Any) -> None:
        with sending:
            connection.send(message)

    open_server = pickle.loads(received.get())
    server = attempt(open_server)
    if isinstance(server, Failed):
        send(server)
        return
    about = attempt(server.about)
    send(about if isinstance(about, Failed) else Ready(about))
    while True:
        task = pickle.loads(received.get())
        result = attempt(partial(server.run, task, lambda message: send(Said(message))))
        send(result if isinstance(result, Failed) else Finished(result))


def _listen(connection: "Connection[Any, Any]", received: "SimpleQueue[bytes]") -> None:
    """Receive; end this process with its parent, in the middle of whatever it does."""
    while True:
        try:
            received.put(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code if trace else None
    where = f" in {code.co_filename}:{trace.tb_lineno}" if code and trace else ""
    print(f"vr-trt: a worker failed: {kind.__name__}: {error}{where}", file=sys.stderr)


if __name__ == "__main__":
    main()
