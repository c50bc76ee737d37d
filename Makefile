# Every target sets up what it needs in .venv: a Python 3.11+, a C++17 compiler and make are enough.

PYTHON ?= python3
JOBS ?= 2

VENV := $(CURDIR)/.venv
STAMPS := $(VENV)/stamps
export VIRTUAL_ENV := $(VENV)
export PATH := $(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export CMAKE_BUILD_PARALLEL_LEVEL := $(JOBS)
unexport PYTHONPATH PYTHONHOME

SOURCES := $(shell find CMakeLists.txt pyproject.toml README.md cmake cpp python -not -path '*/__pycache__*' -not -path 'cmake/eigen*')
CPP := $(shell find cpp tests -name "*.cpp" -o -name "*.hpp")

.DEFAULT_GOAL := help
.PHONY: help demo reproduce test test-engine test-python test-isas lint format stub docs bench dist campaign coverage mutants gradients clang \
  asan asan-python tsan tidy fuzz clean
.DELETE_ON_ERROR:

help:  ## list the targets
	@sed -n 's/^\([a-z -]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r t what; do printf '  make %-15s %s\n' "$$t" "$$what"; done

# --- environment ------------------------------------------------------------------------------------------------------

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is older than 3.11; name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	pip install --quiet "pip>=25.1"
	mkdir -p $(STAMPS) && touch $@

# A dependency group of pyproject.toml.
$(STAMPS)/group-%: pyproject.toml $(STAMPS)/venv
	pip install --quiet --group $*
	touch $@

# The package as users get it (not editable), built in a folder that is kept, so that only what changed is compiled.
$(STAMPS)/installed: $(SOURCES) $(STAMPS)/group-build
	pip install --quiet --no-build-isolation --no-deps --force-reinstall . -C build-dir=build/wheel
	touch $@

# An extra of the package; the package itself is there already.
$(STAMPS)/extra-%: pyproject.toml | $(STAMPS)/installed
	pip install --quiet "jepa-ode[$*]"
	touch $@

TEST_ENVIRONMENT := $(STAMPS)/installed $(addprefix $(STAMPS)/, group-test extra-analyze extra-sweep extra-bench)

# --- what people ask for ----------------------------------------------------------------------------------------------

demo: $(STAMPS)/installed $(STAMPS)/extra-analyze  ## the main job: what JEPA and MAE learn from images of digits, as a report
	jepa-ode analyze --output build/demo
	@echo "The report: file://$(CURDIR)/build/demo/report.html"

reproduce: $(STAMPS)/installed $(STAMPS)/extra-experiments  ## every claim of the theory as an experiment (REPRODUCE=--fast: two minutes)
	jepa-ode reproduce --output build/gallery $(REPRODUCE)
	@echo "The gallery: file://$(CURDIR)/build/gallery/gallery.html"

test: test-engine test-python  ## all tests, under the best instruction set of this machine

test-engine: $(STAMPS)/group-build  ## the engine's own tests, no Python in them
	cmake --preset dev
	cmake --build --preset dev
	ctest --preset dev

# One worker for each job; the tests of a file stay together, as they share what is costly to set up.
PYTEST_MANY := pytest -n $(JOBS) --dist loadfile
test-python: $(TEST_ENVIRONMENT)  ## the Python tests and the examples of the docstrings (TESTS=tests/test_solve.py: those alone)
	$(PYTEST_MANY) $(TESTS)

# `make test` runs the engine's own tests as baseline and the Python tests under the best instruction set. What tests no arithmetic,
# or every instruction set by itself, runs there alone.
leave_out = $(foreach name,$(1),--ignore-glob='*/test_$(name).py')
ONCE := arrays bench build cli* codebase docs experiments* instruction_sets plot* processes report *sweep*
test-isas: $(TEST_ENVIRONMENT)  ## all tests under every other instruction set that this machine runs
	@set -e; isas=$$(python -c 'from jepa_ode import build_info as f; i = f(); print(*[s for s in i["isas_compiled"] if s in i["isas_supported"]])'); \
	best=$$(python -c 'from jepa_ode import build_info; print(build_info()["isa"])'); \
	for isa in $$isas; do \
	  echo "== $$isa"; \
	  if [ $$isa != baseline ]; then \
	    cmake --preset dev -B build/dev-$$isa -DJEPA_ODE_ISAS=$$isa; cmake --build build/dev-$$isa -j $(JOBS); ctest --test-dir build/dev-$$isa --output-on-failure; \
	  fi; \
	  if [ $$isa != $$best ]; then JEPA_ODE_ISA=$$isa $(PYTEST_MANY) $(call leave_out,$(ONCE)); fi; \
	done

lint: $(TEST_ENVIRONMENT) $(STAMPS)/group-lint  ## format, style and types of Python and C++, freshness of the stub
	ruff check
	ruff format --check
	clang-format --dry-run -Werror $(CPP)
	mypy
	python tools/make_stub.py --check

format: $(STAMPS)/group-lint  ## rewrite the sources in the house format
	ruff check --fix-only --quiet
	ruff format
	clang-format -i $(CPP)

stub: $(STAMPS)/installed $(STAMPS)/group-lint  ## write the engine's stub anew
	python tools/make_stub.py
	ruff format --quiet python/jepa_ode/_core/engine.pyi

# From nothing each time: the code of a page has to run again when the package changed, which Sphinx does not see.
docs: $(STAMPS)/installed $(addprefix $(STAMPS)/, group-docs extra-analyze extra-sweep)  ## the guide and the reference, code run and figures drawn: build/docs/html
	rm -rf build/docs
	sphinx-build -q -W --keep-going -d build/docs/doctrees docs build/docs/html
	@echo "The pages: file://$(CURDIR)/build/docs/html/index.html"

# The peers have an environment of their own. One that cannot be installed is named in the tables as missing.
BENCH_VENV := $(CURDIR)/build/bench/venv
$(BENCH_VENV)/stamp: $(SOURCES) $(STAMPS)/group-build
	mkdir -p build/bench/wheel && rm -f build/bench/wheel/*.whl
	pip wheel --quiet --no-build-isolation --no-deps --wheel-dir build/bench/wheel . -C build-dir=build/wheel
	test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet "pip>=25.1"
	$(BENCH_VENV)/bin/python -m pip install --quiet --force-reinstall --no-deps build/bench/wheel/*.whl
	$(BENCH_VENV)/bin/python -m pip install --quiet "jepa-ode[plot,bench,sweep]"
	for peer in diffrax heyoka numbalsoda torch torchdiffeq; do $(BENCH_VENV)/bin/python -m pip install --quiet --group bench-$$peer || \
	  echo "make: $$peer cannot be installed here; the tables will say so" >&2; done
	touch $@

BENCH ?= $(wildcard bench/bench_*.py)
bench: $(BENCH_VENV)/stamp  ## measure against other solvers and the memory's speed, answers first: build/bench/*.md and figures (BENCH=file, BENCH_OPTIONS)
	@set -e; for file in $(BENCH); do echo "== $$file"; $(BENCH_VENV)/bin/python $$file $(BENCH_OPTIONS); done

# --- what is shipped --------------------------------------------------------------------------------------------------

# The wheel is of the objects that were tested; nothing is compiled anew. That the sources name and bring all they need shows where
# the source distribution is built, in isolation. Each is installed alone, with NumPy, into an empty environment.
dist: $(STAMPS)/installed $(STAMPS)/group-dist  ## source distribution and wheel in dist/, each tried in an empty environment
	rm -rf dist build/smoke
	python -m build --sdist
	python -m build --wheel --no-isolation -C build-dir=build/wheel
	twine check --strict dist/*
	check-wheel-contents dist/*.whl
	if python -c 'import auditwheel' 2>/dev/null; then auditwheel show dist/*.whl; fi
	ls -l dist
	for kind in whl tar.gz; do \
	  python -m venv --clear build/smoke && \
	  build/smoke/bin/pip install --quiet dist/*.$$kind --config-settings=cmake.define.JEPA_ODE_ISAS=baseline && \
	  (cd build/smoke && bin/python -I $(CURDIR)/tests/smoke.py) || exit 1; \
	done
	build/smoke/bin/python tools/footprint.py dist/*.whl

# --- slower checks ----------------------------------------------------------------------------------------------------

# A stage for each file of tests, and more; each leaves what it measured of RELIABILITY.md as records (tests/record.py). A stage
# that is done is not run again until the package or the stage's own file changes, so a campaign that was stopped goes on.
EXAMPLES ?= 2000
CAMPAIGN := build/campaign
STAGES := $(patsubst tests/test_%.py,$(CAMPAIGN)/%.jsonl,$(wildcard tests/test_*.py)) $(addprefix $(CAMPAIGN)/, engine.jsonl asan.jsonl asan-python.jsonl tsan.jsonl fuzz.jsonl)
campaign: $(STAGES)  ## long tests and every property on EXAMPLES (2000) examples; goes on where it was stopped; a table at the end
	python tools/campaign_table.py $^ --output docs/tables/campaign.md

$(CAMPAIGN)/%.jsonl: tests/test_%.py $(TEST_ENVIRONMENT) $(STAMPS)/extra-experiments
	@mkdir -p $(@D)
	JEPA_ODE_EXAMPLES=$(EXAMPLES) JEPA_ODE_RECORD=$@ pytest -q $< -m "campaign or not campaign" --timeout 0

$(CAMPAIGN)/engine.jsonl: $(STAMPS)/installed $(wildcard tests/cpp/*)
	@mkdir -p $(@D)
	cmake --preset release && cmake --build --preset release
	ctest --preset release --verbose > $(@:.jsonl=.log) || { cat $(@:.jsonl=.log); exit 1; }
	sed -n 's/^.*@record //p' $(@:.jsonl=.log) > $@

# A sanitizer that finds something fails its stage: what is recorded are the programs that ran without a report.
$(CAMPAIGN)/asan.jsonl $(CAMPAIGN)/tsan.jsonl: $(CAMPAIGN)/%.jsonl: $(STAMPS)/installed $(wildcard tests/cpp/*)
	@mkdir -p $(@D)
	$(MAKE) --no-print-directory $*
	echo '{"property": 30, "quantity": "reports of $*, engine tests", "worst": 0, "at_most": 0, "cases": '$$(ctest --preset $* -N | sed -n 's/^Total Tests: //p')'}' > $@

$(CAMPAIGN)/asan-python.jsonl: $(TEST_ENVIRONMENT) $(wildcard tests/*.py)
	@mkdir -p $(@D)
	$(MAKE) --no-print-directory asan-python > $(@:.jsonl=.log) 2>&1 || { tail -n 100 $(@:.jsonl=.log); exit 1; }
	echo '{"property": 30, "quantity": "reports of asan, Python tests", "worst": 0, "at_most": 0, "cases": '$$(sed -n 's/^.*[= ]\([0-9]*\) passed.*/\1/p' $(@:.jsonl=.log))'}' > $@

CAMPAIGN_FUZZ_SECONDS ?= 600
$(CAMPAIGN)/fuzz.jsonl: $(STAMPS)/installed $(wildcard tests/fuzz/*)
	@mkdir -p $(@D)
	$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=$(CAMPAIGN_FUZZ_SECONDS) > $(@:.jsonl=.log) 2>&1 || { tail -n 100 $(@:.jsonl=.log); exit 1; }
	echo '{"property": 22, "quantity": "fuzz cases that crash, hang or break the contract", "worst": 0, "at_most": 0, "cases": '$$(awk '/^Done/ { n += $$2 } END { print n }' $(@:.jsonl=.log))'}' > $@

# An environment and builds of their own. Of the engine one instruction set is counted, over its own tests (but for the one that
# brings its own malloc) and the Python tests (but for those that bound memory, of which counting takes much). Counters stand in
# cpp/include and cpp/src alone, as Eigen with them is slow, and are set before anything is inlined: a branch counts once, not once
# for every call.
COVERAGE := $(CURDIR)/build/coverage
COVERAGE_ISA ?= baseline
$(COVERAGE)/venv/stamp: pyproject.toml
	$(PYTHON) -m venv --clear $(COVERAGE)/venv
	pip install --quiet "pip>=25.1"
	pip install --quiet --group build --group test --group coverage
	touch $@

coverage: export VIRTUAL_ENV := $(COVERAGE)/venv
coverage: export PATH := $(COVERAGE)/venv/bin:$(PATH)
coverage: export COVERAGE_FILE := $(COVERAGE)/data/python
coverage: FLAGS := -O1 -finline-small-functions -fno-early-inlining -Dalways_inline=unused --coverage -fprofile-update=atomic \
  -fprofile-filter-files=.*/cpp/[is][nr]c.*
coverage: $(COVERAGE)/venv/stamp  ## branches that the tests take, of Python and of the engine: two tables, at least 95% each
	find $(COVERAGE) -name '*.gcda' -delete
	rm -rf $(COVERAGE)/data && mkdir $(COVERAGE)/data
	cmake --preset dev -B $(COVERAGE)/engine -DJEPA_ODE_ISAS=$(COVERAGE_ISA) -DCMAKE_CXX_FLAGS_DEBUG="$(FLAGS)"
	cmake --build $(COVERAGE)/engine -j $(JOBS)
	ctest --test-dir $(COVERAGE)/engine --output-on-failure --exclude-regex allocation
	pip install --quiet --no-build-isolation --no-deps --force-reinstall . -C build-dir=$(COVERAGE)/wheel -C cmake.build-type=Debug \
	  -C cmake.define.JEPA_ODE_ISAS=$(COVERAGE_ISA) -C cmake.define.CMAKE_CXX_FLAGS_DEBUG="$(FLAGS)"
	pip install --quiet "jepa-ode[all]"
	coverage run -m pytest -k 'not waiting_memory and not peak_memory'
	coverage combine --quiet
	coverage report
	python tools/engine_coverage.py $(COVERAGE) --at-least 95

MUTANTS ?= 120
mutants: $(TEST_ENVIRONMENT)  ## change the engine's arithmetic at MUTANTS (120) places, one at a time: which changes no test notices
	python tools/mutate.py --count $(MUTANTS) --jobs $(JOBS) --isa $$(python -c 'from jepa_ode import build_info; print(build_info()["isa"])')

gradients: $(TEST_ENVIRONMENT) $(STAMPS)/extra-experiments  ## what needs PyTorch, which it installs: the right-hand side against autograd, nonlinear encoders
	pytest tests/test_gradients_torch.py tests/test_encoders.py tests/test_experiments_mlp.py

CLANG ?= $(CURDIR)/cmake/zig_cxx.py
clang: $(STAMPS)/group-build $(STAMPS)/group-clang  ## the engine's tests with another compiler, a clang out of a wheel (CLANG=clang++: that one)
	CXX=$(CLANG) cmake --preset clang
	cmake --build --preset clang
	ctest --preset clang

asan tsan tidy: $(STAMPS)/group-build  ## the engine's tests under sanitizers (address and undefined behaviour; threads); clang-tidy
	cmake --preset $@
	cmake --build --preset $@
	ctest --preset $@
tidy: $(STAMPS)/group-tidy

# The package with a sanitized module, from the build of `make asan`, stands before the one of the environment. The sanitizer and the
# library of C++, whose exceptions it watches, have to be in a process before Python is. CPython itself leaks a little at its end: of
# the leaks only those count that have our sources on their stack. Left out are the tests that bound time or memory or read modules,
# and experiments and sweeps, which need no more of the engine than the others.
SANITIZED := build/asan/site
ASAN_TESTS ?= $(call leave_out,bench* build* codebase* docs* encoders* experiments* processes* *sweep*) -k 'not ctrl_c'
asan-python: $(TEST_ENVIRONMENT)  ## the Python tests, on a module under the address and undefined-behaviour sanitizers
	cmake --preset asan -DJEPA_ODE_PYTHON=ON -Dpybind11_DIR=$$(python -m pybind11 --cmakedir)
	cmake --build --preset asan
	rm -rf $(SANITIZED) build/asan/report.* && cmake --install build/asan --prefix $(SANITIZED) && cp -R python/jepa_ode $(SANITIZED)
	LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libstdc++.so)" PYTHONMALLOC=malloc PYTHONPATH=$(SANITIZED) \
	  ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 LSAN_OPTIONS=exitcode=0:log_path=$(CURDIR)/build/asan/report \
	  pytest --timeout 3000 $(ASAN_TESTS) || { cat build/asan/report.*; exit 1; }
	! grep -E '/cpp/(src|include|bindings)/' build/asan/report.*

# No call of either may take longer than two seconds; under sanitizers that is ten.
FUZZ_SECONDS ?= 60
fuzz: $(STAMPS)/installed $(STAMPS)/group-fuzz  ## random arguments for the engine, under sanitizers, and for the package: FUZZ_SECONDS (60) each
	cmake --preset asan
	cmake --build --preset asan --target fuzz_engine
	build/asan/tests/fuzz/fuzz_engine -max_total_time=$(FUZZ_SECONDS) -timeout=10
	mkdir -p build/fuzz/python
	python tests/fuzz/fuzz_python.py -max_total_time=$(FUZZ_SECONDS) -timeout=2 -max_len=3000 -len_control=0 \
	  -artifact_prefix=build/fuzz/ build/fuzz/python

clean:  ## remove the environment and everything built
	rm -rf $(VENV) build dist
