"""The launches of a coder's stage in plain PyTorch: what the interpreter takes minutes for.

Sums are in fp64, so that what a launch gives does not depend on how many frames it has.
"""

import pytest
import torch
from torch import Tensor

from vr_trt.engines import vae_launches
from vr_trt.kernels.conv3d import conv3d_reference
from vr_trt.kernels.conv_few import FewConv
from vr_trt.kernels.conv_layer import PLAIN, Extras, PackedConv, check_call
from vr_trt.kernels.frame_attention import frame_attention_reference
from vr_trt.kernels.group_norm import Moments, Norm, activate_reference


def use_references(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages that are laid out from now on launch these; the inputs have to be in 16 or 32 bits."""
    given = dict[int, tuple[Tensor, Tensor | None]]()  # by the columns' place

    def columns_of(x: Tensor, few: FewConv, columns: Tensor, past: Tensor | None) -> None:
        given[columns.data_ptr()] = x, past

    def sum_of(columns: Tensor, few: FewConv, out: Tensor) -> None:
        x, past = given.pop(columns.data_ptr())
        _conv(x, few.conv, out, Extras(past=past))

    for name, launch in {
        "conv3d": _conv,
        "activate": _activate,
        "scale_shift": _scale_shift,
        "frame_attention": lambda qkv, out: out.copy_(frame_attention_reference(qkv)),
        "tap_columns": columns_of,
        "tap_sum": sum_of,
    }.items():
        monkeypatch.setattr(vae_launches, name, launch)


def _conv(x: Tensor, conv: PackedConv, out: Tensor, extras: Extras = PLAIN) -> None:
    check_call(x, conv, out, extras)
    out.copy_(conv3d_reference(x, conv, extras, torch.float64))
    if extras.moments is None:
        return
    values, counts = extras.moments.values, extras.moments.counts
    assert len(values) == len(counts) == len(out)
    values.zero_(), counts.zero_()  # all is in one tile
    wide = out.double().flatten(1, 2)
    values[:, 0, 0] = wide.mean(1)
    values[:, 0, 1] = (wide - wide.mean(1, keepdim=True)).square().sum(1)
    counts[:, 0] = wide.shape[1]


def _scale_shift(moments: Moments, norm: Norm, out: Tensor) -> None:
    pixels = moments.counts[:, 0, None, None].double()
    by_group = (len(out), 2, norm.groups, -1)
    means, squares = (
        moments.values[:, 0, :, : len(norm.weight)].double().reshape(by_group).unbind(1)
    )
    mean = means.mean(-1, keepdim=True)
    deviations = squares.sum(-1, keepdim=True)
    deviations += pixels * (means - mean).square().sum(-1, keepdim=True)
    rstd = (deviations / (pixels * means.shape[-1]) + norm.eps).rsqrt()
    scale = norm.weight * rstd.expand_as(means).flatten(1)
    out[:, 0, : len(norm.weight)] = scale
    out[:, 1, : len(norm.weight)] = norm.bias - mean.expand_as(means).flatten(1) * scale


def _activate(x: Tensor, table: Tensor, out: Tensor, *, step: float) -> None:
    values = activate_reference(x.float(), table) / step
    out.copy_(values.clamp(-448, 448) if out.dtype == torch.float8_e4m3fn else values)
