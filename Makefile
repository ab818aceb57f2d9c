# `make venv` builds the environment, `make demo` shows the whole chain, `make test` and `make check` say whether it works,
# `make site` makes the documents a web site.
# Override the interpreter with `make PYTHON=python3.12 ...` and the environment's place with VENV=...
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete

.PHONY: venv typed demo weights test check site clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=24'
	# setuptools warns of every editable installation; nothing is to be done about it.
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	$(MAKE) --no-print-directory typed
	touch $(STAMP)

# An editable installation is found by a hook that type checkers do not run: tell them the places, too.
typed:
	mkdir -p "$(VENV)/typed"
	ln -sfn "$(CURDIR)/cli" "$(VENV)/typed/dfd_cli"
	printf '%s\n' "$(CURDIR)" "$(abspath $(VENV))/typed" > \
		"$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dfd_toolkit_typed.pth"

demo: venv
	$(BIN)/python -m dfd_cli.demo --out demo

# The weights that come with the installation, from nothing; hours. The same command goes on where it was stopped.
SCENES := --size 320x240 --test-fraction 0 --val-fraction 0.02 --resume
weights: venv
	$(BIN)/dfd-prepare synthetic --scenes varied --count 3000 --seed 7 $(SCENES) --out weights/varied.zarr
	$(BIN)/dfd-prepare synthetic --scenes varied --scale room --count 2500 --seed 8 $(SCENES) --out weights/varied-room.zarr
	$(BIN)/dfd-prepare synthetic --scenes rooms --count 1600 --seed 77 $(SCENES) --out weights/rooms.zarr
	$(BIN)/dfd-prepare synthetic --scenes rooms --count 3000 --seed 78 $(SCENES) --out weights/more-rooms.zarr
	$(BIN)/dfd-prepare synthetic --scenes interiors --count 2400 --seed 91 $(SCENES) --out weights/interiors.zarr
	$(BIN)/dfd-prepare synthetic --scenes interiors --field-of-view 36 --count 2400 --seed 92 $(SCENES) --out weights/long-lens.zarr
	test -d weights/scenes.zarr || $(BIN)/dfd-prepare merge weights/varied.zarr weights/varied-room.zarr weights/rooms.zarr \
		weights/more-rooms.zarr weights/interiors.zarr weights/long-lens.zarr --out weights/scenes.zarr
	$(BIN)/dfd-train --recipe any-lens --shards weights/scenes.zarr --out weights/run --resume=auto
	$(BIN)/dfd-predict export --checkpoint weights/run@last --weights dfd_train/model/weights/any-lens.safetensors

# Whole files to processes side by side, each on one thread: twice as fast as one process on two.
test: venv
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

check: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

site: venv
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --clean
	@echo "open site/index.html; with search: $(BIN)/python -m http.server --directory site"

clean:
	rm -rf $(VENV) demo site build dist *.egg-info
