"""No file makes a reader take memory that it cannot fill, wait for ever, or bring in another file's bytes."""

import os
import resource
import struct
import zipfile
import zlib

import faults
import h5py
import numpy as np
import pytest

from defocus_sim.datasets.formats.images import colour_size, depth_header, read_colour, read_depth_units
from defocus_sim.datasets.formats.matfile import read_matrix
from defocus_sim.datasets.nyu import NyuSource
from defocus_sim.errors import SourceError


@pytest.fixture(autouse=True)
def little_memory():
    """No test of this file may take 300 MB more than before."""
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 300 * 1024


def png(width, height):
    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")


def tiff(**tags):
    numbers = {"width": 256, "height": 257, "bits": 258, "samples": 277, "tile_width": 322, "tile_height": 323}
    entries = sorted((numbers[name], value) for name, value in tags.items())
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + bytes(4)


PICTURES = {
    "wide.png": png(60_000, 60_000),
    "dense.png": png(12_000, 11_000),
    "wide.tif": tiff(width=40_000, height=40_000),
    "deep.tif": tiff(width=4000, height=4000, bits=16, samples=60),
    "tile.tif": tiff(width=64, height=64, tile_width=60_000, tile_height=60_000),
    "channels.tif": tiff(width=64, height=64, samples=65_535),
    "wide.pfm": b"Pf\n30000 30000\n-1.0\n" + bytes(64),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_that_declares_more_than_it_holds_is_refused_by_its_header(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(PICTURES[name])
    for read in (read_colour, read_depth_units):
        with pytest.raises(SourceError, match=name):
            read(path)


def test_numpy_files_that_declare_more_than_they_hold_are_refused(tmp_path):
    array = tmp_path / "a.npy"
    np.save(array, np.zeros((4, 4)))
    array.write_bytes(array.read_bytes().replace(b"(4, 4)", b"(70000, 70000)").ljust(300, b"\0"))
    packed = tmp_path / "a.npz"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("depth.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f8", "fortran_order": False, "shape": (16_384, 16_384)}
        )
        for _ in range(64):
            stream.write(bytes(2**22))
    for path in (array, packed):
        for read in (read_depth_units, depth_header):
            with pytest.raises(SourceError, match=path.name):
                read(path)


def test_a_matlab_file_of_a_megabyte_does_not_become_a_gigabyte(tmp_path):
    path = tmp_path / "a.mat"
    packer = zlib.compressobj(9)
    body = b"".join([*(packer.compress(bytes(2**22)) for _ in range(250)), packer.flush()])
    path.write_bytes(b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + struct.pack("<II", 15, len(body)) + body)
    with pytest.raises(SourceError, match=r"a\.mat.*exceeds"):
        read_matrix(path, "x")


@pytest.mark.parametrize("read", [read_colour, read_depth_units, colour_size, depth_header])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy", ".npz", ".exr", ".pfm"])
def test_a_pipe_is_refused_and_not_waited_for(read, suffix, tmp_path):
    path = tmp_path / f"pipe{suffix}"
    os.mkfifo(path)
    with pytest.raises(SourceError, match="not a file"):
        read(path)


SECRET = b"root:x:0:0:" * 200_000


def with_external(path, tmp_path):
    (tmp_path / "secret").write_bytes(SECRET)
    with h5py.File(path, "r+") as file:
        shape, dtype = file["images"].shape, file["images"].dtype
        del file["images"]
        file.create_dataset("images", shape, dtype, external=[(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)])


def with_virtual(path, tmp_path):
    other = faults.write_nyu(tmp_path / "other.mat", frames=2)
    with h5py.File(path, "r+") as file:
        shape, dtype = file["images"].shape, file["images"].dtype
        del file["images"]
        layout = h5py.VirtualLayout(shape, dtype)
        layout[:] = h5py.VirtualSource(str(other), "images", shape=shape)
        file.create_virtual_dataset("images", layout)


def with_link(path, tmp_path):
    # Opening it would wait for ever.
    os.mkfifo(tmp_path / "pipe")
    with h5py.File(path, "r+") as file:
        del file["images"]
        file["images"] = h5py.ExternalLink(str(tmp_path / "pipe"), "images")


def with_soft_link(path, tmp_path):
    other = faults.write_nyu(tmp_path / "other.mat", frames=2)
    with h5py.File(path, "r+") as file:
        del file["images"]
        file["else"] = h5py.ExternalLink(str(other), "/")
        file["images"] = h5py.SoftLink("/else/images")


def with_a_million_frames(path, tmp_path):
    with h5py.File(path, "r+") as file:
        for name in ("images", "depths", "rawDepths"):
            shape, dtype = file[name].shape, file[name].dtype
            del file[name]
            file.create_dataset(name, (10**6, *shape[1:]), dtype, chunks=(1, *shape[1:]), compression="gzip")


def with_a_long_name(path, tmp_path):
    with h5py.File(path, "r+") as file:
        file["#refs#"].create_dataset("long", (10**9, 1), np.uint16, chunks=(2**16, 1), compression="gzip")
        file["scenes"][0, 0] = file["#refs#/long"].ref


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (with_external, "external files"),
        (with_virtual, "virtual"),
        (with_link, "link"),
        (with_soft_link, "link"),
        (with_a_million_frames, "1000000 frames"),
        (with_a_long_name, "letters"),
    ],
)
def test_a_labelled_set_that_leads_elsewhere_or_declares_too_much_is_refused(change, word, tmp_path):
    path = faults.write_nyu(tmp_path / "labelled.mat", frames=2)
    change(path, tmp_path)
    with pytest.raises(SourceError, match=rf"labelled\.mat.*{word}"):
        NyuSource(path=path, splits=None).samples()
