import sys

import pytest

from convatlas.cli import main
from convatlas.training.recipes.find import recipe_names, recipe_text


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["convatlas", "recipe", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    shown = capsys.readouterr()
    return int(end.value.code or 0), shown.out, shown.err


def test_list(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, shown, _ = run(capsys, monkeypatch, "list")
    lines = shown.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines[1:]] == recipe_names()
    cifar = next(line for line in lines if line.startswith("resnet_cifar "))
    assert cifar.split()[1:4] == ["164", "128", "sgd"]
    assert cifar.endswith('He et al. 2015, "Deep Residual Learning", Section 4.2: CIFAR-10.')


@pytest.mark.parametrize("name", ["resnet_cifar", "resnet20_cifar"], ids=["recipe", "network"])
def test_show(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, shown, _ = run(capsys, monkeypatch, "show", name)
    assert code == 0
    assert shown == recipe_text("resnet_cifar")
    assert "[schedule] # 32k and 48k of 64k steps" in shown


def test_show_an_unknown_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, error = run(capsys, monkeypatch, "show", "resnet_cifa")
    assert code == 2
    assert error.startswith("convatlas: unknown recipe 'resnet_cifa'; nearest: resnet_cifar, ")
