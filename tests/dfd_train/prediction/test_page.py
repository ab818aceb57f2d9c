"""The page to refocus a photograph: self-contained, and what it shows is what `refocus` makes."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import cv2
import numpy as np
import pytest

from defocus_sim.lens import Lens
from dfd_train.errors import ConfigError
from dfd_train.prediction.page.build import LARGEST_BYTES, PageScene, page_html, page_size
from dfd_train.prediction.refocus import refocus

HEIGHT, WIDTH = 240, 320
LENS = Lens(focus_distance_m=2.0, f_number=2, focal_length_mm=35, sensor_width_mm=36)
# A board at 1.2 m before a wall at 4 m, beside a floor that recedes.
BOARD, WALL, FLOOR = (90, 60), (30, 200), (200, 230)


def scene_arrays() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    coarse = rng.random((HEIGHT // 4, WIDTH // 4)).astype(np.float32)
    grey = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    image = np.repeat(grey[..., None], 3, axis=2)
    image[40:150, 30:120] = np.array([0.9, 0.15, 0.1]) * (0.6 + 0.4 * image[40:150, 30:120])
    depth = np.full((HEIGHT, WIDTH), 4.0, np.float32)
    depth[150:] = np.linspace(4.0, 1.0, HEIGHT - 150)[:, None]
    depth[40:150, 30:120] = 1.2
    return (image * 255).astype(np.uint8), depth


def page(**changes: Any) -> bytes:
    image, depth = scene_arrays()
    before = cv2.GaussianBlur(image, (0, 0), 2)
    settings: dict[str, Any] = {"title": "a.jpg", "stem": "a", "before": before, "restored": image, "depth_m": depth}
    return page_html(PageScene(**{**settings, "lens": LENS, "f_number": 0.5, **changes}))


def picture_in(content: bytes, name: str) -> np.ndarray:
    data = re.search(rf'id="{name}"[^>]*src="data:image/jpeg;base64,([^"]+)"', content.decode()).group(1)
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1].copy()


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((first.astype(float) - second) ** 2)))


def test_nothing_in_a_page_asks_for_anything_and_names_cannot_break_out() -> None:
    content = page(title='</title><script>alert("1")</script>.jpg', stem='"><b>', facts={"<i>": "</dl>"}).decode()
    addresses = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", content)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "http" not in re.sub(r'http-equiv="Content', "", content)
    assert "default-src 'none'" in content
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", content)
    assert "<script>alert" not in content
    assert "&lt;/dl&gt;" in content
    assert '"><b>' not in content


def test_a_page_of_twelve_megapixels_of_noise_stays_below_four_megabytes() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3000, 4000, 3), dtype=np.uint8)
    depth = rng.uniform(0.5, 9, (3000, 4000)).astype(np.float32)
    content = page(before=image, restored=image, depth_m=depth, depth_sigma_m=depth / 10)
    assert len(content) < LARGEST_BYTES == 4_000_000


def test_a_smooth_photograph_keeps_sixteen_hundred_pixels() -> None:
    image, depth = scene_arrays()
    large, far = (cv2.resize(a, (4000, 3000), interpolation=cv2.INTER_CUBIC) for a in (image, depth))
    content = page(before=large, restored=large, depth_m=far)
    assert picture_in(content, "restored").shape == (1200, 1600, 3)
    assert len(content) < LARGEST_BYTES
    assert page_size((3000, 4000)) == (1200, 1600)


def test_a_lens_without_a_sensor_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="sensor_width_mm"):
        page(lens=Lens(focus_distance_m=2, aperture_mm=5, focal_length_px=500))


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    if not browser.found():
        pytest.skip("no Chromium: apt-get install chromium chromium-driver")
    with browser.chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def opened(window: browser.Browser, tmp_path_factory: pytest.TempPathFactory) -> tuple[browser.Browser, bytes]:
    content = page(depth_sigma_m=np.full((HEIGHT, WIDTH), 0.1, np.float32))
    path = tmp_path_factory.mktemp("page") / "a.html"
    path.write_bytes(content)
    window.resize(1280, 800)
    # Every sample, however slow the machine is.
    window.open(path, "#exact")
    return window, content


def seen(window: browser.Browser) -> np.ndarray:
    """The picture as the page shows it, in full quality."""
    window.wait("viewer.rendered()")
    data = window.run("return document.getElementById('refocused').toDataURL('image/png')").split(",")[1]
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def click(window: browser.Browser, row: int, column: int) -> dict[str, float]:
    width, height = window.run(
        "const b=document.getElementById('refocused').getBoundingClientRect();return [b.width,b.height]"
    )
    window.click("#refocused", (column + 0.5) / WIDTH * width, (row + 0.5) / HEIGHT * height)
    return window.run("return viewer.state")


def test_clicking_focuses_there_and_shows_what_refocus_makes(opened: tuple[browser.Browser, bytes]) -> None:
    window, content = opened
    image, depth = picture_in(content, "restored"), scene_arrays()[1]
    for row, column in (BOARD, WALL, FLOOR):
        state = click(window, row, column)
        shown = seen(window)
        assert 1 / state["focus"] == pytest.approx(depth[row, column], rel=0.02)
        made = refocus(
            image, depth, Lens(**{**LENS.to_json(), "f_number": state["fNumber"]}).at_focus(1 / state["focus"])
        )
        assert psnr(shown, made) > 37, (row, column)
        # Not because nothing is blurred.
        assert psnr(image, made) < 30
        around = (slice(row - 8, row + 8), slice(column - 8, column + 8))
        if (row, column) != FLOOR:
            assert np.abs(shown[around].astype(int) - image[around]).max() <= 3


def test_a_sharp_board_does_not_bleed_into_the_blurred_wall_and_a_blurred_one_does(
    opened: tuple[browser.Browser, bytes],
) -> None:
    window, content = opened
    image = picture_in(content, "restored").astype(float)
    click(window, *BOARD)
    shown = seen(window).astype(float)
    # The board is red. Beside it, the wall is as red as the wall is further away.
    redness = shown[60:140, :, 0] - shown[60:140, :, 1:].mean(axis=2)
    assert abs(redness[:, 121:125].mean() - redness[:, 150:200].mean()) < 12
    assert np.abs(shown[60:140, 40:110] - image[60:140, 40:110]).max() <= 3
    click(window, *WALL)
    shown = seen(window).astype(float)
    redness = shown[60:140, :, 0] - shown[60:140, :, 1:].mean(axis=2)
    assert redness[:, 121:125].mean() > redness[:, 150:200].mean() + 25


def test_the_aperture_slider_closes_the_lens(opened: tuple[browser.Browser, bytes]) -> None:
    window, content = opened
    image = picture_in(content, "restored")
    click(window, *BOARD)
    open_wide = psnr(seen(window), image)
    window.run("const s=document.getElementById('aperture');s.value=0;s.dispatchEvent(new Event('input'))")
    closed = seen(window)
    assert window.run("return viewer.state.fNumber") == 16
    assert psnr(closed, image.astype(float) + 1e-3) > open_wide + 10


def test_every_view_shows_itself_and_only_itself(opened: tuple[browser.Browser, bytes]) -> None:
    window, _ = opened
    views = (("compare", "restored"), ("depth", "depth"), ("uncertainty", "uncertainty"), ("refocused", "refocused"))
    for view, shown in views:
        window.click(f"[data-view={view}]")
        assert shown in window.run("return [...document.querySelectorAll('.stage>.shown')].map(e=>e.id)")
        sliders = window.run(
            "return ['lens-sliders','compare-sliders'].map(i=>document.getElementById(i).offsetHeight>0)"
        )
        assert sliders == [view == "refocused", view == "compare"]
    window.click("[data-view=compare]")
    width = window.run("return document.getElementById('stage').getBoundingClientRect().width")
    window.click("#stage", width * 0.25, 40)
    assert window.run("return Number(document.getElementById('compare').value)") == 25
    window.click("[data-view=depth]")
    labels = window.run("return [...document.querySelectorAll('#bar span')].map(s=>s.textContent)")
    assert labels[0] == "1.00 m"
    assert labels[-1] == "4.00 m"
    window.click("[data-view=refocused]")


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out_of_the_window(opened: tuple[browser.Browser, bytes], width: int) -> None:
    window, _ = opened
    window.resize(width, 844)
    inside, across = window.run("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert inside <= across == width
    small = "return [...document.querySelectorAll('button,input')].filter(e=>e.offsetHeight&&e.offsetHeight<30).length"
    assert window.run(small) == 0
    window.resize(1280, 800)


def test_the_browser_was_asked_for_the_file_alone_and_reported_no_error(
    opened: tuple[browser.Browser, bytes], window: browser.Browser
) -> None:
    errors, asked = window.logged()
    assert errors == []
    assert len(asked) == 1
    assert asked[0].startswith("file:")


def test_a_slow_machine_gets_fewer_pixels_instead_of_a_long_wait(window: browser.Browser, tmp_path: Path) -> None:
    """Software rendering of the 1.9 megapixels of a large photograph is as slow as it gets."""
    image, depth = scene_arrays()
    large = cv2.resize(image, (4000, 3000), interpolation=cv2.INTER_CUBIC)
    content = page(before=large, restored=large, depth_m=cv2.resize(depth, (4000, 3000)), f_number=0.5)
    (tmp_path / "large.html").write_bytes(content)
    window.open(tmp_path / "large.html")
    width, height = window.run("const c=document.getElementById('refocused');return [c.width,c.height]")
    assert 533 <= width < 1600
    assert width / height == pytest.approx(4 / 3, rel=0.01)
    window.run("viewer.focusAt(1200, 100)")
    window.wait("viewer.rendered()")
    data = window.run("return document.getElementById('refocused').toDataURL('image/png')").split(",")[1]
    shown = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    size = (1600, 1200)
    small = cv2.resize(depth, (4000, 3000))
    exact = refocus(
        picture_in(content, "restored"),
        cv2.resize(small, size, interpolation=cv2.INTER_NEAREST_EXACT),
        Lens(**{**LENS.to_json(), "f_number": 0.5}).at_focus(4.0),
    )
    assert psnr(shown, cv2.resize(exact, (width, height), interpolation=cv2.INTER_AREA)) > 30


def test_the_scene_is_json_that_a_script_element_cannot_end() -> None:
    text = page(unit=" </script>").decode()
    found = re.search(r'<script type="application/json" id="scene">(.*?)</script>', text, re.S).group(1)
    assert json.loads(found)["unit"] == " </script>"
