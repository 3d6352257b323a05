"""The eight views of a square tile are eight, and each can be undone."""

from __future__ import annotations

import torch

from tune_smp.inference.views import VIEWS, turned, turned_back


def test_eight_different_views_the_first_as_it_is() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    seen = {tuple(turned(image, view).flatten().tolist()) for view in VIEWS}
    assert len(seen) == 8
    assert torch.equal(turned(image, VIEWS[0]), image)


def test_turning_back_undoes_turning() -> None:
    image = torch.rand(2, 3, 6, 6)
    for view in VIEWS:
        assert torch.equal(turned_back(turned(image, view), view), image)
