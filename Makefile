# make reproduce: figure 3 of paper S, live beside the committed result.  make test: everything that CI runs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: install reproduce test slow lint bench clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all,dev]'
	touch $@

reproduce: $(VENV)/installed
	$(BIN)/t2ikit data get pictograms
	$(BIN)/t2ikit reproduce fig03

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/nbstripout --verify $$(git ls-files '*.ipynb')

test: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

slow: lint
	$(BIN)/python -m pytest -q -m slow

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks.training_loop

clean:
	rm -rf $(VENV)
