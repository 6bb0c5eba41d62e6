"""Who may ask, and what every answer says to a browser."""

from __future__ import annotations

import html.parser
from typing import Any

import pytest

from convatlas.explorer import make_app

PAGES = ("/", "/networks/resnet50_v1_5", "/compare?a=vgg16&b=resnet50", "/networks/none", "/?params=1..2")


@pytest.fixture(scope="session")
def shared(site: Any) -> Any:
    """An application that is bound to another address, with a token."""
    return type(site)(make_app(workers=0, host="0.0.0.0", token="sesame"), "http://192.168.1.5:8765")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8765", ""]
)
def test_other_host_names_are_refused(site: Any, host: str) -> None:
    found = site.get("/livez", headers={"host": host})
    assert found.status_code == 421
    assert "use the address that `convatlas explore` printed" in found.json()["detail"]


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost", "LOCALHOST:1", "[::1]:8765"])
def test_own_host_names_are_let_in(site: Any, host: str) -> None:
    assert site.get("/livez", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(site: Any, method: str) -> None:
    assert site.get("/", method).status_code == 405


def test_other_sites_are_refused_but_links_work(site: Any) -> None:
    cross = {"sec-fetch-site": "cross-site"}
    refused = site.get("/api/v1/networks", headers={**cross, "sec-fetch-mode": "cors"})
    assert (refused.status_code, refused.json()["detail"]) == (403, "another site may not ask this server")
    assert site.get("/", headers={**cross, "sec-fetch-mode": "navigate"}).status_code == 200


@pytest.mark.parametrize("path", [*PAGES, "/livez", "/api/v1/networks/none", "/static/explorer.js"])
def test_every_answer_has_its_headers(site: Any, path: str) -> None:
    headers = site.get(path, page=True).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert "access-control-allow-origin" not in headers


class _Page(html.parser.HTMLParser):
    """Collects what a page loads, its inline code, and its ids."""

    def __init__(self) -> None:
        super().__init__()
        self.inline: list[str] = []
        self.loads: list[str] = []
        self.ids: list[str] = []
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        self._in_script = tag in ("script", "style")
        if tag in ("script", "img", "iframe", "source"):
            self.loads.append(given.get("src") or "")
        if tag in ("link", "image", "use"):
            self.loads.append(given.get("href") or "")
        if given.get("id"):
            self.ids.append(given["id"] or "")

    def handle_data(self, data: str) -> None:
        if self._in_script and data.strip():
            self.inline.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False


@pytest.mark.parametrize("path", PAGES)
def test_pages_load_nothing_from_elsewhere(site: Any, path: str) -> None:
    page = _Page()
    page.feed(site.get(path, page=True).text)
    assert page.inline == []
    assert all(address.startswith(("/", "data:,")) and not address.startswith("//") for address in page.loads)
    assert len(page.ids) == len(set(page.ids))


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static/..%252fapp.py",
        "/static//etc/passwd", "/static/explorer.js%00.png", "/static/..\\app.py", "//etc/passwd",
        "/networks/../../etc/passwd", "/networks/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/api/v1/draw/..%2f..%2fapp.svg",
        "/api/v1/networks/" + "a" * 5000, "/api/v1/draw/%00.svg",
    ],
)  # fmt: skip
def test_no_path_comes_from_a_client(site: Any, path: str) -> None:
    found = site.get(path)
    assert found.status_code in (404, 422)
    assert "root:" not in found.text and "import" not in found.text


def test_without_its_token_nothing_is_shown(shared: Any) -> None:
    for path in ("/", "/livez", "/static/explorer.js", "/?token=open", "/?token="):
        assert shared.get(path).status_code == 401
    assert "token" in shared.get("/").json()["detail"]


def test_token_opens_by_address_cookie_or_header(shared: Any) -> None:
    first = shared.get("/livez?token=sesame")
    assert first.status_code == 200
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert shared.get("/livez", headers={"cookie": cookie.partition(";")[0]}).status_code == 200
    assert shared.get("/livez", headers={"authorization": "Bearer sesame"}).status_code == 200
    assert shared.get("/livez", headers={"authorization": "Bearer sesam"}).status_code == 401
    assert shared.get("/livez?token=sesame", headers={"host": "evil.example"}).status_code == 421


def test_names_reach_the_page_as_text(site: Any) -> None:
    attack = "<script>alert(1)</script>"
    for path in (f"/networks/{attack}", f"/?q={attack}", f"/compare?a={attack}&b=vgg16", f"/?idea={attack}"):
        assert attack not in site.get(path, page=True).text
