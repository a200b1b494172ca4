"""What a stage of the `triton` backend is: a network of one size with fixed places for its tensors.

Fixed places are what a CUDA graph needs: it replays the same launches on the same addresses.
`runtime.triton_session` drives one as a session.
"""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class StaticStage(Protocol):
    """One stage's network, in PyTorch and our kernels, on one device."""

    @property
    def inputs(self) -> Mapping[str, Tensor]:
        """By name, where the inputs are read from; the same tensors always."""

    @property
    def outputs(self) -> Mapping[str, Tensor]:
        """By name, where the outputs are written.

        `next.X` is where the following call of the shot reads `state.X`: the same tensor.
        """

    def run(self) -> None:
        """Compute the outputs of what lies in the inputs, in order with the current stream.

        Without waiting for the device, and without choosing by the tensors' values: it is captured.
        """
