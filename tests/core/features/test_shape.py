"""Shape features compared with scikit-image and closed forms for balls and cuboids."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.measure import perimeter_crofton, regionprops
from skimage.morphology import convex_hull_image

from svetlana_jupyter.core.features.region import ObjectStack
from svetlana_jupyter.core.features.shape import boundary_length, convex_hull_sizes, shape_features
from tests.core.features.stacks import ball, objects, solid

STEPS = [(1.0, 1.0), (1.0, 2.5), (1.0, 1.0, 1.0), (3.0, 1.0, 1.2)]


@pytest.mark.parametrize("step", STEPS)
def test_sizes_and_axes_agree_with_scikit_image_in_physical_units(step):
    region = objects((14, 24, 26)[-len(step) :], step=step)
    features = shape_features(region)
    for number, own in enumerate(region.own):
        (reference,) = regionprops(own.astype(int), spacing=step)
        assert features["area" if len(step) == 2 else "volume"][number] == pytest.approx(reference.area)
        assert features["equivalent_diameter"][number] == pytest.approx(reference.equivalent_diameter_area)
        # scikit-image treats pixels as points, this package as cuboids.
        brick = [4 * (len(step) + 2) * side**2 / 12 for side in step]
        moments = np.array(reference.inertia_tensor)
        spread = np.eye(len(step)) * np.trace(moments) / max(1, len(step) - 1) - moments
        axes = np.sqrt(np.linalg.eigvalsh(4 * (len(step) + 2) * spread + np.diag(brick)))[::-1]
        assert features["axis_major"][number] == pytest.approx(axes[0])
        assert features["axis_minor"][number] == pytest.approx(axes[-1])
        if len(step) == 3:
            assert features["axis_middle"][number] == pytest.approx(axes[1])
        elif step[0] == step[1]:
            assert features["axis_major"][number] ** 2 - 16 / 12 == pytest.approx(reference.axis_major_length**2)
            assert features["eccentricity"][number] == pytest.approx(reference.eccentricity, abs=0.02)


def test_the_perimeter_agrees_with_scikit_image():
    region = objects((24, 26))
    expected = [perimeter_crofton(np.pad(own, 2), directions=4) for own in region.own]
    np.testing.assert_allclose(boundary_length(region), expected, rtol=1e-9)


@pytest.mark.parametrize("step", STEPS)
def test_a_ball_has_the_boundary_and_shape_of_a_ball(step):
    features = {name: values[0] for name, values in shape_features(ball(12.0, len(step), step)).items()}
    length = 2 * math.pi * 12 if len(step) == 2 else 4 * math.pi * 144
    assert features["perimeter" if len(step) == 2 else "surface"] == pytest.approx(length, rel=0.03)
    assert features["form_factor" if len(step) == 2 else "sphericity"] == pytest.approx(1, abs=0.06)
    assert features["equivalent_diameter"] == pytest.approx(24, rel=0.02)
    assert features["axis_major"] == pytest.approx(24, rel=0.03) == features["axis_minor"]
    assert features["elongation"] == pytest.approx(0, abs=0.03)
    assert features["solidity"] == 1
    assert features["radius_variation"] == pytest.approx(math.sqrt(1 / 8) if len(step) == 2 else 0.258, abs=0.02)


@pytest.mark.parametrize("turned", [0, 15, 30, 45, 70])
def test_the_perimeter_of_a_square_hardly_depends_on_its_rotation(turned):
    rows, columns = np.mgrid[-30:31, -30:31]
    angle = math.radians(turned)
    along = rows * math.cos(angle) + columns * math.sin(angle)
    across = columns * math.cos(angle) - rows * math.sin(angle)
    own = (np.abs(along) <= 15) & (np.abs(across) <= 15)
    assert boundary_length(ObjectStack(own[None], (1.0, 1.0)))[0] == pytest.approx(4 * 30, rel=0.07)


@pytest.mark.parametrize("sides", [(14, 16), (5, 40), (9, 14, 16), (4, 20, 7)])
def test_the_convex_hull_agrees_with_scikit_image(sides):
    own = objects(sides, count=12).own
    expected = [convex_hull_image(own_mask, offset_coordinates=False).sum() for own_mask in own]
    np.testing.assert_array_equal(convex_hull_sizes(own), expected)


@pytest.mark.parametrize(
    ("points", "count"), [([(0, 0, 0), (1, 1, 1), (4, 4, 4)], 5), ([(0, 0, 0), (1, 1, 2), (2, 2, 4), (2, 0, 2)], 6)]
)
def test_oblique_lines_and_planes_have_hulls(points, count):
    own = np.zeros((1, 5, 5, 5), bool)
    own[0][tuple(np.transpose(points))] = True
    assert convex_hull_sizes(own)[0] == count


@pytest.mark.parametrize("sides", [(1, 1), (1, 9), (7, 1), (1, 1, 1), (1, 5, 6), (4, 1, 1)])
def test_flat_objects_and_single_pixels_have_finite_shapes_and_full_hulls(sides):
    features = shape_features(solid(*sides))
    assert features["solidity"][0] == pytest.approx(1)
    for name, values in features.items():
        if name == "radius_variation" and math.prod(sides) == 1:
            assert np.isnan(values[0])
        else:
            assert np.isfinite(values[0]), name


def test_a_cuboid_has_the_axes_of_a_cuboid():
    features = shape_features(solid(3, 6, 12))
    axes = [features[name][0] for name in ("axis_minor", "axis_middle", "axis_major")]
    np.testing.assert_allclose(axes, [2 * math.sqrt(5 / 12) * side for side in (3, 6, 12)])
    assert features["elongation"][0] == pytest.approx(1 - 3 / 12)
    assert features["flatness"][0] == pytest.approx(1 - 3 / 6)


def test_shape_does_not_depend_on_other_objects_of_the_stack():
    region = objects((14, 24, 26))
    whole = shape_features(region)
    for number in range(len(region)):
        alone = shape_features(ObjectStack(region.own[number : number + 1], region.step))
        for name, values in alone.items():
            assert whole[name][number] == pytest.approx(values[0], nan_ok=True), name
