"""The JSON API: the same numbers as the command line, and errors that say what works."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from convatlas import create_model, draw
from convatlas.catalog.describe import record
from convatlas.sizing import render, size


def test_size_is_what_the_command_prints(site: Any) -> None:
    with torch.device("meta"):
        net = create_model("resnet50", width_mult=0.5, num_classes=10).eval()
    sheet = size(net, (3, 160, 160), batch_size=4, dtype=torch.bfloat16, optimizer="adam")
    query = "network=resnet50&input=160&batch=4&dtype=bf16&optimizer=adam&classes=10&width_mult=0.5"
    assert site.get(f"/api/v1/size?{query}").json() == json.loads(render.to_json(sheet, None))
    assert site.get(f"/api/v1/size?{query}&format=csv&layers=true").text == render.to_csv(sheet, layers=True)
    assert site.get(f"/api/v1/size?{query}&format=md").text == render.to_markdown(sheet, layers=False)
    assert site.get(f"/api/v1/size?{query}&format=latex").text == render.to_latex(sheet, layers=False)


def test_size_has_the_paper_s_numbers(site: Any) -> None:
    """VGG-16 has 138,357,544 parameters; 11×11 filters of AlexNet on 227 px give maps of 55×55."""
    found = site.get("/api/v1/size?network=vgg16").json()
    assert found["params"] == 138_357_544
    alexnet = site.get("/api/v1/size?network=alexnet&input=227").json()
    assert alexnet["layers"][0]["output_shape"][2:] == [55, 55]


def test_network_is_its_card(site: Any) -> None:
    assert site.get("/api/v1/networks/resnet50").json() == json.loads(json.dumps(record("resnet50")))
    assert site.get("/api/v1/networks/ResNet-50").json()["name"] == record("resnet50")["name"]


def test_networks_can_be_filtered(site: Any) -> None:
    found = site.get("/api/v1/networks?year=2015..2016&tag=residual&max_params=2M&sort=params").json()
    assert found
    assert all(2015 <= each["year"] <= 2016 and each["params"] <= 2e6 for each in found)
    assert [each["params"] for each in found] == sorted(each["params"] for each in found)
    assert {each["name"] for each in found} >= {"resnet20_cifar", "resnet56_cifar"}


def test_compare_gives_ratios_of_second_to_first(site: Any) -> None:
    found = site.get("/api/v1/compare?a=vgg16&b=resnet50").json()
    assert found["totals"]["params"] == {
        "a": 138_357_544,
        "b": 25_557_032,
        "ratio": pytest.approx(25_557_032 / 138_357_544),
    }
    for side in "ab":
        assert sum(line[side]["params"] for line in found["stages"] if line[side]) == found[side]["params"]
        assert sum(line[side]["macs"] for line in found["stages"] if line[side]) == found[side]["macs"]


@pytest.mark.parametrize("options", [{"level": "stage"}, {"level": "block", "theme": "dark"}])
def test_figure_is_what_the_command_draws(site: Any, options: dict[str, str]) -> None:
    from convatlas.catalog.describe import figure_title

    with torch.device("meta"):
        net = create_model("resnet18").eval()
    title, note = figure_title("resnet18")
    drawn = draw(net, (3, 224, 224), title=title, note=note, show=["shapes", "params", "macs"], **options)
    query = "&".join(f"{name}={value}" for name, value in options.items())
    found = site.get(f"/api/v1/draw/resnet18.svg?{query}")
    assert found.headers["content-type"] == "image/svg+xml"
    assert found.text == drawn.svg


def test_figure_changes_with_the_knobs(site: Any) -> None:
    found = site.get("/api/v1/draw/resnet18.svg?level=stage&input=160&classes=7")
    assert "3×160×160" in found.text
    assert "7×5×5" not in found.text and "512×5×5" in found.text


@pytest.mark.parametrize(("form", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_figure_has_other_forms(site: Any, form: str, start: bytes) -> None:
    found = site.get(f"/api/v1/draw/lenet5.{form}?level=stage")
    assert found.content.startswith(start)
    assert found.headers["content-disposition"] == f'inline; filename="lenet5.{form}"'


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/v1/networks/resnet5O", 404, "resnet50"),
        ("/api/v1/size?network=resnt50", 404, "resnet50"),
        ("/api/v1/size", 422, "`network`"),
        ("/api/v1/size?network=resnet50&input=tall", 422, r"`input`='tall'; expected px"),
        ("/api/v1/size?network=resnet50&input=0", 422, "expected a whole number from 1"),
        ("/api/v1/size?network=resnet50&input=3,224", 422, "C,H,W"),
        ("/api/v1/size?network=resnet50&batch=0", 422, "`batch`"),
        ("/api/v1/size?network=resnet50&dtype=fp8", 422, "`dtype`='fp8'; expected one of float32"),
        ("/api/v1/size?network=resnet50&optimizer=lion", 422, "`optimizer`='lion'"),
        ("/api/v1/size?network=resnet50&depth=3", 422, "has no option `depth`"),
        ("/api/v1/size?network=resnet50&stride_on=5x5", 422, "expected one of 1x1, 3x3"),
        ("/api/v1/size?network=resnet50&width_mult=wide", 422, "expected a number"),
        ("/api/v1/size?network=resnet50&format=xml", 422, "`format`='xml'; expected one of json"),
        ("/api/v1/size?network=alexnet&input=32", 422, "smallest"),
        ("/api/v1/compare?a=vgg16", 422, "`b`"),
        ("/api/v1/compare?a=vgg16&b=wgg16", 404, "vgg16"),
        ("/api/v1/draw/resnet18.gif", 422, "NAME.svg"),
        ("/api/v1/draw/resnet18.svg?level=atom", 422, "`level`='atom'; expected one of stage"),
        ("/api/v1/networks?year=soon", 422, "year"),
        ("/api/v1/nothing", 404, "Not Found"),
    ],
)
def test_errors_say_what_works(site: Any, path: str, status: int, said: str) -> None:
    found = site.get(path)
    assert (found.status_code, said in found.json()["detail"]) == (status, True), found.text


def test_document_names_every_route_and_no_other_host(site: Any) -> None:
    document = site.get("/openapi.json")
    assert {
        "/api/v1/networks", "/api/v1/networks/{name}", "/api/v1/size", "/api/v1/compare",
        "/api/v1/draw/{file}", "/livez", "/readyz",
    } <= set(document.json()["paths"])  # fmt: skip
    assert "http" not in document.text.replace("HTTPValidationError", "").lower()


def test_health(site: Any) -> None:
    assert site.get("/livez").json() == {"status": "ok"}
    assert site.get("/readyz").json() == {"status": "ok"}


def test_history_is_what_the_command_draws(site: Any) -> None:
    from convatlas.plots.history import draw_depth, draw_timeline

    assert site.get("/api/v1/history/depth.svg").text == draw_depth(()).svg
    assert site.get("/api/v1/history/ideas.svg?theme=dark").text == draw_timeline(theme="dark").svg
    assert "expected depth.svg" in site.get("/api/v1/history/cost.svg").json()["detail"]
    assert "`theme`='sepia'" in site.get("/api/v1/history/depth.svg?theme=sepia").json()["detail"]
