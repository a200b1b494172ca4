"""The triton backend in the loop on a device: its graphs replayed on the loop's streams.

Networks run on the stream of their sessions, which is PyTorch's: there they are captured, so that
what its libraries take for a stream (work spaces of matrix products) is taken before the loop, and
there a picture's stages, opened when one comes, follow what still runs on the memory they share.
The loop's other streams are its own, as for every backend, and PyTorch enters them to replay the
pixels' graphs. From its own it would hand out streams that it has handed out before.

Never executed by us on a GPU. Tests run it on a device that checks the order of all it is asked.
"""

from collections.abc import Mapping
from types import MappingProxyType

import torch

from vr_trt.errors import ModelError
from vr_trt.runtime.cuda import Device, cuda_device
from vr_trt.runtime.device_call import DeviceSession
from vr_trt.runtime.device_pixels import PixelSessions
from vr_trt.runtime.device_tensor import BF16, DeviceTensor, OnDevice
from vr_trt.runtime.lanes import Lanes
from vr_trt.runtime.model import Model
from vr_trt.runtime.pixel_stages import PixelWay
from vr_trt.runtime.triton_pixels import TritonPixels, open_way_in, open_way_out
from vr_trt.runtime.triton_session import TritonSession

_KINDS = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: BF16,
    torch.uint8: "uint8",
    torch.uint16: "uint16",
    torch.float8_e4m3fn: "uint8",  # of states, which nobody else reads
}


class LoopedStage:
    """A session of the triton backend as the loop calls it; a `DeviceSession`.

    Inputs, outputs and states lie where the session's graph has them; states change in place.
    """

    capturable = False  # its graph was captured when it was opened

    def __init__(self, session: TritonSession, device: Device, stream: int) -> None:
        """`stream`: of the loop, where it is called."""
        self._session = session
        self._places = {
            name: DeviceTensor.lent(
                device, stream, self._address(x), tuple(x.shape), _KINDS[x.dtype]
            )
            for name, x in session.tensors.items()
        }

    @property
    def inputs(self) -> Mapping[str, tuple[int | None, ...]]:
        return self._session.inputs

    @property
    def sizes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: place.shape() for name, place in self._places.items()}

    @property
    def kinds(self) -> Mapping[str, str]:
        return {name: place.kind for name, place in self._places.items()}

    @property
    def places(self) -> Mapping[str, DeviceTensor]:
        return MappingProxyType(self._places)

    def bind(self, name: str, value: OnDevice) -> None:
        """Nothing is bound: RuntimeError for a place that is not the session's own."""
        if value.address != self._places[name].address:
            raise RuntimeError(
                f"{name} has a place of its own and is bound to another: report this"
            )

    def enqueue(self, stream: int) -> None:
        self._session.enter(stream)
        self._replay(stream)

    def _replay(self, stream: int) -> None:
        self._session.replay(stream)

    def _address(self, x: torch.Tensor) -> int:
        if not x.is_contiguous():
            raise RuntimeError("a tensor between two stages is not contiguous: report this")
        return x.data_ptr()


class TritonLoop:
    """What the loop runs by the triton backend; a `vr_trt.runtime.device_loop.LoopBackend`."""

    def __init__(self, model: Model) -> None:
        """ModelError where there is no GPU or no cuda-python."""
        self.device = cuda_device()
        self._model = model

    @property
    def stream(self) -> int:
        own = self._network("generator").own_stream
        if own is None:
            raise ModelError("the triton backend has no GPU here: use --backend onnxruntime")
        return own.cuda_stream

    def session(self, stage: str) -> DeviceSession:
        return LoopedStage(self._network(stage), self.device, self.stream)

    def pixels(self, way: PixelWay, lanes: Lanes) -> PixelSessions:
        """ModelError for a way that no kernel takes. What is the same for every frame they have."""
        if (turns := self._model.turns) is not None:
            turns.span = lanes.span
            lanes.at_close(turns.trace_no_more)
        corrected = way.correction != "none"
        return PixelSessions(
            pre=self._looped(open_way_in(way), lanes.pre),
            reference=self._looped(open_way_in(way), lanes.post) if corrected else None,
            post=self._looped(open_way_out(way), lanes.post),
            to_model_inputs={},
            to_video_inputs={},
        )

    def _looped(self, pixels: TritonPixels, stream: int) -> LoopedStage:
        return LoopedStage(pixels.session, self.device, stream)

    def _network(self, stage: str) -> TritonSession:
        session = self._model.session(stage)
        assert isinstance(session, TritonSession), "all stages of this model are triton's"
        return session
