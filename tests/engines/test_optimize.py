"""`convatlas.optimize`: what it chooses, drops and remembers."""

from __future__ import annotations

import copy
import os
import shutil
import signal
import time
from multiprocessing.connection import Client
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convatlas
import fake_engines
from convatlas.engines import cache as cache
from convatlas.engines.backend import EngineError, Job
from convatlas.engines.engine import Engine
from convatlas.engines.optimize import is_remembered
from convatlas.engines.worker_pool import WorkerPool
from convatlas.errors import UnknownNameError

PATIENCE = 300.0
"""Seconds that a busy machine may take."""

QUICK = ("eager", "openvino", "onnxruntime", "torch")
"""All but the one that calls a compiler."""


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return convatlas.create_model("lenet5")


def relative(logits: Tensor, expected: Tensor) -> float:
    return ((logits - expected).abs().max() / expected.abs().max()).item()


@pytest.fixture(scope="module", autouse=True)
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder of our own, for all tests of this file."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return net()


@pytest.fixture(scope="module")
def engine(memory: Path, model: nn.Module) -> Engine:
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    return convatlas.optimize(model, batch_size=4, engines=QUICK, threads=2, time_limit=PATIENCE)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("convatlas.engines.ENGINES", fake_engines.PLACES)
    for module in ("request", "worker_pool"):
        monkeypatch.setattr(f"convatlas.engines.{module}.ENGINES", fake_engines.PLACES)
    monkeypatch.setenv("PYTHONPATH", str(Path(fake_engines.__file__).parent))


def notes(engine: Engine) -> dict[str, str]:
    return {result.engine: result.note for result in engine.report.results}


class TestChoice:
    def test_every_engine_was_tried_and_the_fastest_is_chosen(self, engine: Engine) -> None:
        results = engine.report.results
        assert {result.engine for result in results} == set(QUICK)
        usable = [result for result in results if not result.note]
        assert engine.name == usable[0].engine
        assert usable[0].seconds == min(result.seconds for result in usable)
        assert all(result.note for result in results[len(usable) :])

    def test_trials_of_two_threads_include_a_stream_for_each(self, engine: Engine) -> None:
        assert any("a stream per thread" in result.label for result in engine.report.results)

    @pytest.mark.parametrize("batch", [0, 1, 4, 6])
    def test_any_batch_is_scored_as_the_network_logits_it(
        self, engine: Engine, model: nn.Module, batch: int
    ) -> None:
        x = torch.randn(batch, 1, 32, 32)
        expected = copy.deepcopy(model).eval()(x).detach()
        logits = engine(x)
        assert logits.shape == (batch, 10)
        if batch:
            assert relative(logits, expected) <= 1e-4

    def test_predictions_are_not_overwritten_by_the_next_call(self, engine: Engine) -> None:
        first = engine(torch.zeros(4, 1, 32, 32))
        before = first.clone()
        engine(torch.ones(4, 1, 32, 32))
        assert torch.equal(first, before)

    def test_channels_last_images_are_understood(self, engine: Engine) -> None:
        x = torch.randn(4, 1, 32, 32)
        # An engine may add in another order for them.
        assert relative(engine(x.to(memory_format=torch.channels_last)), engine(x)) <= 1e-6

    def test_report_tells_a_person_what_was_done(self, engine: Engine) -> None:
        text = str(engine.report)
        assert text.startswith("lenet5, 4 x 1x32x32, fp32, on ")
        assert "2 threads" in text and engine.report.chosen.label in text.splitlines()[0]
        assert all(name in text for name in QUICK)

    def test_the_network_stays_as_it_is(self, engine: Engine, model: nn.Module) -> None:
        assert model.training and all(module.training for module in model.modules())

    def test_other_px_are_refused(self, engine: Engine) -> None:
        with pytest.raises(
            ValueError, match=r"made for images of shape \(B, 1, 32, 32\); received \(1, 1, 28"
        ):
            engine(torch.zeros(1, 1, 28, 28))

    def test_what_is_no_tensor_is_refused(self, engine: Engine) -> None:
        with pytest.raises(TypeError, match="received list"):
            engine([0.0])  # type: ignore[arg-type]


class TestMemory:
    def ask(self, model: nn.Module, **options: object) -> Engine:
        options = {"batch_size": 4, "engines": QUICK, "threads": 2, "time_limit": PATIENCE, **options}
        return convatlas.optimize(model, **options)  # type: ignore[arg-type]

    def test_the_second_time_is_at_once_and_agrees(self, engine: Engine, model: nn.Module) -> None:
        begin = time.process_time()
        again = self.ask(model)
        assert time.process_time() - begin < 2.0  # Trying takes ten and more.
        assert again.report.remembered and "remembered" in str(again.report)
        assert again.report.results == engine.report.results
        x = torch.randn(4, 1, 32, 32)
        assert relative(again(x), engine(x)) <= 1e-4

    def test_other_weights_take_the_same_engine_built_anew(self, engine: Engine) -> None:
        other = net(seed=1)
        found = self.ask(other)
        assert found.name == engine.name
        assert found.report.results != engine.report.results
        x = torch.randn(4, 1, 32, 32)
        assert relative(found(x), other.eval()(x).detach()) <= 1e-4

    def test_damaged_memory_is_decided_anew(
        self, engine: Engine, memory: Path, model: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        shutil.copytree(memory, tmp_path, dirs_exist_ok=True)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        for path in tmp_path.rglob("files/*"):
            path.write_bytes(path.read_bytes()[:100])
        found = self.ask(model)
        assert not found.report.remembered
        assert relative(found(torch.ones(4, 1, 32, 32)), engine(torch.ones(4, 1, 32, 32))) <= 1e-4

    @pytest.mark.parametrize("text", ["", "{}", '{"results": []}', '{"results": [{"engine": 1}]}', "[]"])
    def test_a_damaged_record_is_no_choice(
        self, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        (cache.home() / "key").mkdir(parents=True)
        (cache.home() / "key" / "choice.json").write_text(text)
        assert cache.find_choice("key") is None

    def test_it_is_not_used_where_that_is_not_wanted(self, memory: Path, model: nn.Module) -> None:
        before = set(memory.rglob("choice.json"))
        for _ in range(2):
            found = self.ask(model, engines=("eager",), remember=False)
            assert found.name == "eager" and not found.report.remembered
        assert set(memory.rglob("choice.json")) == before

    @pytest.mark.parametrize(
        "change",
        [{"batch_size": 2}, {"threads": 1}, {"precision": "bf16"}, {"tolerance": 0.1}],
        ids=lambda change: next(iter(change)),
    )
    def test_another_question_is_another_choice(self, model: nn.Module, change: dict[str, object]) -> None:
        plain = {"engines": ("eager",), "batch_size": 4}
        self.ask(model, **plain)
        assert self.ask(model, **plain).report.remembered
        assert not self.ask(model, **(plain | change)).report.remembered

    def test_a_network_of_another_structure_is_another_choice(self, model: nn.Module) -> None:
        plain = {"engines": ("eager",), "batch_size": 4}
        self.ask(model, **plain)
        wider = convatlas.create_model("lenet5", num_classes=11)
        assert not self.ask(wider, **plain).report.remembered

    def test_what_was_not_used_for_longest_makes_room(
        self, memory: Path, model: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(cache, "MAX_BYTES", 100_000)
        files = tmp_path / "files"
        files.mkdir()
        (files / "net").write_bytes(b"x" * 40_000)
        results = self.ask(model, engines=("eager",), remember=False).report.results
        for key in ("first", "second", "third"):
            cache.keep_choice(key, cache.Choice(results, "", files))
            time.sleep(0.02)
        assert cache.find_choice("first") is None
        assert cache.find_choice("second") is not None
        assert cache.find_choice("third") is not None

    def test_a_folder_that_cannot_be_written_to_is_no_obstacle(
        self, model: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        assert self.ask(model, engines=("eager",)).name == "eager"

    def test_what_will_be_predicted_at_once_is_known(
        self, fakes: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr("convatlas.engines.request.EAGER", "right")  # Eager is not tried.
        monkeypatch.setattr("convatlas.engines.request.ENGINES", {"right": fake_engines.PLACES["right"]})
        net0 = net().eval()
        assert not is_remembered(net0, 32, 3)
        assert convatlas.optimize(net0, 32, 3, time_limit=PATIENCE).name == "right"
        assert is_remembered(net0, 32, 3)
        assert not is_remembered(net0, 32, 5)
        assert not is_remembered(net(seed=1).eval(), 32, 3)
        assert convatlas.optimize(net0, 32, 3).report.remembered


def write_job(folder: Path) -> None:
    Job((1, 1, 32, 32), "fp32", 1).write(folder)
    for name in ("example", "check", "expected"):
        np.save(folder / f"{name}.npy", np.zeros((1, 1, 32, 32), np.float32))


class TestTrouble:
    def test_what_fails_crashes_or_is_wrong_is_dropped_with_a_note(self, fakes: None) -> None:
        names = ("fails", "crashes", "wrong", "strange", "elsewhere", "right")
        found = convatlas.optimize(net(), engines=names, remember=False, time_limit=PATIENCE)
        assert found.name == "right"
        said = notes(found)
        assert said["fails"] == "RuntimeError: it does not like this network"
        assert "crashed" in said["crashes"]
        assert "differ by 1.0e-03 of the largest; 1.0e-04 is allowed" in said["wrong"]
        assert "differ by inf" in said["strange"]
        if said["elsewhere"]:  # It is tried in this process where it is the fastest.
            assert "failed here (RuntimeError: not in this process)" in said["elsewhere"]

    def test_what_hangs_is_ended(self, fakes: None, tmp_path: Path) -> None:
        write_job(tmp_path)
        with WorkerPool(["hangs"], tmp_path) as pool:
            (attempt,) = pool.attempts
            assert attempt.ask("precisions", time.monotonic() + PATIENCE) == {"precisions": ["fp32"]}
            with pytest.raises(EngineError, match="was not ready in time"):
                attempt.ask("build", time.monotonic() + 0.2, precision="fp32")
            with pytest.raises(EngineError, match="was not ready in time"):
                attempt.ask("precisions", time.monotonic() + 1)

    def test_an_engine_that_is_named_twice_is_tried_once(self, fakes: None) -> None:
        found = convatlas.optimize(net(), engines=("right", "right"), remember=False, time_limit=PATIENCE)
        assert [result.engine for result in found.report.results] == ["right"]

    def test_a_call_that_nobody_waits_for_is_hung_up(
        self, fakes: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr("secrets.token_bytes", lambda count: b"k" * count)
        write_job(tmp_path)
        with WorkerPool(["right", "right"], tmp_path) as pool:
            (attempt,) = pool.attempts
            stranger = Client(pool.address, authkey=b"k" * 32)
            stranger.send_bytes(b'{"engine": "stranger", "process": 1}')
            with pytest.raises((EOFError, OSError)):
                stranger.recv_bytes()
            assert attempt.ask("precisions", time.monotonic() + PATIENCE) == {"precisions": ["fp32"]}

    def test_who_is_killed_before_it_calls_is_not_waited_for(
        self, fakes: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(WorkerPool, "_accept", lambda _: None)  # No call arrives.
        with WorkerPool(["right", "wrong"], tmp_path) as pool:
            while not (tmp_path / "wrong.pid").exists():
                time.sleep(0.05)
            os.kill(int((tmp_path / "wrong.pid").read_text()), signal.SIGKILL)
            with pytest.raises(EngineError, match="its process crashed"):
                pool.attempts[1].ask("precisions", time.monotonic() + PATIENCE)

    def test_who_is_late_is_dropped_and_no_choice_is_remembered(self, fakes: None) -> None:
        for _ in range(2):
            found = convatlas.optimize(net(), engines=("eager", "hangs"), time_limit=0.5)
            assert found.name == "eager" and not found.report.remembered
            assert notes(found)["hangs"] == "was not ready in time"

    def test_a_slow_one_does_not_delay_the_others_where_cores_are_few(
        self, fakes: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "cpu_count", lambda: 1)
        names = ("last", "leisurely")
        found = convatlas.optimize(net(), engines=names, remember=False, time_limit=PATIENCE)
        assert notes(found) == {"last": "", "leisurely": ""}

    @pytest.mark.parametrize(
        ("names", "looks"),
        [
            pytest.param(("sluggish",), 2, id="alone"),
            pytest.param(("right", "sluggish"), 1, id="far-behind"),
        ],
    )
    def test_long_calls_that_are_far_behind_are_looked_at_once(
        self, fakes: None, names: tuple[str, ...], looks: int
    ) -> None:
        found = convatlas.optimize(net(), engines=names, remember=False, time_limit=PATIENCE)
        assert found.name == names[0]
        assert [result.engine for result in found.report.results].count("sluggish") == looks

    def test_a_network_that_cannot_be_exported_works_as_it_is(self) -> None:
        class Choosy(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.flatten(1) if x.sum() > 0 else x.flatten(1) * 2

        found = convatlas.optimize(Choosy(), (1, 4, 4), engines=("eager", "torch"), remember=False)
        assert found.name == "eager"
        assert "could not be exported" in notes(found)["torch"]

    def test_a_missing_engine_that_is_named_says_what_to_install(self, fakes: None) -> None:
        with pytest.raises(
            EngineError, match=r"pip install a-package-that-is-not-there, or '\.\[engines\]' in"
        ):
            convatlas.optimize(net(), engines=("missing",))

    def test_a_missing_engine_among_all_is_a_note(self, fakes: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("convatlas.engines.request.ENGINES", {"missing": fake_engines.PLACES["missing"]})
        found = convatlas.optimize(net(), remember=False)
        assert found.name == "eager"
        assert "pip install" in notes(found)["missing"]

    def test_logits_that_are_no_numbers_stay_so(self) -> None:
        class Odd(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return x.flatten(1) / 0.0

        found = convatlas.optimize(Odd(), (1, 2, 2), engines=("eager",), remember=False)
        assert not found(torch.zeros(1, 1, 2, 2)).isfinite().any()


class TestInt8:
    def test_it_is_calibrated_on_images_and_held_to_its_bounds(self, lenet_run: Path) -> None:
        pytest.importorskip("onnxruntime")
        predictor = convatlas.load(lenet_run)
        from convatlas.data.sources import load_source

        images = predictor.transform.normalise(load_source("digits").test.images[:48])
        found = convatlas.optimize(
            predictor.network,
            images.shape[-1],
            precision="int8",
            engines=("onnxruntime",),
            calibration=images,
            remember=False,
            time_limit=PATIENCE,
        )
        tried = {result.config.precision: result for result in found.report.results}
        assert set(tried) == {"fp32", "int8"}
        assert tried["int8"].same_top >= 0.9
        assert 1e-4 < tried["int8"].error < 0.5

    def test_it_needs_images(self) -> None:
        with pytest.raises(ValueError, match=r"`calibration`=None; int8 takes its ranges from images"):
            convatlas.optimize(net(), precision="int8")

    @pytest.mark.parametrize(
        "images", [torch.zeros(4, 3, 32, 32), torch.zeros(0, 1, 32, 32), [torch.zeros(1, 28, 28)]]
    )
    def test_images_of_another_shape_are_refused(self, images: Tensor | list[Tensor]) -> None:
        with pytest.raises(ValueError, match=r"`calibration`: expected images of shape \(N, 1, 32, 32\)"):
            convatlas.optimize(net(), precision="int8", calibration=images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size`=0; expected a whole number of at least 1"),
        ({"threads": 0}, "`threads`=0; expected a whole number of at least 1"),
        ({"tolerance": -1.0}, "`tolerance`=-1.0; expected a relative error"),
        ({"agreement": 1.5}, "`agreement`=1.5; expected a share from 0 to 1"),
        ({"input_size": (1, 32)}, r"`input_size`=\(1, 32\); expected px, such as 224, or \(C, H, W\)"),
        ({"input_size": 8}, "the smallest size that works"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convatlas.optimize(net(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "unknown precision 'fp8'; nearest: fp32"),
        ({"engines": ("openvin",)}, "unknown engine 'openvin'; nearest: openvino"),
    ],
    ids=["precision", "engine"],
)
def test_unknown_names_come_with_the_nearest(options: dict[str, object], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        convatlas.optimize(net(), **options)  # type: ignore[arg-type]


def test_a_foreign_network_needs_a_size() -> None:
    with pytest.raises(ValueError, match="for a network that is not in the atlas"):
        convatlas.optimize(nn.Flatten())
