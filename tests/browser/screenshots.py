"""`make screenshots`: every page in light, in dark and on a phone, to be looked at; or small, for the docs."""

from __future__ import annotations

import argparse
import io
import platform
import re
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from PIL import Image
from playwright.sync_api import Page

from tests.browser.house_in_use import DETECTIONS, PHOTO, PIPELINE, callers, fill, remember_a_day
from tests.browser.served_pages import MODEL, PAGES, PAGES_OF_ONE, is_whole_page
from tests.browser.site import DESK, HOSTILE, PHONE, Site, Visit, browser, chromium, finish_motion, site

LOOKS: Final = {
    "light": {"color_scheme": "light", "viewport": DESK},
    "dark": {"color_scheme": "dark", "viewport": DESK},
    "phone": {"color_scheme": "light", "viewport": PHONE, "device_scale_factor": 2},
}
PICTURED: Final = {"color_scheme": "light", "viewport": {"width": 1240, "height": 760}}
MOST_HIGH: Final = 1320
"""Of a picture in the docs, in pixels; what lies below is cut off."""
MOST_BYTES: Final = 60_000
_QUALITIES: Final = (88, 80, 70, 60, 50, 40, 30)
_TRIED: Final = f"/dashboard/playground/{DETECTIONS}"
_INSTEAD: Final = {
    "/dashboard/": "/dashboard/?span=day",
    "/dashboard/search": "/dashboard/search?q=cl",
    f"/dashboard/models/{MODEL}": f"/dashboard/models/{MODEL}?span=day",
    f"/dashboard/models/{MODEL}/logs": f"/dashboard/models/{DETECTIONS}/logs",
}
"""The same page with more in it."""
_OF_PIPELINE: Final = tuple(f"/dashboard/pipelines/{PIPELINE}{end}" for end in ("", "/edit", "/run"))
_REPLACE_WORDS = """(words) => {
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    for (const [here, said] of words) walk.currentNode.data = walk.currentNode.data.replaceAll(here, said);
  }
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/screenshots"))
    parser.add_argument("--only", default="", help="words that a page's path must have in it")
    parser.add_argument("--docs", action="store_true", help="one WebP a page, small, for the docs")
    said = parser.parse_args()
    if chromium() is None:
        parser.exit(1, "Chromium is not here; on Debian: apt-get install chromium\n")
    said.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        served = stack.enter_context(site(folder, stack.enter_context(browser()), () if said.docs else HOSTILE))
        token = fill(served.server)
        remember_a_day(served.server.data_dir)
        stack.enter_context(callers(served.server, token))
        paths = whole_pages(served, said.only)
        if said.docs:
            picture_docs(served, paths, said.folder)
        else:
            picture_looks(served, paths, said.folder)


def picture_looks(served: Site, paths: list[str], folder: Path) -> None:
    for look, options in LOOKS.items():
        visit = served.visit(**options)
        for path in paths:
            (folder / f"{file_name(path)}-{look}.png").write_bytes(picture(visit, path))
        visit.context.close()
    print(f"{len(paths) * len(LOOKS)} pictures in {folder}")


def picture_docs(served: Site, paths: list[str], folder: Path) -> None:
    """What belongs to the machine that makes them, its kernel and its folders, is replaced."""
    words = [[platform.platform(), "Linux x86_64"], [platform.release(), "6"]]
    words += [[str(served.server.data_dir), "/srv/pulvinar"], [str(served.server.folder), "/srv"]]
    visit = served.visit(**PICTURED)
    for path in paths:
        file = folder / docs_picture(path)
        file.write_bytes(small(picture(visit, path, words)))
        print(f"{file}: {file.stat().st_size // 1000} kB")
    visit.context.close()


def whole_pages(served: Site, only: str) -> list[str]:
    """The pages with a frame, without what only leads to one of them, and one of those that look the same."""
    found = {"/login": "/login"}
    with served.client() as client:
        for path in (*PAGES, *PAGES_OF_ONE, *_OF_PIPELINE):
            if only in path and is_whole_page(client, path):
                found.setdefault(file_name(path), path)
    return list(found.values())


def file_name(path: str) -> str:
    """`/dashboard/models/classifier/versions/1` is `model-version`: what examples are called says nothing."""
    said = path.removeprefix("/dashboard")
    for section, name in (("model", MODEL), ("pipeline", PIPELINE), ("playground", MODEL)):
        said = re.sub(rf"/{section}s?/{name}\b", f"/{section}", said)
    return re.sub(r"\W+", "-", re.sub(r"(\w+)s/\d+", r"\1", said)).strip("-") or "overview"


def docs_picture(path: str) -> str:
    """The name of a page's picture in docs/images."""
    return f"dashboard-{file_name(path)}.webp"


def picture(visit: Visit, path: str, words: Sequence[Sequence[str]] = ()) -> bytes:
    """A whole page, with its live figures; the playground with an answer in it. A PNG. `words` are replaced."""
    page = visit.open(_INSTEAD.get(path, path))
    if path.startswith("/dashboard/playground"):
        page.goto(_TRIED)
        page.locator("#f-media").set_input_files(PHOTO)
        page.locator("[data-picture]").wait_for()
    if path.endswith("/run"):
        page.locator("#f-media").set_input_files(PHOTO)
        page.get_by_role("button", name="Run").click()
        page.locator(".steps-run > li").first.wait_for()
    if page.locator("[data-live-url]").count():
        page.wait_for_timeout(2500)  # two events of the stream
    if page.locator("[data-chart]").count():
        page.locator("[data-chart] canvas").first.wait_for()
        page.wait_for_timeout(500)  # those of the other charts
    page.evaluate(_REPLACE_WORDS, [list(pair) for pair in words])
    taken = whole(page)
    page.close()
    return taken


def whole(page: Page) -> bytes:
    seen = page.viewport_size or DESK
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": seen["width"], "height": max(seen["height"], height)})
    finish_motion(page)
    taken: bytes = page.screenshot()
    return taken


def small(png: bytes) -> bytes:
    """The upper part of a picture as WebP, in the best quality in which it is small enough."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image = image.crop((0, 0, image.width, min(image.height, MOST_HIGH)))
    for quality in _QUALITIES:
        file = io.BytesIO()
        image.save(file, "WEBP", quality=quality, method=6)
        if file.tell() <= MOST_BYTES:
            break
    return file.getvalue()


if __name__ == "__main__":
    main()
