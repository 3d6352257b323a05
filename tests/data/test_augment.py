from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tune_smp.choices.augmentations import AUGMENTATIONS, Augmentation
from tune_smp.data.augment import Augmenter

NOTHING = Augmentation("nothing", "")
DIHEDRAL = [(turns, flip) for turns in range(4) for flip in (False, True)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(samples: int, size: int = 48, channels: int = 1) -> tuple[Tensor, Tensor]:
    """Masks of smooth random blobs of classes 0, 1, 2 and IGNORE, and images that are the masks' own values."""
    rough = torch.rand(samples, 1, 6, 6, generator=generator(1))
    smooth = torch.nn.functional.interpolate(rough, size=(size, size), mode="bicubic")
    classes = torch.bucketize(smooth, torch.tensor([0.3, 0.55, 0.8]))
    masks = torch.tensor([0, 1, 2, 255], dtype=torch.uint8)[classes]
    return masks.float().repeat(1, channels, 1, 1), masks


def variants(tensor: Tensor) -> dict[tuple[int, bool], Tensor]:
    """The eight flips and quarter turns of one sample (C, H, H)."""
    return {
        (turns, flip): torch.rot90(tensor.flip(-1) if flip else tensor, turns, (-2, -1)) for turns, flip in DIHEDRAL
    }


def orientations(augmentation: Augmentation, samples: int = 256) -> Counter[tuple[int, bool]]:
    """Which of the eight each sample got; fails unless image and mask got the same one."""
    images, masks = torch.rand(samples, 2, 5, 5), torch.randint(0, 256, (samples, 1, 5, 5), dtype=torch.uint8)
    moved_images, moved_masks = Augmenter(augmentation)(images, masks, generator())
    found: Counter[tuple[int, bool]] = Counter()
    for index in range(samples):
        same = [key for key, variant in variants(images[index]).items() if torch.equal(variant, moved_images[index])]
        assert len(same) == 1
        assert torch.equal(variants(masks[index])[same[0]], moved_masks[index])
        found[same[0]] += 1
    return found


def test_no_strength_returns_the_inputs_themselves() -> None:
    images, masks = blobs(2)
    assert Augmenter(AUGMENTATIONS["none"])(images, masks, generator()) == (images, masks)


def test_flips_are_exact_and_leave_out_turns() -> None:
    assert set(orientations(replace(NOTHING, flip=True))) == {(0, False), (0, True), (2, False), (2, True)}


def test_quarter_turns_are_exact_and_never_mirror() -> None:
    assert set(orientations(replace(NOTHING, quarter_turns=True))) == {(turns, False) for turns in range(4)}


def test_flips_and_turns_together_are_equally_likely() -> None:
    found = orientations(AUGMENTATIONS["light"], samples=800)
    assert set(found) == set(DIHEDRAL)
    assert min(found.values()) > 60  # 100 expected, 60 is four standard deviations off


def test_the_warp_turns_and_flips_as_the_exact_way_does() -> None:
    images, masks = blobs(64, channels=2)
    exact, warped = AUGMENTATIONS["light"], replace(AUGMENTATIONS["light"], rotate_degrees=1e-5)
    exact_images, exact_masks = Augmenter(exact)(images, masks, generator(3))
    warped_images, warped_masks = Augmenter(warped)(images, masks, generator(3))
    torch.testing.assert_close(warped_images, exact_images, atol=0.02, rtol=0)  # values go up to 255
    assert torch.equal(warped_masks, exact_masks)


@pytest.mark.parametrize("name", ["light", "medium", "strong"])
def test_image_and_mask_move_together_and_mask_values_are_never_mixed(name: str) -> None:
    images, masks = blobs(32, size=128)
    only_geometry = replace(AUGMENTATIONS[name], brightness=0, contrast=0, gamma=0, noise=0)
    moved_images, moved_masks = Augmenter(only_geometry)(images, masks, generator())
    assert set(moved_masks.flatten().tolist()) == {0, 1, 2, 255}
    # Bilinear between unlike neighbours gives something else; inside of a blob both must agree.
    highest = torch.nn.functional.max_pool2d(moved_images, 3, 1, 1)
    lowest = -torch.nn.functional.max_pool2d(-moved_images, 3, 1, 1)
    inside = highest - lowest < 1e-3
    assert inside.float().mean() > 0.5
    assert torch.equal(moved_images[inside].round(), moved_masks[inside].float())
    assert not torch.equal(moved_masks, masks)


def test_scale_enlarges_by_its_ratio_and_half_the_samples_only() -> None:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc = ((y - 31.5) ** 2 + (x - 31.5) ** 2 < 15**2).to(torch.uint8).expand(200, 1, 64, 64)
    _, moved = Augmenter(replace(NOTHING, scale=(1.5, 1.5)))(disc.float(), disc, generator())
    ratios = moved.sum(dim=(1, 2, 3)) / disc.sum(dim=(1, 2, 3))
    enlarged = ratios > 1.5
    torch.testing.assert_close(ratios[enlarged], torch.full_like(ratios[enlarged], 1.5**2), rtol=0.03, atol=0)
    torch.testing.assert_close(ratios[~enlarged], torch.ones_like(ratios[~enlarged]))
    assert 70 < int(enlarged.sum()) < 130


def test_rotation_stays_within_its_angle_both_ways() -> None:
    bar = torch.zeros(200, 1, 65, 65, dtype=torch.uint8)
    bar[:, :, 31:34, 33:] = 1  # from the middle to the right
    _, moved = Augmenter(replace(NOTHING, rotate_degrees=30.0))(bar.float(), bar, generator())
    place = torch.arange(65) - 32.0
    mean_y = (moved.float().sum(dim=3).squeeze(1) * place).sum(dim=1)
    mean_x = (moved.float().sum(dim=2).squeeze(1) * place).sum(dim=1)
    angles = torch.rad2deg(torch.atan2(mean_y, mean_x))
    assert angles.min() < -20
    assert angles.max() > 20
    assert angles.abs().max() < 33  # reflection at the border adds a little


def test_shear_moves_rows_against_each_other_and_keeps_the_middle_one() -> None:
    column = torch.zeros(64, 1, 65, 65, dtype=torch.uint8)
    column[:, :, :, 32] = 1
    _, moved = Augmenter(replace(NOTHING, shear_degrees=30.0))(column.float(), column, generator())
    assert torch.equal(moved[:, :, 32], column[:, :, 32])
    assert not torch.equal(moved[:, :, 10], column[:, :, 10])


def test_tiles_that_are_not_square_are_only_flipped_and_warped_without_distortion() -> None:
    images = torch.rand(64, 1, 8, 12)
    masks = (images * 255).to(torch.uint8)
    moved, _ = Augmenter(AUGMENTATIONS["light"])(images, masks, generator())
    assert moved.shape == images.shape
    for image, result in zip(images, moved, strict=True):
        assert any(torch.equal(image.flip(axes), result) for axes in ([], [1], [2], [1, 2]))
    y, x = torch.meshgrid(torch.arange(40), torch.arange(80), indexing="ij")
    disc = ((y - 19.5) ** 2 + (x - 39.5) ** 2 < 12**2).to(torch.uint8).expand(32, 1, 40, 80)
    _, turned = Augmenter(replace(NOTHING, rotate_degrees=45.0))(disc.float(), disc, generator())
    assert (turned != disc).float().mean() < 0.01  # a disc stays a disc


@pytest.mark.parametrize("channels", [1, 2, 3, 7])
@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_every_strength_takes_any_number_of_channels_and_leaves_the_inputs_alone(name: str, channels: int) -> None:
    images, masks = torch.randn(4, channels, 32, 32), torch.randint(0, 3, (4, 2, 32, 32), dtype=torch.uint8)
    before = images.clone(), masks.clone()
    results = [Augmenter(AUGMENTATIONS[name])(images, masks, generator(5)) for _ in range(2)]
    assert torch.equal(images, before[0]) and torch.equal(masks, before[1])
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    assert (results[0][0].shape, results[0][0].dtype) == (images.shape, torch.float32)
    assert (results[0][1].shape, results[0][1].dtype) == (masks.shape, torch.uint8)
    assert results[0][0].isfinite().all()


def test_another_state_of_the_generator_gives_another_result() -> None:
    images, masks = blobs(4)
    augmenter, shared = Augmenter(AUGMENTATIONS["medium"]), generator()
    first, second = augmenter(images, masks, shared), augmenter(images, masks, shared)
    assert not torch.equal(first[0], second[0])


def test_brightness_shifts_by_at_most_its_share_of_the_deviation() -> None:
    images = torch.randn(100, 3, 16, 16) * 5 + 20
    moved, _ = Augmenter(replace(NOTHING, brightness=0.3))(images, images.to(torch.uint8), generator())
    shifts = ((moved - images) / images.std(dim=(2, 3), keepdim=True, correction=0)).flatten(1)
    assert (shifts.amax(dim=1) - shifts.amin(dim=1)).max() < 1e-4  # the same all over the sample
    assert shifts.min() < -0.2 and shifts.max() > 0.2
    assert shifts.abs().max() <= 0.3 + 1e-5


def test_contrast_stretches_about_the_mean() -> None:
    images = torch.randn(100, 2, 16, 16) * 5 - 20
    moved, _ = Augmenter(replace(NOTHING, contrast=0.4))(images, images.to(torch.uint8), generator())
    torch.testing.assert_close(moved.mean(dim=(2, 3)), images.mean(dim=(2, 3)))
    factors = moved.std(dim=(2, 3)) / images.std(dim=(2, 3))
    assert factors.min() < 0.8 and factors.max() > 1.2
    assert factors.min() >= 0.6 - 1e-4 and factors.max() <= 1.4 + 1e-4


def test_gamma_bends_within_the_range_of_the_tile_whatever_its_sign() -> None:
    images = torch.randn(100, 2, 16, 16) - 5
    moved, _ = Augmenter(replace(NOTHING, gamma=0.5))(images, images.to(torch.uint8), generator())
    torch.testing.assert_close(moved.amin(dim=(2, 3)), images.amin(dim=(2, 3)))
    torch.testing.assert_close(moved.amax(dim=(2, 3)), images.amax(dim=(2, 3)))
    order = images.flatten(2).argsort(dim=2)
    assert (moved.flatten(2).gather(2, order).diff(dim=2) >= -1e-5).all()
    darker = (moved.mean(dim=(1, 2, 3)) < images.mean(dim=(1, 2, 3))).sum()
    assert 25 < int(darker) < 75


def test_noise_is_of_at_most_its_share_of_the_deviation() -> None:
    images = torch.randn(100, 1, 32, 32) * 7
    moved, _ = Augmenter(replace(NOTHING, noise=0.2))(images, images.to(torch.uint8), generator())
    shares = (moved - images).std(dim=(1, 2, 3)) / images.std(dim=(1, 2, 3))
    assert shares.min() < 0.02 and 0.18 < shares.max() < 0.22
    assert (moved - images).mean().abs() < 0.05


def test_constant_tiles_stay_as_they_are() -> None:
    images = torch.full((8, 2, 16, 16), -3.0)
    moved, _ = Augmenter(AUGMENTATIONS["strong"])(images, torch.zeros(8, 1, 16, 16, dtype=torch.uint8), generator())
    torch.testing.assert_close(moved, images)


@pytest.mark.gpu
def test_the_device_changes_neither_geometry_nor_colour() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images, masks = blobs(16, channels=2)
    quiet = replace(AUGMENTATIONS["medium"], noise=0.0)  # noise is drawn on the device
    here = Augmenter(quiet)(images, masks, generator())
    there = Augmenter(quiet)(images.cuda(), masks.cuda(), generator())
    assert there[0].is_cuda and there[1].is_cuda
    torch.testing.assert_close(there[0].cpu(), here[0], atol=0.05, rtol=1e-3)
    assert (there[1].cpu() != here[1]).float().mean() < 1e-3
