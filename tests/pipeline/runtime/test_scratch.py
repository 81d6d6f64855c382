"""A temporary array keeps what is written into it: on disk if it is large, without any file if it is small."""

import numpy as np
import pytest

from pipeline.runtime.scratch import scratch_array


@pytest.mark.parametrize(("shape", "on_disk"), [((1024, 1024), False), ((1025, 1024), True), ((1, 1), False)])
def test_regions_are_kept_and_the_rest_is_zero(tmp_path, shape, on_disk):
    array = scratch_array(tmp_path / "array", shape, "uint32", chunks=(256, 512))
    expected = np.zeros(shape, np.uint32)
    for region in ((slice(0, 300), slice(0, 1)), (slice(700, 1025), slice(100, 1024))):
        array[region] = expected[region] = 2**32 - 1
    assert array.dtype == np.uint32
    assert np.array_equal(array[:, :], expected)
    assert (tmp_path / "array").exists() == on_disk
