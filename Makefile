# Two commands do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
MODEL ?= models/small-world
export TRIPTYCH_NATIVE_DIR ?= $(CURDIR)/.triptych/native

.PHONY: demo test native native-cuda build venv lint test-rust test-trainer test-full test-page bench deny clean

demo: native build
	target/release/triptych demo --model $(MODEL) --data .triptych/demo

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

lint: venv
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	$(VENV)/bin/ruff check trainer tests scripts
	$(VENV)/bin/ruff format --check trainer tests scripts

test-rust: native
	cargo test --locked

# The server must be there: its vectors are compared with PyTorch's.
test-trainer: venv native
	cargo build --locked
	cd trainer && TRIPTYCH_BIN=target/debug/triptych ../$(VENV)/bin/python -m pytest -q -rs

# The published networks at their full size; minutes, and gigabytes. Prints the table of docs/mmv.md.
test-full: venv native
	cargo build --locked
	cd trainer && TRIPTYCH_BIN=target/debug/triptych ../$(VENV)/bin/python -m pytest -q -rs -s -m full

# Skips, and says so, where there is no Chromium with its chromedriver.
test-page: venv native
	cargo build --locked
	TRIPTYCH_BIN=target/debug/triptych $(VENV)/bin/python -m pytest -q -rs tests/page

bench: native
	cargo bench --locked

deny:
	cargo deny check

clean:
	rm -rf target .venv .triptych
