# EROS. `make demo` shows it, `make check` tests it; both install what is missing.

EXTENSION = eros
MODULE_big = eros
DATA = $(wildcard sql/*--*.sql)
OBJS = $(patsubst %.c,%.o,$(wildcard src/*.c))

# The library knows its version, and compares it with the extension's in each database.
EXTENSION_VERSION = $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" eros.control)

REGRESS = $(patsubst test/sql/%.sql,%,$(wildcard test/sql/*.sql))
REGRESS_OPTS = --inputdir=test --load-extension=$(EXTENSION)
ISOLATION = $(patsubst test/isolation/specs/%.spec,%,$(wildcard test/isolation/specs/*.spec))
ISOLATION_OPTS = --inputdir=test/isolation --load-extension=$(EXTENSION)
EXTRA_CLEAN = results regression.diffs regression.out output_iso tmp_check tmp_check_iso log

# PostgreSQL's own headers provoke the warnings that are switched off.
PG_CFLAGS = -DEROS_VERSION='"$(EXTENSION_VERSION)"' -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers

# clang does not know all the options that a server built with gcc hands on.
ifneq (,$(findstring clang,$(CC)))
PG_CFLAGS += -Wno-unknown-warning-option -Wno-ignored-optimization-argument -Wno-ignored-attributes
endif

# No bitcode for JIT: it would need the very clang that the server was built with.
override with_llvm = no

PG_CONFIG ?= pg_config
PGXS = $(shell $(PG_CONFIG) --pgxs 2>/dev/null)

# What needs a set-up first is a script, which runs make again once there is a pg_config.
COMMANDS = setup demo check soak preload fuzz sanitize lint format replay bench pictures
ifneq (,$(filter $(COMMANDS),$(MAKECMDGOALS)))

.PHONY: $(MAKECMDGOALS)
$(COMMANDS):
	@script/$@
$(filter-out $(COMMANDS),$(MAKECMDGOALS)):
	@$(MAKE) $@

else ifneq (,$(wildcard $(PGXS)))

include $(PGXS)
$(OBJS): $(wildcard src/*.h) eros.control

else

.PHONY: all install installcheck clean
all install installcheck clean:
	@echo 'make: $(PG_CONFIG) finds no PostgreSQL development files: run "make setup",' >&2
	@echo 'or install them (Debian: postgresql-server-dev-15), or set PG_CONFIG' >&2
	@exit 1

endif
