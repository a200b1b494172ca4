"""One HTML file that shows a comparison: a slider between two films, and curves over time."""

import json
from pathlib import Path

from vr_trt.bench.compare_pictures import PagePictures
from vr_trt.bench.comparison import Comparison
from vr_trt.bench.whole_file import write_whole

_TEMPLATE = Path(__file__).with_name("compare_page.html")
_PLACE = "/*DATA*/null"


def write_page(path: Path, comparison: Comparison, pictures: PagePictures) -> None:
    """Write the page; it needs no other file and no network."""
    data = comparison.as_json() | {
        "films": [film.name for film in comparison.films],
        "shown": pictures.indices,
        "pictures": pictures.pictures,
    }
    # "</" would end the script that the data lies in.
    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    page = _TEMPLATE.read_text(encoding="utf-8").replace(_PLACE, text)
    write_whole(path, page.encode())
