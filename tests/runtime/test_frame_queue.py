"""The bounded queue of frames."""

from threading import Thread
from time import sleep

import pytest
from tests.pictures import flat_frame

from vr_trt.runtime.frame_queue import FrameQueue, Stopped


def test_put_waits_while_it_is_full() -> None:
    queue = FrameQueue(2)
    put = []

    def fill() -> None:
        for i in range(5):
            queue.put(flat_frame(0, pts=i))
            put.append(i)
        queue.close()

    thread = Thread(target=fill)
    thread.start()
    sleep(0.05)
    assert put == [0, 1]
    assert [frame.pts for frame in queue] == [0, 1, 2, 3, 4]
    thread.join(1)
    assert not thread.is_alive()


@pytest.mark.parametrize("side", ["put", "get"])
def test_stop_wakes_a_waiting_side(side: str) -> None:
    queue = FrameQueue(1)
    woken = []

    def wait() -> None:
        try:
            if side == "get":
                next(iter(queue))
            queue.put(flat_frame(0))
            queue.put(flat_frame(0))
        except Stopped:
            woken.append(side)

    thread = Thread(target=wait)
    thread.start()
    sleep(0.02)
    queue.stop()
    thread.join(1)
    assert woken == [side]
