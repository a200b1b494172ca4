"""Exports take seconds each: the tests of the graphs share them."""

import pytest
from tests.exported_graphs import (
    LANDSCAPE,
    PORTRAIT,
    Make,
)
from tests.tiny_model import (
    TINY_7B,
    Exported,
    TinyModel,
    export_generator,
    make_tiny_model,
)

from vr_trt.export.export_model import ExportPlan, export_model


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return make_tiny_model(tmp_path_factory.mktemp("tiny_weights"))


@pytest.fixture(scope="session")
def tiny_7b(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return make_tiny_model(tmp_path_factory.mktemp("tiny_7b_weights"), TINY_7B)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Make:
    def make(plan: ExportPlan) -> Exported:
        folder = tmp_path_factory.mktemp("exported")
        assert export_model(plan, folder) == folder / "manifest.json"
        return Exported(folder)

    return make


@pytest.fixture(scope="session")
def exported_generator(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Exports `generator` alone, without the graph of a picture."""

    def make(plan: ExportPlan) -> Exported:
        return Exported(export_generator(plan, tmp_path_factory.mktemp("generator")).parent)

    return make


@pytest.fixture(scope="session")
def portrait(tiny: TinyModel, exported: Make) -> Exported:
    return exported(ExportPlan(model=tiny, shape=PORTRAIT, profile="small"))


@pytest.fixture(scope="session")
def half(tiny: TinyModel, exported: Make) -> Exported:
    networks = ["generator", "decoder"]
    return exported(ExportPlan(model=tiny, shape=LANDSCAPE, precision="fp16", networks=networks))


@pytest.fixture(scope="session")
def any_size(tiny: TinyModel, exported: Make) -> Exported:
    """Without the decoder, which takes longest to trace: a slow test exports it."""
    return exported(ExportPlan(model=tiny, networks=["generator", "encoder"]))
