import h5py
import numpy as np
import pytest

from defocus_sim.datasets.formats.hdf5 import Frames

LAYOUTS = {
    "deflated": {"chunks": (1, 20, 30), "compression": "gzip"},
    "with a remainder": {"chunks": (1, 13, 17), "compression": "gzip"},
    "shuffled": {"chunks": (1, 20, 30), "compression": "gzip", "shuffle": True},
    "with a checksum": {"chunks": (1, 20, 30), "compression": "gzip", "fletcher32": True},
    "several frames a chunk": {"chunks": (2, 20, 30), "compression": "gzip"},
    "plain chunks": {"chunks": (1, 20, 30)},
    "contiguous": {},
    "big-endian": {"chunks": (1, 20, 30), "compression": "gzip", "dtype": ">f4"},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_frame_is_what_hdf5_reads(rng, tmp_path, layout):
    values = rng.random((3, 40, 60)).astype(np.float32)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=values, **layout)
    with h5py.File(tmp_path / "a.h5") as file:
        for frame in range(3):
            assert (Frames(file["a"]).read(frame) == values[frame]).all()


def test_a_chunk_that_was_never_written_is_filled(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("a", (2, 40, 60), "f4", chunks=(1, 20, 30), compression="gzip", fillvalue=7)
        data[0, :20] = 1
    with h5py.File(tmp_path / "a.h5") as file:
        frame = Frames(file["a"]).read(0)
    assert (frame[:20] == 1).all()
    assert (frame[20:] == 7).all()


def test_a_chunk_that_skipped_the_filter_is_read(tmp_path):
    values = np.arange(1200, dtype=np.float32).reshape(1, 30, 40)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("a", (1, 30, 40), "f4", chunks=(1, 30, 40), compression="gzip")
        data.id.write_direct_chunk((0, 0, 0), values.tobytes(), filter_mask=1)
    with h5py.File(tmp_path / "a.h5") as file:
        assert (Frames(file["a"]).read(0) == values[0]).all()


@pytest.mark.parametrize("where", [0.1, 0.5, 0.999])
def test_a_flipped_bit_is_an_error(rng, tmp_path, where):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("a", data=rng.random((1, 40, 60)), chunks=(1, 40, 60), compression="gzip")
        place = data.id.get_chunk_info(0)
    content = bytearray((tmp_path / "a.h5").read_bytes())
    content[place.byte_offset + int(where * place.size)] ^= 4
    (tmp_path / "a.h5").write_bytes(content)
    with h5py.File(tmp_path / "a.h5") as file, pytest.raises((OSError, RuntimeError)):
        Frames(file["a"]).read(0)
