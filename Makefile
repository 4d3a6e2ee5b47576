# `make tour` and `make test` set everything up in .venv; both do only what has changed since.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
EXTRAS ?= cli,test,lint
BUILD := build/venv

ENGINE := CMakeLists.txt pyproject.toml $(wildcard src/core/*) $(wildcard src/core/test/*)
PACKAGE := $(shell find src/einstride -name '*.py' -o -name '*.pyi')
TESTS := $(shell find tests bench docs -name '*.py' -o -name '*.toml' -o -name '*.md' -o -name '*.ipynb') $(wildcard *.md)

# Tests that the instruction-set level has no part in run at the best one only.
AT_EACH_LEVEL := tests/test_api.py tests/test_attention.py tests/test_core.py tests/test_numbers.py tests/test_properties.py tests/test_threads.py

.PHONY: tour test bench lint stubs format sanitize wheel clean

tour: $(BUILD)/installed
	$(RUN)/einstride tour

# The closing lines of the last run are its stamp, and are shown again where nothing has changed.
test: $(BUILD)/tested
	@cat $(BUILD)/tested

bench: $(BUILD)/installed
	$(RUN)/python -m bench

lint: $(BUILD)/installed
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/clang-format --dry-run --Werror $(wildcard src/core/*.[chi]pp src/core/*.inc src/core/test/*)

format: $(BUILD)/installed
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .
	$(RUN)/clang-format -i $(wildcard src/core/*.[chi]pp src/core/*.inc src/core/test/*)

stubs: $(BUILD)/installed
	$(RUN)/python -m nanobind.stubgen -q -m einstride._core -p src/core/_core.pat -o src/einstride/_core.pyi

wheel: $(VENV)/ready
	$(RUN)/pip wheel -q --no-deps -w dist .

clean:
	rm -rf $(VENV) build dist

$(VENV)/ready:
	$(PYTHON) -m venv $(VENV)
	$(RUN)/pip install -q --upgrade pip
	$(RUN)/pip install -q "scikit-build-core>=0.10" "nanobind>=2.4" "numpy>=2.0" cmake ninja
	touch $@

# Editable: Python sources are used from where they are, the extension is built again when it must be.
$(BUILD)/installed: $(VENV)/ready $(ENGINE)
	PATH="$(abspath $(RUN)):$$PATH" $(RUN)/pip install -q --no-build-isolation -C build-dir=$(BUILD) \
	  -C cmake.define.EINSTRIDE_TESTS=ON -e ".[$(EXTRAS)]"
	touch $@

$(BUILD)/tested: $(BUILD)/installed $(PACKAGE) $(TESTS)
	@rm -f $@ $(BUILD)/closing
	$(MAKE) --no-print-directory lint
	$(RUN)/ctest --test-dir $(BUILD) --output-on-failure
	@set -e; for level in $$($(RUN)/python -c "from einstride import _core; print(*_core.levels())"); do \
	  tests=$$([ -f $(BUILD)/closing ] && echo "$(AT_EACH_LEVEL)" || true); \
	  echo "level $$level"; \
	  EINSTRIDE_LEVEL=$$level $(RUN)/python -m pytest -q $$tests > $(BUILD)/pytest.log 2>&1 \
	    || { cat $(BUILD)/pytest.log; exit 1; }; \
	  echo "$$level: $$(tail -n 1 $(BUILD)/pytest.log)" >> $(BUILD)/closing; \
	done
	@mv $(BUILD)/closing $@

# Address and undefined-behaviour sanitizers on the C++ tests and on Python tests of the engine; the thread sanitizer
# on the pool.
sanitize: $(BUILD)/installed
	$(RUN)/cmake -S . -B build/asan -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(RUN))/ninja -DCMAKE_BUILD_TYPE=Release \
	  -DPython_EXECUTABLE=$(abspath $(RUN))/python -DEINSTRIDE_TESTS=ON -DEINSTRIDE_SANITIZE=address,undefined
	$(RUN)/cmake --build build/asan
	$(RUN)/ctest --test-dir build/asan --output-on-failure
	$(RUN)/cmake -S . -B build/tsan -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(RUN))/ninja -DCMAKE_BUILD_TYPE=Release \
	  -DEINSTRIDE_PYTHON=OFF -DEINSTRIDE_TESTS=ON -DEINSTRIDE_SANITIZE=thread
	$(RUN)/cmake --build build/tsan --target parallel_test
	build/tsan/parallel_test
	rm -rf build/asan/package && mkdir -p build/asan/package
	cp -r src/einstride build/asan/package/ && rm -f build/asan/package/einstride/_core*.so
	cp build/asan/_core*.so build/asan/package/einstride/
	# Without site (-S) the editable install does not step in. No sanitizer lets an allocation fail.
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
	  LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	  PYTHONPATH=build/asan/package:$$($(RUN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))") \
	  $(RUN)/python -S -m pytest -q -p no:cacheprovider -k "not impossible and not stub and not levels and not extra_memory and not high_water and not torchs" \
	  tests/test_core.py tests/test_api.py tests/test_attention.py tests/test_numbers.py
