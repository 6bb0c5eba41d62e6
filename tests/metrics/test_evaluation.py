import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convatlas.data.crops import TestFit
from convatlas.data.image_files import ImageError
from convatlas.data.sets import ImageSet
from convatlas.metrics.classification import Evaluation
from convatlas.models.lenet import rbf_loss
from convatlas.training.distributed import Ranks
from convatlas.training.evaluation import EvalTransform, evaluate

ALONE = Ranks(torch.device("cpu"))
COUNT, CLASSES = 53, 7


def part() -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (COUNT, 3, 6, 6), dtype=torch.uint8, generator=generator)
    return ImageSet(images, torch.randint(0, CLASSES, (COUNT,), generator=generator))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.fc = nn.BatchNorm2d(3), nn.Linear(108, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(x).flatten(1))


def measure(eval_transform: EvalTransform, loss: str = "softmax", ranks: Ranks = ALONE) -> Evaluation:
    return evaluate(Net(), part(), eval_transform, num_classes=CLASSES, ranks=ranks, loss=loss)


MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def expected_logits() -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    with torch.no_grad():
        return Net().eval()((part().images / 255.0 - mean) / std)


@pytest.mark.parametrize("batch_size", [1, 10, 53, 256])
def test_all_figures(batch_size: int) -> None:
    found, logits, labels = (
        measure(EvalTransform(MEAN, STD, batch_size=batch_size)),
        expected_logits(),
        part().labels,
    )
    predicted = logits.argmax(dim=1)
    assert torch.equal(found.predicted, predicted)
    assert found.correct == int((predicted == labels).sum())
    assert found.top5 == sum(
        int(label in row.topk(5).indices) for row, label in zip(logits, labels, strict=True)
    )
    assert found.count == COUNT
    assert found.accuracy == found.correct / COUNT
    assert found.top5_accuracy == found.top5 / COUNT
    assert torch.allclose(found.losses.float(), F.cross_entropy(logits, labels, reduction="none"), atol=1e-5)
    assert found.loss == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
    counts = np.zeros((CLASSES, CLASSES), dtype=int)
    for label, prediction in zip(labels.tolist(), predicted.tolist(), strict=True):
        counts[label, prediction] += 1
    assert found.confusion.tolist() == counts.tolist()


def test_losses_are_those_of_the_recipe() -> None:
    logits, labels = expected_logits(), part().labels
    hinge = measure(EvalTransform(MEAN, STD), "hinge").loss
    right = logits.gather(1, labels[:, None])
    margins = (logits - right + 1.0).clamp(min=0.0).scatter(1, labels[:, None], 0.0)
    assert hinge == pytest.approx(float(margins.sum(dim=1).mean()), rel=1e-5)
    assert measure(EvalTransform(MEAN, STD), "rbf").loss == pytest.approx(
        float(rbf_loss(logits, labels)), rel=1e-5
    )


def test_five_classes_have_no_top_five() -> None:
    few = ImageSet(part().images, part().labels % 5)

    class Five(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[:, :5]

    found = evaluate(Five(), few, EvalTransform(MEAN, STD), num_classes=5, ranks=ALONE)
    assert found.top5 is None
    assert found.top5_accuracy is None
    assert found.confusion.shape == (5, 5)


def test_a_lower_precision_is_near() -> None:
    exact = measure(EvalTransform(MEAN, STD))
    rough = evaluate(
        Net(), part(), EvalTransform(MEAN, STD), num_classes=CLASSES, ranks=ALONE, dtype=torch.bfloat16
    )
    assert rough.losses.tolist() != exact.losses.tolist()
    assert torch.allclose(rough.losses, exact.losses, atol=0.05)


def test_images_are_brought_to_size() -> None:
    class Uneven:
        """Images of several sizes, one of which cannot be read."""

        labels = torch.arange(9) % CLASSES

        def __len__(self) -> int:
            return 9

        def name(self, index: int) -> str:
            return f"image {index}"

        def image(self, index: int) -> Tensor:
            if index == 4:
                raise ImageError("image 4: cannot be read")
            return torch.full((3, 10 + index, 12), 20 * index, dtype=torch.uint8)

    eval_transform = EvalTransform(MEAN, STD, TestFit(6), batch_size=2, on_bad_image="skip")
    found = evaluate(Net(), Uneven(), eval_transform, num_classes=CLASSES, ranks=ALONE)
    assert found.count == 8
    assert int(found.confusion.sum()) == 8
    assert found.losses[4] == 0.0
    assert found.loss == pytest.approx(float(found.losses.sum()) / 8)
    with pytest.raises(ImageError, match="image 4"):
        evaluate(Net(), Uneven(), EvalTransform(MEAN, STD, TestFit(6)), num_classes=CLASSES, ranks=ALONE)
