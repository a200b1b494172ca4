"""The page of a comparison, in a real browser where there is one."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.media import make_video

from vr_trt.bench.compare_page import write_page
from vr_trt.bench.compare_pictures import PagePictures
from vr_trt.bench.comparison import compare

BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    before = make_video(folder / "before.mp4", frames=5, size=(64, 48))
    after = make_video(folder / "after </script>.mp4".replace("/", ""), frames=5, size=(128, 96))
    pictures = PagePictures(48)
    found = compare(before, after, on_frame=pictures.add)
    write_page(folder / "page.html", found, pictures)
    return folder / "page.html"


def in_browser(page: Path, script: str) -> Any:
    """What `script`, run after the page's own, leaves in `result`."""
    tried = page.with_name("tried.html")
    ending = (
        f"<script>let result; {script}; const told = document.createElement('pre');"
        "told.id = 'told'; told.textContent = JSON.stringify(result);"
        "document.body.append(told);</script>"
    )
    tried.write_text(page.read_text(encoding="utf-8") + ending, encoding="utf-8")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    shown = subprocess.run(
        [*map(str, command), "--virtual-time-budget=2000", tried.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    told = re.search(r'<pre id="told">(.*?)</pre>', shown, re.DOTALL)
    assert told, shown[-2000:]
    return json.loads(html.unescape(told[1]))


def test_the_page_needs_nothing_from_elsewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["']|@import|url\(|fetch\(""", text)
    assert text.count("</script>") == 1


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome here")
def test_the_page_opens_with_the_first_frame_of_both(page: Path) -> None:
    found = in_browser(
        page,
        "result = [$('number').textContent, $('left').src.slice(0, 22), $('left').src !== "
        "$('right').src, $('left').style.clipPath, document.querySelectorAll('polyline').length,"
        "$('pooled').rows.length]",
    )
    assert found[:3] == ["frame 0 of 5", "data:image/jpeg;base64", True]
    assert found[3:] == ["inset(0px 50% 0px 0px)", 6, 9]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome here")
def test_dragging_and_stepping(page: Path) -> None:
    found = in_browser(
        page,
        """
        const box = $('view').getBoundingClientRect(), first = $('left').src;
        const at = { clientX: box.left + 0.2 * box.width, buttons: 1, bubbles: true };
        $('view').dispatchEvent(new PointerEvent('pointerdown', at));
        const dragged = $('left').style.clipPath;
        $('view').dispatchEvent(new PointerEvent('pointermove', { ...at, buttons: 0, clientX: 0 }));
        const hovered = $('left').style.clipPath;
        for (const key of ['ArrowRight', 'ArrowRight', 'ArrowLeft'])
          dispatchEvent(new KeyboardEvent('keydown', { key }));
        const stepped = [$('number').textContent, $('left').src !== first];
        for (let i = 0; i < 9; i++) $('after').click();
        const last = $('number').textContent;
        $('right-film').value = 0; $('right-film').dispatchEvent(new Event('change'));
        result = [dragged, hovered, ...stepped, last, $('right').src === $('left').src];
        """,
    )
    assert found == [
        "inset(0px 80% 0px 0px)",
        "inset(0px 80% 0px 0px)",
        "frame 1 of 5",
        True,
        "frame 4 of 5",
        True,
    ]
