"""Sound originals, what damages them, and what is done with each mutation: the cases of `benchmarks/attack/fuzz.py`."""

import io
import json
import random
import shutil
import struct

import cv2
import faults
import h5py
import numpy as np
from PIL import Image
from scipy.io import savemat
from sources import small_settings

WORDS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1, 2**31, 2**20)
LEAVES = (None, True, -1, 0, 1, 3, 2**31, 2**70, 1.5, -1e308, 1e308, "", "x" * 3000, "\0", [], {}, [0], [[]], {"a": 1})


def mutated(data, chance, low=0, high=None):
    """`data` with one to four small changes between `low` and `high`."""
    data = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        end = min(high or len(data), len(data))
        if end <= low:
            return bytes(data)
        at = chance.randrange(low, end)
        match chance.randrange(7):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at] = chance.randrange(256)
            case 2 | 3:
                word = struct.pack("<Q", chance.choice(WORDS))[: chance.choice((1, 2, 4, 8))]
                data[at : at + len(word)] = word
            case 4:
                size = chance.randrange(1, 64)
                data[at : at + size] = bytes(len(data[at : at + size]))
            case 5:
                source, size = chance.randrange(low, end), chance.randrange(1, 32)
                data[at : at + size] = data[source : source + size][: len(data[at : at + size])]
            case 6:
                if chance.random() < 0.3:
                    del data[at:]
                else:
                    data[at:at] = chance.randbytes(chance.randrange(1, 9))
    return bytes(data)


def changed_leaf(content, chance):
    """`content` (JSON) with one value replaced, dropped or doubled, anywhere in the tree."""
    places = []

    def collect(node):
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                collect(node[key])

    collect(content)
    node, key = chance.choice(places)
    match chance.randrange(4):
        case 0:
            del node[key]
        case 1 if isinstance(node, list):
            node.append(node[key])
        case _:
            node[key] = chance.choice(LEAVES)
    return content


class Cases:
    """Sound originals in `folder`, and what is done with a mutation of each."""

    def __init__(self, folder):
        self.folder = folder
        self.work = folder / "work"
        self.labelled = faults.write_nyu(folder / "labelled.mat", frames=2)
        self.splits = faults.write_splits(folder / "splits.mat", [1], [2])
        self.grid = folder / "depth_sph_corr-a.mat"
        grid = np.random.default_rng(1).uniform(1, 80, (55, 305, 4))
        savemat(self.grid, {"Position3DGrid": grid}, do_compression=False)
        self.packed_grid = folder / "depth_sph_corr-b.mat"
        savemat(self.packed_grid, {"Position3DGrid": grid}, do_compression=True)
        with h5py.File(self.labelled) as file:
            offset = file.userblock_size
            chunks = [file[n].id.get_chunk_info(i) for n in file if n[0] != "#" for i in self._chunks(file[n])]
            self.data_start = min(c.byte_offset for c in chunks) + offset
            ranges = [(c.byte_offset + offset, c.byte_offset + offset + c.size) for c in chunks]
        # Where HDF5 keeps its own structures; the pixels are most of the file and the least of the danger.
        ends = [0, *(stop for _, stop in sorted(ranges))]
        starts = [*(start for start, _ in sorted(ranges)), self.labelled.stat().st_size]
        self.metadata = [(a, b) for a, b in zip(ends, starts, strict=True) if b > a]
        self.store = folder / "store.zarr"
        self.unfinished = folder / "unfinished.zarr.partial"

    @staticmethod
    def _chunks(dataset):
        return range(dataset.id.get_num_chunks()) if dataset.chunks else ()

    def prepare_pictures(self):
        """One small picture of each format."""
        rng = np.random.default_rng(2)
        image = cv2.GaussianBlur(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8), (0, 0), 2)
        depth = rng.integers(500, 9000, (48, 64), dtype=np.uint16)
        metres = depth.astype(np.float32) / 1000
        self.pictures = {
            f"a{suffix}": cv2.imencode(suffix, image)[1].tobytes()
            for suffix in (".png", ".jpg", ".tif", ".bmp", ".webp", ".ppm")
        }
        tiled = io.BytesIO()
        Image.fromarray(image).save(tiled, "TIFF", compression="tiff_adobe_deflate")
        self.pictures["b.tif"] = tiled.getvalue()
        for name in ("d.png", "d.tif"):
            self.pictures[name] = cv2.imencode(name[1:], depth)[1].tobytes()
        for name in ("f.tif", "d.pfm"):
            self.pictures[name] = cv2.imencode(name[1:], metres)[1].tobytes()
        for name, save in (("d.npy", np.save), ("d.npz", np.savez), ("e.npz", np.savez_compressed)):
            stream = io.BytesIO()
            save(stream, metres)
            self.pictures[name] = stream.getvalue()
        self.pictures["d.exr"] = exr(metres)

    def prepare_run(self):
        """A run's folder with its notes, and a checkpoint of it."""
        import torch

        from dfd_train.config.train import recipe_config
        from dfd_train.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
        from dfd_train.runs.run_folder import MetricsLog, create_run

        self.run_folder = self.folder / "run"
        config = recipe_config("fast", shards="s", out=str(self.run_folder), model="tiny")
        create_run(config, {"versions": "none"})
        log = MetricsLog(self.run_folder)
        for epoch in (1, 2):
            log.append({"epoch": epoch, "step": 10 * epoch, "total": 0.5 / epoch, "val_rmse": 0.7})
        settings = {
            "store_checksum": "c", "split": "test", "images": 2, "images_in_split": 2, "size_wh": [48, 36],
            "convention": "per-image", "depth_scored_on": "the frames", "cap_m": 10.0, "shards": "s", "epochs": 2,
            "training": config.to_dict(),
        }  # fmt: skip
        rows = {"prediction": {"rmse": 0.5, "abs_rel": 0.1, "delta1": 0.9, "psnr": 30.0, "ssim": 0.9}}
        report = {"settings": settings, "source": "nyu", "rows": rows}
        (self.run_folder / "report.json").write_text(json.dumps(report))
        weights = {f"layer{i}.weight": torch.randn(16, 9, generator=torch.Generator().manual_seed(i)) for i in range(6)}
        made = Checkpoint(
            config=config, store_checksum="c", epoch=1, batch=0, step=10, weights=weights, averaged=None, optimizer={},
            rng={"torch": torch.get_rng_state()}, progress={}, scaler={},
        )  # fmt: skip
        path = save_checkpoint(self.folder / "checkpointed", made)
        self.loaded, self.checkpoint = load_checkpoint(path), path.read_bytes()

    def prepare_stores(self):
        """A finished store, and one that was interrupted."""
        from defocus_sim.convert.run import convert
        from defocus_sim.errors import ConvertError

        if not self.store.exists():
            convert(small_settings(), self.store)

            def stop(done, total):
                if done >= 6:
                    raise ConvertError("stop")

            try:
                convert(small_settings(), self.folder / "unfinished.zarr", workers=1, on_progress=stop)
            except ConvertError:
                assert self.unfinished.exists()

    def prepare_weights(self):
        """Weights of a small network, with what they say of it."""
        import torch

        from dfd_train.config.model import variant
        from dfd_train.model.build import build_model
        from dfd_train.runs.weights_file import read_weights, write_weights

        net = build_model(variant("tiny"), generator=torch.Generator().manual_seed(0))
        path = self.folder / "a.safetensors"
        write_weights(path, net.config, net.state_dict())
        self.weights, self.loaded = path.read_bytes(), read_weights(path)[1]

    def prepare_lists(self):
        """Pictures with depth, and lists of them in several forms."""
        self.prepare_pictures()
        for number in range(4):
            (self.folder / f"{number}.png").write_bytes(self.pictures["a.png"])
            (self.folder / f"{number}d.png").write_bytes(self.pictures["d.png"])
        rows = [(f"{self.folder}/{k}.png", f"{self.folder}/{k}d.png") for k in range(4)]
        plain = "\n".join(f"{a},{b},{'train' if k else 'test'},scene{k}" for k, (a, b) in enumerate(rows))
        self.lists = [
            plain.encode(),
            ("rgb;depth\n" + "\n".join(f'"{a}";"{b}"' for a, b in rows)).encode(),
            plain.encode("utf-16"),
            "\n".join(f"{k}.5 {a} {k}.6 {b}" for k, (a, b) in enumerate(rows)).encode(),
        ]

    def run(self, kind, number, seed):
        """Do one case; raises what it raises."""
        chance = random.Random(f"{kind} {seed} {number}")
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        getattr(self, f"_{kind}")(chance)

    def _labelled(self, chance):
        low, high = (0, None) if chance.random() < 0.15 else chance.choice(self.metadata)
        path = self.work / "labelled.mat"
        path.write_bytes(mutated(self.labelled.read_bytes(), chance, low, high))
        self._read_nyu(path, None, chance.choice(("filled", "raw")))

    def _splits(self, chance):
        path = self.work / "splits.mat"
        path.write_bytes(mutated(self.splits.read_bytes(), chance))
        self._read_nyu(self.labelled, path, None)

    @staticmethod
    def _read_nyu(path, splits, depth):
        from defocus_sim.datasets.nyu import NyuSource

        source = NyuSource(path=path, splits=splits, depth=depth or "filled")
        samples = source.samples()
        if depth is None:
            return
        source.provenance()
        with source.open() as reader:
            for index in range(min(len(samples), 4)):
                frame = reader.read(index)
                assert frame.aif.shape == (427, 561, 3)
                assert frame.depth_m.shape == (427, 561)
                assert np.isfinite(frame.depth_m).all()

    def _grid(self, chance):
        from defocus_sim.datasets.make3d import read_grid

        path = self.work / "depth_sph_corr-a.mat"
        original = chance.choice((self.grid, self.packed_grid)).read_bytes()
        path.write_bytes(mutated(original, chance, 0, chance.choice((200, 300, None))))
        for grid in read_grid(path):
            assert grid.shape == (55, 305)
            assert np.isfinite(grid).all()

    def _store(self, chance):
        """A flipped byte anywhere is found, or changes nothing that is read."""
        place = self.work / "store.zarr"
        shutil.copytree(self.store, place)
        files = [path for path in sorted(place.rglob("*")) if path.is_file()]
        path = chance.choice([place / "zarr.json", *files])
        # The end of a shard is its index.
        size = path.stat().st_size
        low = chance.choice((0, max(0, size - 40)))
        path.write_bytes(mutated(path.read_bytes(), chance, low))
        wanted = self._arrays(self.store)
        for split, batch in self._arrays(place).items():
            assert all((batch[name] == wanted[split][name]).all() for name in batch), "a changed pixel was read"

    def _manifest(self, chance):
        """Values that cannot be, under a checksum that fits."""
        from defocus_sim.shards.manifest import digest

        place = self.work / "store.zarr"
        shutil.copytree(self.store, place)
        root = json.loads((place / "zarr.json").read_bytes())
        manifest = root["attributes"]["dfd"]
        del manifest["checksum"]
        for _ in range(chance.choice((1, 1, 2))):
            changed_leaf(manifest, chance)
        manifest["checksum"] = digest(manifest)
        (place / "zarr.json").write_text(json.dumps(root))
        self._arrays(place)
        self._told(place)

    @staticmethod
    def _told(place):
        """What the command line says of a store."""
        from dfd_cli.support.summary import info_json, info_lines

        from defocus_sim.shards.store import open_store

        store = open_store(place)
        assert info_lines(store)
        json.dumps(info_json(store), allow_nan=False)

    @staticmethod
    def _arrays(place):
        from defocus_sim.errors import ShardError
        from defocus_sim.shards.store import open_store, verify_store

        store = open_store(place, check_files=False)
        problems = [problem for _, problem in verify_store(store)]
        batches = {}
        for name in store.split_names:
            split = store.split(name)
            for index in range(len(split)):
                split.lens(index)
            try:
                batches[name] = split.read(range(len(split)))
            except ShardError:
                assert any(problems), "read refuses what verify found sound"
        open_store(place)
        return batches

    def _state(self, chance):
        from defocus_sim.convert.run import convert

        out, place = self.work / "a.zarr", self.work / "a.zarr.partial"
        shutil.copytree(self.unfinished, place)
        path = chance.choice(sorted(p for p in (place / ".markers").iterdir()))
        if chance.random() < 0.5:
            path.write_text(json.dumps(changed_leaf(json.loads(path.read_bytes()), chance)))
        else:
            path.write_bytes(mutated(path.read_bytes(), chance))
        convert(small_settings(), out, resume=True, workers=1)
        assert faults.tree_bytes(out) == faults.tree_bytes(self.store)

    def _picture(self, chance, name, read):
        path = self.work / name
        path.write_bytes(mutated(self.pictures[name], chance, 0, chance.choice((64, 400, None))))
        found = read(path)
        assert found.size

    def _colour(self, chance):
        from defocus_sim.datasets.formats.images import colour_size, read_colour

        name = chance.choice(("a.png", "a.jpg", "a.tif", "b.tif", "a.bmp", "a.webp", "a.ppm"))
        self._picture(chance, name, read_colour)
        assert colour_size(self.work / name) == read_colour(self.work / name).shape[:2]

    def _depth(self, chance):
        from defocus_sim.datasets.formats.images import depth_header, read_depth_units

        name = chance.choice(("d.png", "d.tif", "f.tif", "d.npy", "d.npz", "e.npz", "d.pfm", "d.exr"))
        self._picture(chance, name, read_depth_units)
        header = depth_header(self.work / name)
        assert (header.height, header.width) == read_depth_units(self.work / name).shape

    def _photograph(self, chance):
        from dfd_train.prediction.images import read_picture

        name = chance.choice(("a.png", "a.jpg", "a.tif", "b.tif", "a.bmp", "a.webp", "a.ppm", "d.png"))
        path = self.work / name
        path.write_bytes(mutated(self.pictures[name], chance, 0, chance.choice((64, 400, None))))
        assert read_picture(path).pixels.size

    def _weights(self, chance):
        """Loaded as a network whose weights are of their shapes, or refused; safetensors has no checksum over the data."""
        from dfd_train.prediction.predict import load

        path = self.work / "a.safetensors"
        if chance.random() < 0.5:
            size = int.from_bytes(self.weights[:8], "little")
            header = json.loads(self.weights[8 : 8 + size])
            about = header["__metadata__"]
            model = json.loads(about["dfd_train model"])
            about["dfd_train model"] = json.dumps(changed_leaf(model, chance))
            if chance.random() < 0.5:
                changed_leaf(header, chance)
            text = json.dumps(header).encode()
            path.write_bytes(len(text).to_bytes(8, "little") + text + self.weights[8 + size :])
        else:
            path.write_bytes(mutated(self.weights, chance, *chance.choice(((0, None), (0, 8), (8, 3000)))))
        found = load(path).state_dict()
        assert all(found[name].shape == weight.shape for name, weight in self.loaded.items() if name in found)

    def _lens(self, chance):
        """lens.toml and the record of a photograph: a lens that blurs, or a named error."""
        from defocus_sim.lens import Lens, coc_diameter_px, sigma_px
        from dfd_train.prediction.photo.lens import parse_lens

        fields = Lens(focus_distance_m=2.0, aperture_mm=10.0, focal_length_mm=50.0, sensor_width_mm=36.0).to_json()
        fields = {key: value for key, value in fields.items() if value is not None}
        path = self.work / chance.choice(("lens.toml", "lens.json"))
        if path.suffix == ".json":
            content = json.dumps(changed_leaf({"photograph": {"lens": fields}}, chance))
        else:
            node = changed_leaf({"lens": fields}, chance)
            rows = node.get("lens") if isinstance(node.get("lens"), dict) else {}
            content = "[lens]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in rows.items())
        data = content.encode()
        path.write_bytes(data if chance.random() < 0.6 else mutated(data, chance))
        lens = parse_lens(str(path))
        if lens.solve_max_coc_px is None:
            found = sigma_px(coc_diameter_px(np.array([0.5, 2.0, 1e3]), lens, width_px=640), lens)
            assert np.isfinite(found).all()

    def _list(self, chance):
        """A list of pairs, as two data sets read it, and as names of test frames."""
        from defocus_sim.datasets.pairs import PairsSource
        from defocus_sim.datasets.rgbd_folder import RgbdFolderSource

        path = self.work / "list.csv"
        path.write_bytes(mutated(chance.choice(self.lists), chance))
        match chance.randrange(3):
            case 0:
                source = RgbdFolderSource(pairs_csv=path, depth_scale=0.001)
            case 1:
                source = PairsSource(pairs_csv=path, depth_scale=0.001, motion="none")
            case _:
                source = RgbdFolderSource(root=self.folder, depth_scale=0.001, test_list=path)
        assert source.samples()
        assert all("\n" not in left.reason for left in source.skipped())

    def _checkpoint(self, chance):
        """Away from its marker: loaded with the very weights, or refused."""
        import torch

        from dfd_train.runs.checkpoint import load_checkpoint

        path = self.work / "a.pt"
        path.write_bytes(mutated(self.checkpoint, chance, *chance.choice(((0, None), (0, 2000), (-3000, None)))))
        found = load_checkpoint(path)
        wanted = self.loaded.weights
        assert sorted(found.weights) == sorted(wanted)
        assert all(torch.equal(found.weights[name], wanted[name]) for name in wanted), "a changed weight was read"

    def _notes(self, chance):
        """config.json, run.toml, metrics.csv, report.json of a run."""
        from dfd_train.config.toml import configured
        from dfd_train.evaluation.tables import paper_table, read_results
        from dfd_train.runs.curves import read_curves
        from dfd_train.runs.run_folder import MetricsLog, run_config

        shutil.copytree(self.run_folder, self.work / "run")
        name = chance.choice(("config.json", "run.toml", "metrics.csv", "report.json"))
        path = self.work / "run" / name
        if name.endswith(".json") and chance.random() < 0.6:
            path.write_text(json.dumps(changed_leaf(json.loads(path.read_bytes()), chance)))
        else:
            path.write_bytes(mutated(path.read_bytes(), chance))
        match name:
            case "config.json":
                run_config(path.parent)
            case "run.toml":
                configured(path, shards="s", out="o")
            case "metrics.csv":
                MetricsLog(path.parent, before_epoch=3).append({"epoch": 3, "total": 0.5})
                read_curves(path.parent)
            case "report.json":
                read_results(str(path.parent))
                paper_table("table2", (str(path.parent),), shards="s").text()


def exr(depth):
    """`depth` (H, W) float32 as an OpenEXR file of one channel Z, scan lines with ZIP of one line."""
    height, width = depth.shape

    def attribute(name, kind, value):
        return f"{name}\0{kind}\0".encode() + struct.pack("<I", len(value)) + value

    box = struct.pack("<4i", 0, 0, width - 1, height - 1)
    header = b"v/1\x01" + struct.pack("<I", 2)
    header += attribute("channels", "chlist", b"Z\0" + struct.pack("<iIii", 2, 0, 1, 1) + b"\0")
    header += attribute("compression", "compression", b"\0") + attribute("dataWindow", "box2i", box)
    header += attribute("displayWindow", "box2i", box) + attribute("lineOrder", "lineOrder", b"\0")
    header += attribute("pixelAspectRatio", "float", struct.pack("<f", 1))
    header += attribute("screenWindowCenter", "v2f", bytes(8))
    header += attribute("screenWindowWidth", "float", struct.pack("<f", 1)) + b"\0"
    lines = [struct.pack("<iI", y, 4 * width) + row.tobytes() for y, row in enumerate(depth.astype("<f4"))]
    first = len(header) + 8 * height
    offsets = [first + y * len(lines[0]) for y in range(height)]
    return header + struct.pack(f"<{height}Q", *offsets) + b"".join(lines)
