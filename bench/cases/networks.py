"""What the cases of whole stages share: networks of the true sizes, filled with random numbers."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from vr_trt.bench.case import Call

Network = TypeVar("Network", bound=nn.Module)


def filled(build: Callable[[], Network], device: str, seed: int) -> Network:
    """The network that `build` makes, in fp32; every value is one that bf16 has.

    Norms' weights are near 1, biases small, matrices and kernels of variance one over their fan-in:
    the signal keeps its size.
    """
    with torch.device(device):
        network = build()
    network = network.to(device).eval().requires_grad_(False)
    random = torch.Generator(device).manual_seed(seed)
    for name, values in network.named_parameters():
        if values.ndim > 1:
            values.normal_(std=values[0].numel() ** -0.5, generator=random)
        elif name.endswith("weight"):
            values.normal_(1, 0.1, generator=random)
        else:
            values.normal_(std=0.02, generator=random)
        values.copy_(values.bfloat16())
    return network


def normal(device: str, seed: int, *shape: int) -> Tensor:
    """Random numbers of variance 1, in bf16."""
    random = torch.Generator(device).manual_seed(seed)
    return torch.randn(shape, generator=random, device=device).bfloat16()


def network_bytes(network: nn.Module) -> int:
    """Of its parameters in bf16."""
    return sum(2 * values.numel() for values in network.parameters())


def half(device: str) -> torch.dtype:
    """The 16 bits to measure in: bf16, but in the interpreter, whose products of it are wrong."""
    return torch.bfloat16 if device == "cuda" else torch.float16


def poisoned(out: Tensor) -> Tensor:
    """`out` filled with NaN, codes with zeros: what an earlier way left there is no result of this."""
    return out.fill_(torch.nan if out.is_floating_point() else 0)


def captured(run: Callable[[], None], result: Tensor) -> Call:
    """`run`, which fills `result`, as one CUDA graph; as it is where there is no GPU.

    What filled it before the first call is gone: only what the graph writes counts.
    """
    run()  # compiles what there is to compile
    replay = run
    if result.is_cuda:
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        replay = graph.replay
    poisoned(result)

    def call() -> Tensor:
        replay()
        return result

    return call
