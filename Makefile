# Everything a newcomer or CI needs. The environment lies in .venv and is made anew when
# pyproject.toml or constraints.txt change.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
WEB := onnxruntime-web@1.30.0
# So many processes, each with whole files, in our order: those that take long first (tests/conftest.py).
# Two have a core each; a third works while they wait for processes that they started.
FILES := --dist loadfile --no-loadscope-reorder

# torch comes by pip, whose settings say from where (a CPU build, wheels on a disk); the rest by uv, in a
# quarter of the time, or by pip where uv reaches no index.
PIP := -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
define install
$(1) $(PIP) torch torchvision uv
$(1) -m uv pip install --quiet --python $(1) --constraint constraints.txt $(2) || $(1) $(PIP) $(2)
endef

# What Python compiled is kept, whatever the environment says: tests start it some hundred times.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup demo wheel docs docs-quick test test-fast test-slow test-newest test-cluster test-ray test-ranks mutants bench bench-quick house lint format clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("offramp needs Python 3.11 or newer; give one as make PYTHON=…" if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing 3 GB into .venv: several minutes, without a word" >&2
	$(call install,$(BIN)/python,--editable '.[dev]')
	@# On every core, but for a third that hardly anything imports. Some packages ship what no Python 3 compiles.
	@$(BIN)/python -m compileall -q -j 0 -x '/(tests?|transformers/models|ray|moto|databricks)/' .venv/lib >/dev/null 2>&1 || true
	@# For the page of `export --web`. Where there is no npm, its tests skip and say so.
	@command -v npm >/dev/null && npm install --prefix . --no-save --no-package-lock --ignore-scripts --no-audit --no-fund --silent $(WEB) || echo "no $(WEB): the page of export --web is not opened in the tests" >&2
	@touch $(READY)

demo: $(READY)
	$(BIN)/offramp run studies/demo.yaml --store runs/demo
	$(BIN)/offramp report runs/demo --out runs/demo-report

# As an installation from a wheel sees it, outside of this folder: what is missing in it shows here. Then
# each extra alone.
wheel: $(READY)
	rm -rf build/wheel && mkdir -p build/wheel
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv build/wheel/venv
	$(call install,build/wheel/venv/bin/python,build/wheel/*.whl)
	cd build/wheel && venv/bin/offramp recipes demo > demo.yaml && venv/bin/offramp run demo.yaml --set seeds=[42] --set recipe.epochs=2 && venv/bin/offramp report runs --out report
	$(BIN)/python tests/extras.py build/wheel

# The site, in build/site/html: its notebooks run, and a warning or a link that leads nowhere ends it.
docs: $(READY)
	$(BIN)/python docs/site/assemble.py build/site/source
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet build/site/source build/site/html

# The same with the notebooks as they lie there, for a look at pages. Sphinx then warns that it finds no
# lexer of their code; a link that leads nowhere is a warning too.
docs-quick: $(READY)
	$(BIN)/python docs/site/assemble.py build/site/source
	$(BIN)/python -m sphinx --keep-going --quiet -D nb_execution_mode=off build/site/source build/site/html

test: $(READY)
	$(BIN)/python -m pytest -n 3 $(FILES)

# While working: all but the tests of tests/slow.txt.
test-fast: $(READY)
	$(BIN)/python -m pytest -n 2 $(FILES) --fast

# All of them, for an hour or two: every case of a kind, every architecture of docs/backbones.md, numbers
# in docs/ over thousands of draws, doors over thousands of files.
test-slow: $(READY)
	$(BIN)/python -m pytest -n 3 $(FILES) --long

# What is quick, on a newer Python and with the newest packages that the ranges in pyproject.toml allow,
# which .venv-newest then has (3 GB more). Where uv finds no newer Python, nothing runs.
test-newest: .venv-newest/.ready
	@if test -s $<; then .venv-newest/bin/python -m pytest -n 2 $(FILES) --fast; fi

.venv-newest/.ready: pyproject.toml | $(READY)
	@if python=$$($(BIN)/uv python find --no-python-downloads '>=3.12' 2>/dev/null); then \
		echo "Installing into .venv-newest, of $$python: several minutes" >&2; \
		$(BIN)/uv venv --quiet --clear --python $$python .venv-newest && \
		$(BIN)/uv pip install --quiet --python .venv-newest/bin/python --editable '.[dev]' && \
		echo $$python > $@; \
	else \
		echo "no Python newer than 3.11 here: its tests are skipped" >&2; mkdir -p .venv-newest; : > $@; \
	fi

# A cluster of Ray, and two ranks of one training, in processes of this machine: what becomes of a study
# when parts of it die. They wait for most of their time.
test-cluster: test-ray test-ranks

test-ray: $(READY)
	$(BIN)/python -m pytest --cluster tests/study/test_cluster.py

test-ranks: $(READY)
	$(BIN)/python -m pytest --long tests/study/test_together.py

# The small faults of tests/mutants.json, planted one at a time: which do tests notice?
mutants: $(READY)
	$(BIN)/python tests/mutants.py --frozen

# On a machine that does nothing else: docs/performance.md says what is measured, and for how long.
bench: $(READY)
	$(BIN)/python -m benchmarks

bench-quick: $(READY)
	$(BIN)/python -m benchmarks --quick

# The picture of the layers; commit it where they changed.
house: $(READY)
	$(BIN)/python docs/architecture.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_architecture.py  # layers as drawn, names of types, no empty names

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-newest build dist .pytest_cache .mypy_cache .ruff_cache
