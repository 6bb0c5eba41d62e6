import torch

from convatlas.training.sgd import sgd_step


def test_equal_to_torch() -> None:
    torch.manual_seed(0)
    start = [torch.randn(4, 3), torch.randn(5)]
    ours = [p.clone().requires_grad_() for p in start]
    theirs = [p.clone().requires_grad_() for p in start]
    velocities = [torch.zeros_like(p) for p in start]
    optimizer = torch.optim.SGD(theirs, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    for step in range(5):
        lr = 0.1 / (step + 1)
        optimizer.param_groups[0]["lr"] = lr
        for params in (ours, theirs):
            sum((p**3).sum() for p in params).backward()
        sgd_step(ours, velocities, lr=lr, momentum=0.9, weight_decay=0.01)
        optimizer.step()
        optimizer.zero_grad()
        for p, q in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)
            assert p.grad is None
