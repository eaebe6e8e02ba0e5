"""Functions that take the place of a module's `forward` in tests. PyTorch reads their source."""

import torch


def answer_is_x(self, x):
    return {"y": x * 1}


def gives_two(self, x):
    return x + x, x * 3


def weighs(self, x):
    return {"y": torch.nn.functional.linear(x, self.weight)}


def changes_its_input(self, x):
    return {"y": x.add_(1)}


def reckons(self, x):
    """Splits, concatenates, reshapes by reckoned sizes, and answers with a list of several dtypes."""
    rows, columns = x.shape
    first = x[:, : columns // 2]
    joined = torch.cat([first, x * 2], dim=1).reshape(rows * (columns + columns // 2), 1)
    best, places = torch.topk(x, 2, dim=1)
    grid = torch.arange(columns, device=x.device).to(torch.float32) + torch.zeros(rows, 1)
    return {"rows": joined, "best": torch.softmax(best.double(), 1) + grid[:, :2], "places": places}


def branching(self, x):
    if bool(x.sum() > 0):
        return {"y": x * 2}
    return {"y": x * 0}


def loops(self, x):
    while bool((x >= -1.0).any()):
        x = x + 1
    return {"y": x}


def keeps_count(self, x):
    self.count.add_(1)
    return {"y": x + self.count}


def keeps_count_through_a_view(self, x):
    self.count.view(1, 1)[0].mul_(2)
    return {"y": x * 1}


def writes_into_its_own(self, x):
    y = x * 1
    y[:, 0].add_(1)
    return {"y": y}


def gives_a_number(self, x):
    return x * 2, 7


def reads_a_file(self, x):
    return {"y": torch.from_file("/etc/hostname", False, 1, dtype=torch.float32)}


def writes_a_file(self, x):
    torch.save(x, "/nowhere/at-all")
    return {"y": x}
