"""Names that are no UTF-8, homes that cannot be written, and a command that is begun several times at once."""

import os
import subprocess

import cv2
import numpy as np
from commands import BIN

from defocus_sim.shards.store import open_store

ODD = os.fsdecode(b"caf\xe9")


def run(*words, **options):
    command = [os.fsencode(BIN / words[0]), *(os.fsencode(word) for word in words[1:])]
    done = subprocess.run(command, capture_output=True, check=False, **options)
    assert b"Traceback" not in done.stderr
    return done.returncode, (done.stdout + done.stderr).decode()


def test_names_that_are_no_utf8_go_through_every_command_of_stores(tmp_path):
    (tmp_path / ODD).mkdir()
    for k in range(2):
        pixels = np.random.default_rng(k).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        (tmp_path / ODD / f"{k}{ODD}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
        with open(tmp_path / ODD / f"{k}{ODD}.npy", "wb") as stream:
            np.save(stream, np.full((24, 32), 2 + k, np.float32))
    stores = [f"{n}{ODD}.zarr" for n in "ab"]
    for store in stores:
        seed = str(stores.index(store))
        code, text = run("dfd-prepare", "rgbd", ODD, "--out", store, "--seed", seed, cwd=tmp_path)
        assert code == 0, text
    both = f"both{ODD}.zarr"
    for words in (("merge", *stores, "--out", both), ("info", both), ("info", "--json", both), ("verify", both)):
        code, text = run("dfd-prepare", *words, cwd=tmp_path)
        assert code == 0, text
    names = open_store(tmp_path / both).split("train").names
    assert names == ("1/0caf\\xe9", "1/1caf\\xe9", "2/0caf\\xe9", "2/1caf\\xe9")
    code, text = run("dfd-train", "--shards", both, "--out", f"run{ODD}", cwd=tmp_path)
    assert (code, "choose another --out" in text) == (2, True), text


def test_of_a_command_begun_three_times_at_once_one_ends_well_and_the_others_say_why(tmp_path):
    words = ("synthetic", "--count", "8", "--size", "64x48", "--samples-per-shard", "2", "--out", "same.zarr", "-q")
    jobs = [
        subprocess.Popen(
            [BIN / "dfd-prepare", *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    ends = [(job.communicate(timeout=240)[1], job.returncode) for job in jobs]
    assert any(code == 0 for _, code in ends), ends
    for text, code in ends:
        assert code in (0, 2)
        assert "Traceback" not in text
        assert code == 0 or "another" in text or "exists already" in text or "unfinished" in text, text
    assert len(open_store(tmp_path / "same.zarr").split("train")) > 0


def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path):
    home = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR"), "/proc/none")
    words = ("synthetic", "--count", "2", "--size", "64x48", "--out", "s.zarr")
    code, text = run("dfd-prepare", *words, cwd=tmp_path, env=os.environ | home)
    assert code == 0, text
    assert (tmp_path / "s_contact_sheet.png").is_file()
