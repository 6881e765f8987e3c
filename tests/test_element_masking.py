"""The explorer of patch masking: what it shows is what the model made, and anyone can use it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest
import torch
from conftest import barriers, told
from test_workbook import hide_left

from workbook import elements, widgets
from workbook.images import digits
from workbook.ready.mae import MaskedAutoencoder, masked_patch_loss
from workbook.ready.vit import patchify, unpatchify

if TYPE_CHECKING:
    from playwright.sync_api import Page

RATIOS = (0.25, 0.5, 0.75)
DRAWS = 3
IMAGES = {f"digit {n}": digits()[n : n + 1].floats()[0] for n in range(3)}


class Painter:
    """A small model and an opponent, and a record of what they were asked and answered."""

    def __init__(self, channels: int = 1) -> None:
        torch.manual_seed(0)
        self.model = MaskedAutoencoder(8, 2, channels, 16, 1, 2, 32, 16, 1, 2, 32, False).eval()
        self.channels = channels
        self.asked: list[dict[str, torch.Tensor]] = []

    def __call__(
        self, images: torch.Tensor, ratio: float
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        noise = torch.rand(len(images), 16, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            _, prediction, mask = self.model(images, ratio, noise)
        # Around gray, so that few of an untrained model's pixels are clipped.
        prediction = 0.5 + prediction / 4
        gray = torch.full_like(prediction, 0.5)
        self.asked.append({"images": images, "mask": mask, "model": prediction, "gray": gray})
        found = {"the model": prediction, "all gray": gray}
        return mask.unflatten(1, (4, 4)), {
            name: unpatchify(patches, 2, self.channels) for name, patches in found.items()
        }

    def record(self, image: int, ratio: int, draw: int) -> dict[str, torch.Tensor]:
        """What belongs to one state of the explorer, as batches of one."""
        row = image * DRAWS + draw
        return {name: batch[row : row + 1] for name, batch in self.asked[ratio].items()}

    def error(self, name: str, image: int, ratio: int, draw: int) -> float:
        found = self.record(image, ratio, draw)
        target = patchify(found["images"], 2)
        return masked_patch_loss(found[name], target, found["mask"]).item()


@pytest.fixture
def element(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[elements.Element, Painter]]:
    """Makes the explorer as a notebook without a kernel does, and the painter behind it."""

    def make(
        images: Mapping[str, torch.Tensor] = IMAGES, channels: int = 1
    ) -> tuple[elements.Element, Painter]:
        shown: list[elements.Element] = []
        monkeypatch.setattr(elements, "display", shown.append)
        painter = Painter(channels)
        widgets.explore_masking(hide_left, RATIOS, images=images, paint=painter, draws=DRAWS)
        return shown[0], painter

    return make


def colors(page: Page, picture: int) -> dict[tuple[int, int], str]:
    """The squares of a picture: (row, column) -> color."""
    found = page.locator("tw-masking figure svg").nth(picture).locator("rect[shape-rendering]")
    squares = found.evaluate_all(
        "squares => squares.map(s => [s.getAttribute('y'), s.getAttribute('x'), "
        "s.getAttribute('fill')])"
    )
    return {(int(row), int(column)): color for row, column, color in squares}


def expected(image: torch.Tensor) -> dict[tuple[int, int], str]:
    """The same of an image, (channels, height, width), without the pixels that are NaN."""
    shades = (255 * image.clamp(0, 1)).round().expand(3, -1, -1)
    return {
        (row, column): "rgb({:.0f}, {:.0f}, {:.0f})".format(*shades[:, row, column].tolist())
        for row in range(image.shape[1])
        for column in range(image.shape[2])
        if not shades[:, row, column].isnan().any()
    }


def numbers(page: Page) -> list[list[str]]:
    """The table of errors, a row for each painter."""
    rows = page.locator("tw-masking tbody tr").all()
    return [row.locator("th, td.number").all_inner_texts() for row in rows]


def go(page: Page, image: int, ratio: int, draw: int) -> None:
    """Bring the explorer to a state, by keyboard where that is fast."""
    page.get_by_role("combobox", name="image").select_option(str(image))
    slider = page.get_by_role("slider", name="hidden")
    slider.press("Home")
    for _ in range(ratio):
        slider.press("ArrowRight")
    for _ in range(draw):
        page.get_by_role("button", name="draw another mask").press("Enter")


@pytest.mark.parametrize("state", [(0, 0, 0), (2, 1, 1), (1, 2, 2)])
def test_pixels_and_errors_are_the_models(
    open_element: Callable[..., Page], element: Callable[..., Any], state: tuple[int, int, int]
) -> None:
    made, painter = element()
    page = open_element(made)
    go(page, *state)
    found = painter.record(*state)
    image, mask = found["images"], found["mask"]
    seen = patchify(image, 2).masked_fill(mask[..., None], torch.nan)
    pasted = torch.where(mask[..., None], found["model"], patchify(image, 2))

    assert colors(page, 0) == expected(image[0])
    assert colors(page, 1) == expected(unpatchify(seen, 2, 1)[0])
    assert colors(page, 2) == expected(unpatchify(found["model"], 2, 1)[0])
    page.get_by_label("paste the visible patches in").check()
    assert colors(page, 2) == expected(unpatchify(pasted, 2, 1)[0])

    every = [(i, state[1], draw) for i in range(len(IMAGES)) for draw in range(DRAWS)]
    for name, row in zip(("model", "gray"), numbers(page), strict=True):
        mean = sum(painter.error(name, *other) for other in every) / len(every)
        assert row[1:] == [f"{painter.error(name, *state):.3f}", f"{mean:.3f}"]
    hidden = int(mask.sum())
    assert hidden == round(16 * RATIOS[state[1]])
    words = told(page, f"mask {state[2] + 1} of 3")
    assert f"(digit {state[0]}) {hidden} of 16 patches are hidden" in words
    assert f"the model {painter.error('model', *state):.3f}, all gray" in words


def test_bars_are_as_long_as_the_errors_are_large(
    open_element: Callable[..., Page], element: Callable[..., Any]
) -> None:
    made, painter = element()
    page = open_element(made)
    go(page, 1, 1, 0)
    widths = page.locator("td.bar div").evaluate_all(
        "bars => bars.map(bar => bar.getBoundingClientRect().width)"
    )
    errors = [painter.error(name, 1, 1, 0) for name in ("model", "gray")]
    assert widths[0] / widths[1] == pytest.approx(errors[0] / errors[1], rel=0.02)


def test_pictures_say_what_is_hidden_and_how_far_off(
    open_element: Callable[..., Page], element: Callable[..., Any]
) -> None:
    made, painter = element()
    page = open_element(made)
    go(page, 0, 2, 1)
    original, seen, painted = (
        svg.get_attribute("aria-label") for svg in page.locator("figure svg").all()
    )
    assert original == "The original: digit 0."
    left = (~painter.record(0, 2, 1)["mask"][0]).nonzero().flatten().tolist()
    places = ", ".join(f"row {patch // 4 + 1} column {patch % 4 + 1}" for patch in left)
    assert seen == f"What the encoder gets: 4 of 16 patches, {places}. All others are hidden."
    error = painter.error("model", 0, 2, 1)
    assert f"squared error {error:.3f} on the hidden pixels" in painted
    assert f"off by {error**0.5:.2f}" in painted
    assert "pasted" not in painted
    page.get_by_label("paste the visible patches in").check()
    assert "with the visible patches pasted in" in page.get_by_role("img").last.get_attribute(
        "aria-label"
    )


def test_hatching_covers_the_hidden_patches_and_no_other(
    open_element: Callable[..., Page], element: Callable[..., Any]
) -> None:
    made, painter = element()
    page = open_element(made)
    go(page, 2, 1, 0)
    lines = page.locator("figure svg").nth(1).locator("path").get_attribute("d")
    ends = [float(number) for number in re.findall(r"[\d.]+", lines)]
    crossed = {
        int((y0 + y1) / 4) * 4 + int((x0 + x1) / 4)  # the middle of a line, in patches of 2
        for x0, y0, x1, y1 in zip(*[iter(ends)] * 4, strict=True)
    }
    hidden = painter.record(2, 1, 0)["mask"][0]
    assert crossed == set(hidden.nonzero().flatten().tolist())
    # Each patch that was seen has a frame, in both pictures.
    for picture in (1, 2):
        frames = page.locator("figure svg").nth(picture).locator("rect[stroke]")
        assert frames.count() == (~hidden).sum()


def test_masks_go_round(open_element: Callable[..., Page], element: Callable[..., Any]) -> None:
    page = open_element(element()[0])
    first = colors(page, 1)
    others = []
    for draw in (2, 3, 1):
        page.get_by_role("button", name="draw another mask").click()
        told(page, f"mask {draw} of 3")
        others.append(colors(page, 1))
    assert others[0] != first
    assert others[-1] == first


def test_color_is_shown_in_color(
    open_element: Callable[..., Page], element: Callable[..., Any]
) -> None:
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(2))
    made, painter = element({"a photograph": image}, channels=3)
    page = open_element(made)
    assert colors(page, 0) == expected(image)
    made = unpatchify(painter.record(0, 1, 0)["model"], 2, 3)[0]
    assert colors(page, 2) == expected(made)


def test_every_control_works_by_keyboard(
    open_element: Callable[..., Page], element: Callable[..., Any]
) -> None:
    page = open_element(element()[0])
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    told(page, "(digit 1) 8 of 16")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    told(page, "12 of 16")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    told(page, "mask 2 of 3")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert "pasted" in page.get_by_role("img").last.get_attribute("aria-label")
    slider = page.get_by_role("slider", name="hidden")
    assert slider.get_attribute("aria-valuetext") == "12 of 16 patches"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_accessible_and_fits_a_phone(
    open_element: Callable[..., Page], element: Callable[..., Any], theme: str
) -> None:
    page = open_element(element()[0], theme=theme, width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    view = page.locator("tw-masking .view")
    assert view.evaluate("view => view.scrollWidth - view.clientWidth") <= 0
    assert not barriers(page)


def test_the_figure_stands_in_without_scripts_and_in_print(
    open_element: Callable[..., Page], element: Callable[..., Any]
) -> None:
    made = element()[0]
    page = open_element(made)
    figure = page.locator("tw-masking > svg")
    assert not figure.is_visible()
    page.emulate_media(media="print")
    assert figure.is_visible()
    assert not page.locator("tw-masking section").is_visible()
    plain = page.context.browser.new_context(java_script_enabled=False).new_page()
    plain.set_content(made._repr_html_())
    assert plain.locator("tw-masking > svg").is_visible()
    plain.context.close()


def test_with_a_kernel_the_readers_model_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(widgets, "is_live", lambda: True)
    monkeypatch.setattr(widgets, "display", shown.append)
    painter = Painter()
    widgets.explore_masking(hide_left, RATIOS, images=IMAGES, paint=painter)
    slider, picture = shown[0].children
    slider.value = 0.4
    assert "masked with 40% of the pixels hidden" in picture.value
    assert not painter.asked


def test_it_stays_light() -> None:
    """As many images, ratios and masks as chapter 8 has, and pixels that say nothing twice."""
    noise = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    images = {f"class {n}": image for n, image in enumerate(noise)}
    ratios = (0.25, 0.5, 0.75, 0.9)
    data = widgets._reconstructions(images, Painter(), ratios, draws=5)
    assert len(json.dumps(elements._rounded(data), separators=(",", ":"))) < 60_000


def test_what_does_not_fit_is_refused() -> None:
    painter = Painter()

    def flat(images: torch.Tensor, ratio: float) -> tuple[torch.Tensor, Mapping[str, Any]]:
        mask, painted = painter(images, ratio)
        return mask.flatten(1), painted

    def small(images: torch.Tensor, ratio: float) -> tuple[torch.Tensor, Mapping[str, Any]]:
        mask, painted = painter(images, ratio)
        return mask, {name: image[..., 1:] for name, image in painted.items()}

    def idle(images: torch.Tensor, ratio: float) -> tuple[torch.Tensor, Mapping[str, Any]]:
        mask, painted = painter(images, ratio)
        return torch.zeros_like(mask), painted

    for paint, ratio, message in (
        (flat, 0.5, r"\(3, 16\) which patches are hidden. Give \(3, rows, columns\)"),
        (small, 0.5, r"the shape \(3, 1, 8, 8\)"),
        (idle, 0.5, "At a ratio of 0.5 no patch is hidden"),
    ):
        with pytest.raises(ValueError, match=message):
            widgets.explore_masking(hide_left, (ratio,), images=IMAGES, paint=paint, draws=1)
    with pytest.raises(ValueError, match="images and paint together"):
        widgets.explore_masking(hide_left, images=IMAGES)
    with pytest.raises(ValueError, match="at least one image"):
        widgets.explore_masking(hide_left, images={}, paint=painter)
