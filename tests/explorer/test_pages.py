"""The pages: whole without scripts, equal to the library's numbers, and swapped in parts."""

from __future__ import annotations

import json
import re
from html import unescape
from typing import Any

import pytest

SWAP = {"x-swap": "1"}


def text_of(html: str) -> str:
    """What a page says, tags left out."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def rows_of(html: str) -> list[str]:
    """The rows of the atlas's table: names of networks."""
    return re.findall(r'<tr class="[^"]*" data-at="([^"]+)"', html)


def test_atlas_has_every_network(site: Any) -> None:
    page = site.get("/").text
    names = [each["name"] for each in site.get("/api/v1/networks").json()]
    assert sorted(rows_of(page)) == sorted(names)
    assert f"{len(names)} of {len(names)}" in text_of(page)


def test_atlas_filters_are_what_the_api_filters(site: Any) -> None:
    page = site.get("/?year=2016..2017&params=..30M&idea=dense-connectivity&sort=-macs").text
    expected = site.get("/api/v1/networks?year=2016..2017&max_params=30M&tag=dense-connectivity").json()
    expected.sort(key=lambda each: -each["macs"])
    assert rows_of(page) == [each["name"] for each in expected]


def test_atlas_finds_a_name_by_part(site: Any) -> None:
    assert set(rows_of(site.get("/?q=preact").text)) >= {"preact_resnet18", "preact_resnet50"}


def test_atlas_without_a_fit_says_which_filter_to_clear(site: Any) -> None:
    text = text_of(site.get("/?year=1998&idea=residual").text)
    assert "No network fits. Year leaves out most" in text


@pytest.mark.parametrize(
    "query", ["x=price", "area=colour", "sort=mood", "year=young", "idea=magic", "foo=1"]
)
def test_atlas_refuses_what_it_does_not_know(site: Any, query: str) -> None:
    found = site.get(f"/?{query}", page=True)
    assert found.status_code == 422
    assert "expected" in text_of(found.text)


def test_atlas_swaps_its_parts(site: Any) -> None:
    found = site.get("/?params=..2M", headers=SWAP).json()
    assert set(found["parts"]) == {"bars", "chips", "figure", "table", "tally"}
    assert found["url"] == "/?params=..2M"
    assert rows_of(found["parts"]["table"]) == rows_of(site.get("/?params=..2M").text)


def test_network_page_has_the_sheet_s_numbers(site: Any) -> None:
    """Stage 1 of ResNet-50 has 215,808 parameters: 75,008 + 2 × 70,400, counted from its Table 1."""
    text = text_of(site.get("/networks/resnet50_v1_5").text)
    for number in ("25,557,032", "4,089,184,256", "215,808", "75,008", "70,400"):
        assert number in text
    assert "64×112×112" in text
    assert 'convatlas.create_model("resnet50_v1_5")' in text


def test_alias_leads_to_the_network_s_own_page(site: Any) -> None:
    found = site.get("/networks/ResNet-50?input=160")
    assert (found.status_code, found.headers["location"]) == (302, "/networks/resnet50_v1_5?input=160")


def test_knob_swaps_totals_rows_and_address(site: Any) -> None:
    found = site.get("/networks/resnet18?input=448&classes=1000&batch=1", headers=SWAP).json()
    size = site.get("/api/v1/size?network=resnet18&input=448").json()
    assert f"{size['macs']:,}" in text_of(found["parts"]["totals"])
    assert f"{size['macs']:,}" in text_of(found["parts"]["total_row"])
    assert "same" in text_of(found["parts"]["totals"])
    assert "times the multiply-adds as published" in found["say"]
    assert found["set"]["input"] == "448"


def test_settings_are_in_the_address_and_in_the_code(site: Any) -> None:
    page = text_of(site.get("/networks/resnet50_v1_5?width_mult=2&classes=10&input=3,160,192&batch=8").text)
    assert 'convatlas.create_model("resnet50_v1_5", num_classes=10, width_mult=2)' in page
    assert "convatlas size resnet50_v1_5 --batch-size 8 --input 3,160,192" in page


def test_levels_have_sums_that_are_the_totals(site: Any) -> None:
    def total(path: str, measure: str) -> int:
        rows = re.findall(r'<tr class="(?!st)[^"]*" data-layer.*?</tr>', site.get(path).text)
        cells = [re.search(f'data-measure="{measure}">(.*?)</td>', row) for row in rows]
        return sum(int(text_of(cell[1]).replace(",", "").replace("–", "0")) for cell in cells if cell)

    size = site.get("/api/v1/size?network=googlenet").json()
    for level in ("stages", "blocks", "operations"):
        path = f"/networks/googlenet?level={level}"
        closed = total(path, "macs") if level != "operations" else None
        assert closed in (None, size["macs"])


def test_open_block_shows_its_operations(site: Any) -> None:
    closed = site.get("/networks/resnet18").text
    assert 'data-layer="stages.0.0"' in closed and "stages.0.0.conv1" not in closed.replace("conv1.conv", "")
    opened = site.get("/networks/resnet18?open=stages.0.0").text
    assert 'aria-expanded="true"' in opened
    assert len(re.findall("data-layer=", opened)) > len(re.findall("data-layer=", closed))


def test_too_small_an_input_is_said_at_the_knob_with_what_works(site: Any) -> None:
    found = site.get("/networks/alexnet?input=32", headers=SWAP)
    assert found.status_code == 422
    works = found.json()["works"]
    assert site.get(f"/networks/alexnet?input={works}", headers=SWAP).status_code == 200
    assert site.get(f"/networks/alexnet?input={works - 1}", headers=SWAP).status_code == 422
    whole = site.get("/networks/alexnet?input=32", page=True)
    assert whole.status_code == 200
    assert "smallest" in text_of(whole.text)


def test_formulas_have_the_numbers_put_in(site: Any) -> None:
    """VGG-16's first convolution: 3·3·3·64 + 64 parameters, 224 × 224 × 64 × 27 multiply-adds."""
    page = unescape(site.get("/networks/vgg16?level=operations").text)
    first = re.search(r'data-formulas="(\[\[.*?\]\])"', page)
    assert first
    lines = " ".join(json.loads(first[1])[0][1])
    assert "1,792" in lines and "86,704,128" in lines


def test_unknown_network_is_a_page_with_a_way_on(site: Any) -> None:
    found = site.get("/networks/resnt50", page=True)
    assert found.status_code == 404
    assert "resnet50" in found.text and 'href="/"' in found.text


def test_find_leads_to_a_network_or_to_the_atlas(site: Any) -> None:
    assert site.get("/find?q=vgg-16").headers["location"] == "/networks/vgg16"
    assert site.get("/find?q=dense net").headers["location"] == "/?q=dense+net"
    assert site.get("/find").headers["location"] == "/"


def test_compare_says_the_answer_first(site: Any) -> None:
    text = text_of(site.get("/compare?a=vgg16&b=resnet50").text)
    assert "ResNet-50 has 0.18 of the parameters and 0.26 of the multiply-adds" in text
    assert "no ratio" in text


def test_pages_are_small(site: Any) -> None:
    """The style's bar: 20 kB gzipped for a page; the atlas has a table of every network."""
    import gzip

    for path, most in (
        ("/networks/resnet50_v1_5", 20_000),
        ("/compare?a=vgg16&b=resnet50", 20_000),
        ("/", 40_000),
    ):
        assert len(gzip.compress(site.get(path).content)) < most
    script = site.get("/static/explorer.js").content + site.get("/static/explorer.css").content
    assert len(gzip.compress(script)) < 60_000


def test_static_files_are_kept_by_their_digest(site: Any) -> None:
    address = re.search(r'src="(/static/explorer.js\?v=\w+)"', site.get("/").text)
    assert address
    first = site.get(address[1])
    assert "immutable" in first.headers["cache-control"]
    assert site.get(address[1], headers={"if-none-match": first.headers["etag"]}).status_code == 304


@pytest.mark.parametrize(
    "name", ["lenet5", "googlenet", "densenet121", "mobilenet_v2_100", "nasnet_a_cifar", "efficientnet_b0"]
)
def test_every_family_has_a_page(site: Any, name: str) -> None:
    page = site.get(f"/networks/{name}")
    size = site.get(f"/api/v1/size?network={name}").json()
    assert f"{size['params']:,}" in page.text and f"{size['macs']:,}" in page.text
