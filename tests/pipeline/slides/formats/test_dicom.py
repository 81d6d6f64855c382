"""A folder of DICOM files is one slide; formats that are not read are refused by name."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, VLWholeSlideMicroscopyImageStorage, generate_uid

from pipeline.base.errors import SlideError
from pipeline.project.drop.image_files import find_images, list_images
from pipeline.project.drop.unused_files import unused_files
from pipeline.settings.schema import ImageConfig, Settings
from pipeline.slides.slide import open_slide

TILE_PX = 64
COLOURS = ImageConfig(channels=[0, 1, 2])


def write_level(path, pixels, *, series, pixel_um, kind=("ORIGINAL", "PRIMARY", "VOLUME", "NONE")):
    """Write a level of a slide, tiles one after the other, as the DICOM standard says in PS3.3, A.32.8."""
    rows, columns, _ = pixels.shape
    tall, wide = -(-rows // TILE_PX), -(-columns // TILE_PX)
    padded = np.zeros((tall * TILE_PX, wide * TILE_PX, 3), np.uint8)
    padded[:rows, :columns] = pixels
    tiles = padded.reshape(tall, TILE_PX, wide, TILE_PX, 3).transpose(0, 2, 1, 3, 4)
    level = Dataset()
    level.file_meta = FileMetaDataset()
    level.file_meta.MediaStorageSOPClassUID = level.SOPClassUID = VLWholeSlideMicroscopyImageStorage
    level.file_meta.MediaStorageSOPInstanceUID = level.SOPInstanceUID = generate_uid()
    level.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    level.ImageType, level.SeriesInstanceUID, level.DimensionOrganizationType = list(kind), series, "TILED_FULL"
    level.SamplesPerPixel, level.PhotometricInterpretation, level.PlanarConfiguration = 3, "RGB", 0
    level.BitsAllocated, level.BitsStored, level.HighBit, level.PixelRepresentation = 8, 8, 7, 0
    level.NumberOfFrames, level.Rows, level.Columns = tall * wide, TILE_PX, TILE_PX
    level.TotalPixelMatrixRows, level.TotalPixelMatrixColumns, level.TotalPixelMatrixFocalPlanes = rows, columns, 1
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [pixel_um / 1000, pixel_um / 1000]  # mm
    shared.PixelMeasuresSequence = pydicom.Sequence([measures])
    level.SharedFunctionalGroupsSequence = pydicom.Sequence([shared])
    level.PixelData = tiles.tobytes()
    level.save_as(path, enforce_file_format=True)


def write_slide(folder, pixels, prefix=""):
    """Write a slide of two levels; the coarse one is the first by name."""
    folder.mkdir(parents=True, exist_ok=True)
    series = generate_uid()
    derived = ("DERIVED", "PRIMARY", "VOLUME", "RESAMPLED")
    write_level(folder / f"{prefix}a.dcm", pixels[::2, ::2], series=series, pixel_um=1.0, kind=derived)
    write_level(folder / f"{prefix}b.dcm", pixels, series=series, pixel_um=0.5)


@pytest.fixture
def pixels(generator):
    return generator.integers(0, 255, (150, 200, 3), dtype=np.uint8)


def test_a_folder_is_a_slide_with_its_levels_and_pixel_size(tmp_path, pixels):
    write_slide(tmp_path / "plate" / "a.1", pixels)
    found = find_images(tmp_path)
    assert found == {"plate/a.1": tmp_path / "plate" / "a.1"}
    with open_slide(found["plate/a.1"], memory_mb=100, view=COLOURS) as slide:
        assert slide.pixel_size_um == pytest.approx((0.5, 0.5))
        np.testing.assert_array_equal(slide.read_all().transpose(1, 2, 0), pixels)
        np.testing.assert_array_equal(slide.read_all(1).transpose(1, 2, 0), pixels[::2, ::2])


def test_several_slides_in_a_folder_are_refused(tmp_path, pixels):
    for name in ("x", "y"):
        write_slide(tmp_path / "a", pixels, name)
    with (
        pytest.raises(SlideError, match=r"its files are of 2 slides \(xa.dcm, ya.dcm\); give each slide a folder"),
        open_slide(tmp_path / "a", memory_mb=100, view=COLOURS),
    ):
        pass


def test_a_damaged_folder_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 100)
    with pytest.raises(SlideError, match=f"{tmp_path}/a: "), open_slide(tmp_path / "a", memory_mb=100):
        pass


@pytest.mark.usefixtures("in_folder")
def test_what_is_not_read_is_refused_by_name(pixels):
    slides = Path("data/slides")
    write_slide(slides / "good", pixels)
    (slides / "alone.dcm").write_bytes((slides / "good" / "a.dcm").read_bytes())
    for name in ("a.vsi", "b.isyntax"):
        (slides / name).write_bytes(b"x")
    found, refused = list_images(slides, follow_links=False)
    assert list(found) == ["good"]
    reasons = {name: reason for name, (_, reason) in refused.items()}
    assert reasons["a"].startswith("data/slides/a.vsi: Olympus VSI is not read; convert it to OME-TIFF with QuPath")
    assert reasons["b"].startswith("data/slides/b.isyntax: Philips iSyntax is not read; convert it")
    assert reasons["alone"].endswith("put those of each slide into a folder of their own")
    assert list(unused_files(Settings(), {}, [])) == []
