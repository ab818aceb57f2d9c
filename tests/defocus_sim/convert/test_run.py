import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import faults
import numpy as np
import pytest
from sources import SmoothSource, small_settings

from defocus_sim import Lens, defocus
from defocus_sim.blur.options import Rendering
from defocus_sim.convert.plan import plan_samples
from defocus_sim.convert.run import convert
from defocus_sim.datasets.base import SampleRef
from defocus_sim.datasets.nyu import NyuSource
from defocus_sim.errors import ConversionInterruptedError, ConvertError, SourceError
from defocus_sim.lens import coc_diameter_px
from defocus_sim.shards.store import open_store


def test_triples_are_the_source_and_its_defocus(small_store):
    config = small_settings()
    with config.source.open() as reader:
        for name in ("train", "test"):
            split = small_store.split(name)
            batch = split.read(range(len(split)))
            wanted = [i for i, ref in enumerate(config.source.samples()) if ref.split == name]
            assert len(split) == len(wanted)
            for row, index in enumerate(wanted):
                frame = reader.read(index)
                assert (batch["aif"][row] == frame.aif).all()
                assert (batch["depth_m"][row] == frame.depth_m).all()
                assert (batch["defocused"][row] == defocus(frame.aif, frame.depth_m, config.lens)).all()


def test_statistics_are_those_of_the_stored_samples(small_store):
    squared = []
    for name in small_store.split_names:
        batch = small_store.split(name).read(range(len(small_store.split(name))))
        difference = batch["defocused"].astype(float) - batch["aif"]
        squared += (difference**2).mean((1, 2, 3)).tolist()
    facts = small_store.manifest.statistics
    assert facts["samples"] == 10
    assert facts["psnr_db"] == pytest.approx(np.mean(10 * np.log10(255**2 / np.array(squared))), abs=1e-9)
    depths = [
        depth[depth > 0]
        for name in small_store.split_names
        for depth in small_store.split(name).read(range(len(small_store.split(name))), ("depth_m",))["depth_m"]
    ]
    coc = coc_diameter_px(np.concatenate(depths), small_settings().lens, width_px=48)
    np.testing.assert_allclose(facts["coc_px"], [coc.min(), coc.max()], rtol=1e-6)


@pytest.mark.parametrize("workers", [1, 3])
def test_bytes_do_not_depend_on_the_number_of_workers(small_store, tmp_path, workers):
    convert(small_settings(), tmp_path / "a.zarr", workers=workers)
    assert faults.tree_bytes(tmp_path / "a.zarr") == faults.tree_bytes(small_store.url)


def test_nothing_but_the_store_is_left(tmp_path):
    convert(small_settings(), tmp_path / "a.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
    assert {path.name for path in (tmp_path / "a.zarr").iterdir()} == {"zarr.json", "train", "test"}


def test_progress_counts_every_sample(tmp_path):
    calls = []
    convert(small_settings(), tmp_path / "a.zarr", on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 10) for i in range(11)]


def test_resizing_comes_after_the_blur(tmp_path):
    import cv2

    store = convert(small_settings(size_hw=(20, 24)), tmp_path / "a.zarr").store
    config = small_settings()
    with config.source.open() as reader:
        frame = reader.read([r.split for r in config.source.samples()].index("train"))
    blurred = defocus(frame.aif, frame.depth_m, config.lens)
    sample = store.split("train").read([0])
    assert (sample["defocused"][0] == cv2.resize(blurred, (24, 20), interpolation=cv2.INTER_AREA)).all()
    assert np.isin(sample["depth_m"][0], frame.depth_m).all()


def test_a_focal_stack_keeps_each_scene_in_one_split(tmp_path):
    config = small_settings(focus_distances_m=(1.0, 2.0, 4.0))
    store = convert(config, tmp_path / "a.zarr").store
    train, test = store.split("train"), store.split("test")
    assert len(train) == 18
    assert not set(train.scenes) & set(test.scenes)
    assert train.names[1] == train.names[0].replace("@1m", "@2m")
    assert train.focus_distance_m[:3].tolist() == [1.0, 2.0, 4.0]
    batch = train.read([0, 1, 2])
    assert (batch["aif"][0] == batch["aif"][2]).all()
    for row, focus_m in enumerate((1.0, 2.0, 4.0)):
        lens = config.lens.at_focus(focus_m)
        assert (batch["defocused"][row] == defocus(batch["aif"][row], batch["depth_m"][row], lens)).all()


def test_a_solved_aperture_is_stored_with_each_sample(tmp_path):
    store = convert(small_settings(lens=Lens.preset("syndof")), tmp_path / "a.zarr").store
    apertures = store.split("train").aperture_mm
    assert len(set(apertures)) == len(apertures)
    assert np.abs(store.manifest.statistics["coc_px"]).max() == pytest.approx(29)


def test_noise_is_seeded_per_sample(tmp_path):
    from defocus_sim import SensorNoise

    noisy = small_settings(rendering=Rendering(noise=SensorNoise(read=0.02)), focus_distances_m=(2.0, 2.0001))
    store = convert(noisy, tmp_path / "a.zarr").store
    first, second = store.split("train").read([0, 1])["defocused"].astype(int)
    assert np.abs(first - second).mean() > 1


def interrupt_after(samples):
    def on_progress(done, total):
        if done == samples:
            os.kill(os.getpid(), signal.SIGINT)

    return on_progress


def test_an_interrupted_conversion_resumes_to_the_same_bytes(small_store, tmp_path):
    out = tmp_path / "a.zarr"
    with pytest.raises(ConversionInterruptedError, match=r"of 5 shards are kept, continue with --resume"):
        convert(small_settings(), out, workers=1, on_progress=interrupt_after(5))
    assert not out.exists()
    with pytest.raises(ConvertError, match="--resume"):
        convert(small_settings(), out)
    done = []
    convert(small_settings(), out, resume=True, on_progress=lambda d, t: done.append(d))
    assert 2 <= done[0] < 10
    assert faults.tree_bytes(out) == faults.tree_bytes(small_store.url)


def test_an_interrupt_before_the_first_shard_leaves_nothing(tmp_path):
    with pytest.raises(ConversionInterruptedError, match="nothing is left"):
        source = SmoothSource(hw=(480, 640))
        convert(
            small_settings(source=source, samples_per_shard=10), tmp_path / "a.zarr", on_progress=interrupt_after(1)
        )
    assert list(tmp_path.iterdir()) == []


def test_resuming_with_changed_settings_is_refused_naming_them(tmp_path):
    out = tmp_path / "a.zarr"
    with pytest.raises(ConversionInterruptedError):
        convert(small_settings(), out, workers=1, on_progress=interrupt_after(5))
    with pytest.raises(ConvertError, match=r"lens\.aperture_mm \(44\.8, now 40\.0\)"):
        convert(small_settings(lens=Lens.preset("paper", aperture_mm=40)), out, resume=True)
    convert(small_settings(lens=Lens.preset("paper", aperture_mm=40)), out, overwrite=True)
    assert open_store(out).manifest.lenses[0]["aperture_mm"] == 40


def test_resuming_a_finished_store_is_a_no_op_for_equal_settings_only(tmp_path):
    out = tmp_path / "a.zarr"
    convert(small_settings(), out, resume=True)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    convert(small_settings(), out, resume=True)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(ConvertError, match="other settings"):
        convert(small_settings(seed=1), out, resume=True)


def test_an_existing_store_is_kept_until_its_successor_is_complete(tmp_path):
    out = tmp_path / "a.zarr"
    convert(small_settings(), out)
    before = faults.tree_bytes(out)
    with pytest.raises(ConvertError, match="--overwrite"):
        convert(small_settings(), out)
    with pytest.raises(ConversionInterruptedError):
        convert(small_settings(seed=2), out, overwrite=True, workers=1, on_progress=interrupt_after(7))
    assert faults.tree_bytes(out) == before
    convert(small_settings(compression="none"), out, overwrite=True)
    assert open_store(out).manifest.compression == "none"


def test_a_folder_of_something_else_is_never_replaced(tmp_path):
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").write_text("precious")
    for option in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(ConvertError):
            convert(small_settings(), out, **option)
    assert (out / "chapter1.tex").read_text() == "precious"


def test_a_frame_that_cannot_be_read_is_named_and_finished_shards_stay(nyu_files, tmp_path):
    import h5py

    with h5py.File(nyu_files[0]) as file:
        chunk = file["depths"].id.get_chunk_info_by_coord((4, 0, 160))
        start = chunk.byte_offset + file.userblock_size
    for shift in range(2, 80):
        faults.flip_byte(nyu_files[0], start + shift)
    config = small_settings(source=NyuSource(path=nyu_files[0], splits=nyu_files[1]), samples_per_shard=1)
    with pytest.raises(SourceError, match=r"frame 5 cannot be read.*of 5 shards are kept"):
        convert(config, tmp_path / "a.zarr", workers=1)
    assert not (tmp_path / "a.zarr").exists()


def test_a_full_disk_is_named(tmp_path):
    """The file size limit of the process makes the write of a shard fail as a full disk does."""
    code = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from sources import small_settings
from defocus_sim.convert.run import convert
from defocus_sim.errors import ConvertError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
try:
    convert(small_settings(), sys.argv[1])
except ConvertError as error:
    print(error)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "a.zarr"), str(Path(__file__).parents[2] / "support")]
    env = dict(os.environ, NUMBA_DISABLE_JIT="0")
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert "File too large" in result.stdout, result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_killed_conversion_resumes_to_the_same_bytes(small_store, tmp_path):
    """SIGKILL at random moments, several times over, then one resume to the end."""
    code = """
import sys
sys.path.insert(0, sys.argv[2])
from sources import small_settings
from defocus_sim.convert.run import convert
print("begun", flush=True)
convert(small_settings(), sys.argv[1], resume=True, workers=2, on_progress=lambda d, t: print(d, flush=True))
"""
    out = tmp_path / "a.zarr"
    chance = random.Random(7)
    for _ in range(4):
        command = [sys.executable, "-c", code, str(out), str(Path(__file__).parents[2] / "support")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            wanted = chance.randint(0, 9)
            while (line := process.stdout.readline()) and int(line) < wanted:
                pass
            time.sleep(chance.random() * 0.02)
            process.kill()
    convert(small_settings(), out, resume=True)
    assert faults.tree_bytes(out) == faults.tree_bytes(small_store.url)


def test_killed_between_manifest_and_rename_the_store_is_still_resumed(small_store, tmp_path):
    out = tmp_path / "a.zarr"
    shutil.copytree(small_store.url, tmp_path / "a.zarr.partial")
    convert(small_settings(), out, resume=True)
    assert faults.tree_bytes(out) == faults.tree_bytes(small_store.url)


def test_sources_that_contradict_themselves_are_refused():
    twice = [SampleRef(name="a", scene="s", split="train")] * 2
    with pytest.raises(ConvertError, match="alike"):
        plan_samples(twice, (Lens.preset("paper"),))
    with pytest.raises(ConvertError, match="no sample"):
        plan_samples([], (Lens.preset("paper"),))
