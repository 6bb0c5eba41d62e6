import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch

from convatlas.sizing import Sheet, size
from convatlas.sizing import roofline as r
from convatlas.sizing.expression import build


def flat(rate: float) -> r.Curve:
    return ((1, rate),)


def made(**changes: object) -> r.Profile:
    rates = {kind: flat(rate) for kind, rate in zip(r.KINDS, (4e9, 3e9, 1e9, 2e9, 1e8, 1e7), strict=True)}
    profile = r.Profile("cpu", "a chip", 1, {"torch": "0"}, {"float32": rates}, flat(1e9), 1e-6)
    return dataclasses.replace(profile, **changes)


def sized(expression: str, *shape: int) -> Sheet:
    return size(build(expression, shape), shape)


@pytest.mark.parametrize(
    ("expression", "kind", "seconds"),
    [
        # The longer of MACs / rate and bytes / bandwidth, plus 1 us.
        pytest.param("conv 64 3x3 same nobias", "conv", 28 * 28 * 64 * 64 * 9 / 4e9, id="conv"),
        pytest.param("conv 64 1x1 nobias", "pointwise", 28 * 28 * 64 * 64 / 3e9, id="pointwise"),
        pytest.param("dw 3x3 same nobias", "depthwise", 28 * 28 * 64 * 9 / 1e9, id="depthwise"),
        pytest.param("pool 3x3 same", "pool", 28 * 28 * 64 * 9 / 1e8, id="pool"),
        pytest.param("relu", None, 2 * 4 * 28 * 28 * 64 / 1e9, id="bytes-only"),
    ],
)
def test_rows(expression: str, kind: str | None, seconds: float) -> None:
    sheet = sized(expression, 64, 28, 28)
    assert r.kind_of(sheet.rows[0]) == kind
    assert r.row_seconds(sheet, made()) == (pytest.approx(max(seconds, _bytes(sheet) / 1e9) + 1e-6),)


def _bytes(sheet: Sheet) -> int:
    x, out = 28 * 28 * 64, math.prod(sheet.output)
    return 4 * (x + out + sheet.params)


def test_linear_layers_wait_for_their_weights() -> None:
    sheet = sized("fc 4096 nobias", 1000, 1, 1)
    flatten, linear = r.row_seconds(sheet, made(bandwidth=flat(1e9)))
    assert flatten == 0.0
    assert linear == pytest.approx(4 * (1000 + 4096 + 1000 * 4096) / 1e9 + 1e-6)


def test_activations_with_an_exponential() -> None:
    sheet = size(torch.nn.SiLU(), (64, 28, 28))
    assert r.estimate(sheet, made()) == pytest.approx(28 * 28 * 64 / 1e7 + 1e-6)


def test_estimate_adds_the_rows() -> None:
    sheet = sized("conv 64 3x3 same, relu, pool 2x2, fc 10", 64, 28, 28)
    assert r.estimate(sheet, made()) == pytest.approx(sum(r.row_seconds(sheet, made())))


@pytest.mark.parametrize(
    ("amount", "rate"),
    [
        pytest.param(1, 8.0, id="below"),
        pytest.param(10, 8.0, id="first"),
        pytest.param(100, 6.0, id="between-on-a-logarithmic-scale"),
        pytest.param(1000, 4.0, id="last"),
        pytest.param(10**9, 4.0, id="beyond"),
    ],
)
def test_rates_between_measurements(amount: int, rate: float) -> None:
    assert r.at(((10, 8.0), (1000, 4.0)), amount) == pytest.approx(rate)


def test_positions_count_the_batch() -> None:
    rates = made().rates["float32"] | {"conv": ((7 * 7, 1e6), (4 * 7 * 7, 2e6))}
    profile = made(rates={"float32": rates})
    net = build("conv 8 3x3 same nobias", (8, 7, 7))
    one, four = (r.estimate(size(net, (8, 7, 7), batch_size=b), profile) for b in (1, 4))
    assert one == pytest.approx(7 * 7 * 8 * 8 * 9 / 1e6 + 1e-6)
    assert four == pytest.approx(4 * 7 * 7 * 8 * 8 * 9 / 2e6 + 1e-6)


def test_a_dtype_that_was_not_measured() -> None:
    sheet = size(build("relu", (3, 8, 8)), (3, 8, 8), dtype=torch.float64)
    with pytest.raises(r.ProfileError, match="no rates for float64; it has float32"):
        r.estimate(sheet, made())


def test_calibration_is_kept_and_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(r, "DTYPES", (torch.float32,))
    assert r.find_profile() is None
    profile = r.calibrate(seconds=0.001)
    path = r.save_profile(profile)
    assert path == r.profile_path()
    assert path.is_relative_to(tmp_path / "convatlas")
    assert r.find_profile() == profile
    assert set(profile.rates) == {"float32"}
    assert all(rate > 0 for curve in profile.rates["float32"].values() for _, rate in curve)
    assert r.estimate(sized("conv 8 3x3", 3, 8, 8), profile) > 0


def test_other_threads_are_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    before = r.profile_path()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1234)
    assert r.profile_path() != before


def test_home_without_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert r.profile_path().parent == tmp_path / ".cache" / "convatlas"


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("{", id="cut"),
        pytest.param("[]", id="list"),
        pytest.param("{}", id="empty"),
        pytest.param(json.dumps(dataclasses.asdict(made(bandwidth=()))), id="no-bandwidth"),
        pytest.param(json.dumps(dataclasses.asdict(made(bandwidth=flat(0.0)))), id="zero"),
        pytest.param(json.dumps(dataclasses.asdict(made(rates={"float32": {}}))), id="no-rates"),
    ],
)
def test_a_damaged_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = r.profile_path()
    path.parent.mkdir()
    path.write_text(content)
    with pytest.raises(r.ProfileError, match=r"is damaged.*convatlas bench --profile-machine"):
        r.find_profile()


@pytest.mark.parametrize("device", ["tpu", "cuda"])
def test_devices_that_are_not_here(device: str) -> None:
    if device == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(r.ProfileError, match=f"`device`='{device}'.*expected cpu"):
        r.calibrate(device)


def test_no_profile_of_a_gpu_that_is_not_here() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert r.find_profile("cuda") is None
