"""Which pages the dashboard has, as its routers say: a new one is covered as soon as it is there."""

from __future__ import annotations

import re
from typing import Final

import httpx

from app.dashboard.dashboard import PREFIX, ROUTERS
from app.dashboard.guard import PageRoute

MODEL: Final = "classifier"
EXAMPLES: Final = {
    "token_id": "1",
    "tenant_id": "1",
    "user_id": "1",
    "name": MODEL,
    "model": MODEL,
    "number": "1",
}
"""What stands in the paths of pages about one thing; `tests.browser.site` sees to it that there is one."""


def _paths() -> tuple[tuple[str, ...], tuple[str, ...]]:
    plain, of_one = [], []
    for router in ROUTERS:
        for route in router.routes:
            if not isinstance(route, PageRoute) or "GET" not in route.methods:
                continue
            asked = re.findall(r"\{(\w+)(?::\w+)?\}", route.path)
            path = PREFIX + re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: EXAMPLES.get(found[1], "-"), route.path)
            if not asked:
                plain.append(path)
            elif all(name in EXAMPLES for name in asked):
                of_one.append(path)
    return tuple(dict.fromkeys(plain)), tuple(dict.fromkeys(of_one))


PAGES, PAGES_OF_ONE = _paths()
"""Paths without parameters, and those whose parameters have an example. Some answer with a part or a stream."""


def is_whole_page(client: httpx.Client, path: str) -> bool:
    """Whether a page with its frame answers there. Reads the beginning only, for some answers never end."""
    with client.stream("GET", path) as answer:
        if answer.status_code != 200 or not answer.headers.get("content-type", "").startswith("text/html"):
            return False
        return b"<!doctype html" in next(answer.iter_bytes(512), b"").lower()
