"""One browser and one server for these tests; each test has cookies of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.browser.site import Site, Visit, browser, chromium, must_be_here, site

expect.set_options(timeout=30_000)  # a machine that does other work is slow, not wrong


# Closed with the last test of this folder: while it is open, a loop runs, and other tests have loops of their own.
@pytest.fixture(scope="package")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The dashboard, in a browser."""
    if chromium() is None:
        assert not must_be_here(), "Chromium is missing: apt-get install chromium"
        pytest.skip("Chromium is not here; on Debian: apt-get install chromium")
    with browser() as opened, site(tmp_path_factory.mktemp("dashboard"), opened) as served:
        yield served


@pytest.fixture
def admin(dashboard: Site) -> Iterator[Visit]:
    """The administrator's browser, which must have had nothing to complain of."""
    visit = dashboard.visit()
    yield visit
    visit.context.close()
    assert not visit.unexpected()


@pytest.fixture
def visitor(dashboard: Site) -> Iterator[Visit]:
    """A browser that nobody has signed in with."""
    visit = dashboard.visit(signed_in=False)
    visit.expected.append("401")
    yield visit
    visit.context.close()
    assert not visit.unexpected()
