// expectation.h - which faults may follow from what was done to a connection. Part of: tests/sim.
#pragma once

#include <optional>

#include "proto/wire/drop_reason.h"
#include "tests/sim/ends.h"
#include "tests/sim/wire.h"

namespace sallyport::sim {

// True if an end of `wire` may fail with this reason.
bool mayFail(const Wire& wire, bool server, wire::DropReason reason);

}  // namespace sallyport::sim
