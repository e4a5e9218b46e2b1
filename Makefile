# SPDX-License-Identifier: BSD-3-Clause
# A thin door to meson, which is the build. CI=true makes warnings errors.
BUILD ?= build
MESON_ARGS := $(if $(filter true 1,$(CI)),-Dwerror=true)

.PHONY: all deps configure demo demo-rootless test check budget asan tsan fuzz docs install clean bench marks bench-docs

all: configure
	ninja -C $(BUILD)

deps:
	scripts/deps.sh build

configure: deps
	@if [ ! -f $(BUILD)/build.ninja ]; then meson setup $(BUILD) $(MESON_ARGS); \
	elif [ -n "$(MESON_ARGS)" ]; then meson configure $(BUILD) $(MESON_ARGS); fi

# The main job, end to end; see docs/usage.md. DEMO_IMPAIR=loss:3%,reorder:3%,delay:5ms makes the wire bad.
demo: all
	scripts/deps.sh demo
	scripts/demo.sh --build $(BUILD)

# The same without root's rights, also when root calls it.
demo-rootless: all
	scripts/deps.sh demo
	scripts/demo.sh --build $(BUILD) --rootless

# Everything; a test that needs root, or a program that is not there, skips and says why.
test: all
	scripts/deps.sh --optional demo test
	meson test -C $(BUILD) --print-errorlogs

# What CI looks at besides the tests: format, headers alone, forbidden calls, generated pages.
check: all
	scripts/check.sh $(BUILD)

# Instructions that the hot paths execute, against tests/budget/budget.tsv. RENEW=1 writes that table anew.
budget: all
	scripts/deps.sh --optional test
	$(if $(RENEW),ninja -C $(BUILD) budget-renew,meson test -C $(BUILD) --suite budget --verbose)

# The unit tests under AddressSanitizer and UndefinedBehaviorSanitizer.
asan: deps
	@[ -f $(BUILD)-asan/build.ninja ] || meson setup $(BUILD)-asan -Db_sanitize=address,undefined -Db_lundef=false
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 meson test -C $(BUILD)-asan --suite unit --print-errorlogs

# The suite "threads", real threads under ThreadSanitizer: the broadcast ring, the workers of each mode and variant beside each other, workers that sleep and are woken, and programs whose threads use
# libisosock beside the stack's. It finds accesses that are not atomic and what no lock or queue keeps apart; whether fences suffice, which it does not see, is asked of the models in tests/spin.
tsan: deps
	@[ -f $(BUILD)-tsan/build.ninja ] || meson setup $(BUILD)-tsan -Db_sanitize=thread -Db_lundef=false
	TSAN_OPTIONS=history_size=7:suppressions=$(CURDIR)/tests/unit/tsan.supp meson test -C $(BUILD)-tsan --suite threads --print-errorlogs -t 4

# One target for a while, by clang's libFuzzer: make fuzz TARGET=fuzz_frame SECONDS=90. What it learns stays in the build folder.
TARGET ?= fuzz_segment
SECONDS ?= 60
fuzz: deps
	@[ -f $(BUILD)-fuzz/build.ninja ] || CC=clang meson setup $(BUILD)-fuzz -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false
	ninja -C $(BUILD)-fuzz tests/fuzz/$(TARGET)
	mkdir -p $(BUILD)-fuzz/corpus/$(TARGET)
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 $(BUILD)-fuzz/tests/fuzz/$(TARGET) -max_total_time=$(SECONDS) -max_len=4096 -len_control=0 \
	    -artifact_prefix=$(BUILD)-fuzz/$(TARGET)- $(BUILD)-fuzz/corpus/$(TARGET) tests/fuzz/corpus/$(TARGET)

# The papers' figures, beside the kernel and the papers' own values: make bench FIG=parallel/fig2; FIG=list names all; without FIG a quick set. Needs root. CSV and SVG
# go to $(BUILD)/figures; BENCH_ARGS="--rounds 1 --seconds 1" and the like are passed on (bench/figures.py --help).
FIG ?= quick
bench: all
	scripts/deps.sh bench
	ninja -C $(BUILD) bench/dominoes/replicated_work bench/dominoes/ring_rate
	bench/figures.py --build $(BUILD) $(BENCH_ARGS) $(FIG)

# Everything that docs/performance.md has tables of, each run written to $(BUILD)/figures as it ends: about twenty-five minutes on a quiet machine. Needs root. bench-docs then writes
# these tables into the page; those that were not measured stay as they are.
marks: all
	scripts/deps.sh bench
	bench/all.py --build $(BUILD) $(BENCH_ARGS)

bench-docs:
	bench/all.py --build $(BUILD) --doc
	@if ls $(BUILD)/figures/*.md >/dev/null 2>&1; then bench/figures.py --build $(BUILD) --doc docs/papers.md all; fi

# Write the generated pages again after the table of options has changed.
docs: all
	$(BUILD)/apps/isosockd --print-sample > config/isosockd.conf.sample
	$(BUILD)/apps/isosockd --print-options > docs/options.md

install: all
	meson install -C $(BUILD)

clean:
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan $(BUILD)-fuzz
