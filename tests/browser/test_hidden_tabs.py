"""Nothing asks for anything in a tab that nobody sees."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.browser.site import Site, Visit

# A page cannot be hidden from outside: it is told that it is, as a browser would.
HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  const state = hidden ? "hidden" : "visible";
  Object.defineProperty(document, "visibilityState", { configurable: true, get: () => state });
  document.dispatchEvent(new Event("visibilitychange"));
}"""
_STREAMS = """(() => {
  const made = [];
  window.EventSource = class extends EventSource { constructor(...of) { super(...of); made.push(this); } };
  window.streams = () => made.filter((one) => one.readyState !== EventSource.CLOSED).length;
})();"""


def _asked(page: Page) -> list[str]:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    return asked


@pytest.mark.parametrize("path", ["/dashboard/", "/dashboard/models", "/dashboard/system"])
def test_a_hidden_tab_asks_for_nothing_and_catches_up(dashboard: Site, admin: Visit, path: str) -> None:
    admin.context.add_init_script(_STREAMS)
    page = admin.context.new_page()
    page.clock.install()
    page.goto(path)
    with page.expect_request(lambda request: "hx-request" in request.headers):
        page.clock.run_for(31_000)  # what is seen does ask
    page.evaluate(HIDE, True)
    page.wait_for_load_state("networkidle")
    asked = _asked(page)
    page.clock.run_for(120_000)
    assert asked == []
    assert page.evaluate("streams()") == 0
    with page.expect_request(lambda request: "hx-request" in request.headers):
        page.evaluate(HIDE, False)
    assert page.evaluate("streams()") == (1 if path == "/dashboard/" else 0)
    polled = [url for url in asked if url.endswith(("/overview/parts", "/dashboard/models", "/system/machine"))]
    assert len(polled) == 1
