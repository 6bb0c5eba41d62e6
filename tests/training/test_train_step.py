import torch
from torch import Tensor, nn

from convatlas.data.batches import Batch
from convatlas.data.counter_random import uniform
from convatlas.training.cpu.choose import ExecutionPlan, choose_execution
from convatlas.training.distributed import Ranks
from convatlas.training.recipes.recipe import Recipe
from convatlas.training.train_step import FIRST_SCALE, GROWTH_STEPS, Learner

CPU = torch.device("cpu")
HALF = ExecutionPlan(
    channels_last=False,
    autocast=torch.float16,
    scaler=True,
    fused=False,
    native=False,
    replaced=(),
    compile=False,
    reasons=(),
)


class Scaled(nn.Module):
    """One linear layer over the pixels, times a constant."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.factor = nn.Linear(16, 3), factor

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1)) * self.factor


def make(net: nn.Module, execution: ExecutionPlan | None = None) -> Learner:
    recipe = Recipe(epochs=1, batch_size=8, lr=0.1)
    return Learner(
        net,
        recipe,
        ranks=Ranks(CPU),
        execution=execution or choose_execution(CPU, exact=True),
        seed=0,
        mean=(0.5,),
        std=(0.5,),
        num_classes=3,
        labels=torch.arange(8) % 3,
    )


def batch() -> Batch:
    images = torch.randint(
        0, 256, (8, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    return Batch(images, torch.arange(8) % 3, torch.arange(8).numpy())


def step(learner: Learner, number: int = 0) -> bool:
    learner.gradients([batch()], of=8, epoch=0, step=number)
    return learner.update(0.1, number)


def test_the_loss_is_the_sum_and_the_gradient_that_of_the_mean() -> None:
    net = Scaled()
    total, right = make(net).gradients([batch()], of=8, epoch=0, step=0)
    x = (batch().images / 255.0 - 0.5) / 0.5
    other = Scaled()
    expected = nn.functional.cross_entropy(other(x), batch().labels)
    expected.backward()
    assert torch.allclose(total, 8.0 * expected.detach(), rtol=1e-5)
    assert right == (other(x).argmax(dim=1) == batch().labels).sum()
    assert net.fc.weight.grad is not None
    assert other.fc.weight.grad is not None
    assert torch.allclose(net.fc.weight.grad, other.fc.weight.grad, atol=1e-6)


def test_scaled_half_precision_gives_the_same_step() -> None:
    exact, half = Scaled(), Scaled()
    step(make(exact))
    assert step(make(half, HALF))
    assert torch.allclose(exact.fc.weight, half.fc.weight, atol=2e-3)


def test_a_gradient_too_large_for_half_precision_halves_the_scale() -> None:
    net = Scaled(factor=1e4)
    learner, before = make(net, HALF), net.fc.weight.detach().clone()
    assert not step(learner)
    assert learner.scale == FIRST_SCALE / 2.0
    assert torch.equal(net.fc.weight, before)
    assert net.fc.weight.grad is None


def test_the_scale_grows_again_and_is_remembered() -> None:
    learner = make(Scaled(), HALF)
    learner.load_scaling({"scale": 8.0, "since_growth": GROWTH_STEPS - 1})
    assert step(learner)
    assert learner.scaling() == {"scale": 16.0, "since_growth": 0}
    other = make(Scaled(), HALF)
    other.load_scaling(learner.scaling())
    assert other.scale == 16.0


def test_without_half_precision_there_is_no_scale() -> None:
    learner = make(Scaled())
    learner.load_scaling({"scale": 8.0, "since_growth": 3})
    assert learner.scale == 1.0


def test_what_dropout_draws_is_a_function_of_the_step() -> None:
    class Dropping(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(nn.functional.dropout(x, 0.5))

    learner = make(Dropping())
    totals = [learner.gradients([batch()], of=8, epoch=0, step=number) for number in (3, 4, 3)]
    assert torch.equal(totals[0], totals[2])
    assert not torch.equal(totals[0], totals[1])
    draw = uniform(0, 3, torch.tensor([0]).numpy(), "torch", 1)[0, 0]
    learner.gradients([batch()], of=8, epoch=0, step=3)
    after = torch.rand(1)
    torch.manual_seed(int(draw * 2**53))
    torch.nn.functional.dropout(torch.ones(8, 1, 4, 4), 0.5)
    assert torch.equal(torch.rand(1), after)


def test_the_average_is_lent_and_then_left() -> None:
    learner = make(Scaled())
    assert set(learner.groups()) == {"weights", "optimiser"}
    averaging = Learner(
        Scaled(),
        Recipe(epochs=1, batch_size=8, lr=0.1, ema_decay=0.5),
        ranks=Ranks(CPU),
        execution=choose_execution(CPU, exact=True),
        seed=0,
        mean=(0.5,),
        std=(0.5,),
        num_classes=3,
        labels=torch.arange(8) % 3,
    )
    step(averaging)
    assert set(averaging.groups()) == {"weights", "optimiser", "average"}
    own = averaging.net.state_dict()["fc.weight"].clone()
    with averaging.averaged():
        assert torch.equal(
            averaging.net.state_dict()["fc.weight"], averaging.groups()["average"]["fc.weight"]
        )
    assert torch.equal(averaging.net.state_dict()["fc.weight"], own)
    averaging.settle()
    assert not torch.equal(averaging.net.state_dict()["fc.weight"], own)
