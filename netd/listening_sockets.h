// listening_sockets.h - binds what the configuration names. Part of: netd (monitor).
// A TCP address is bound once a worker (SO_REUSEPORT): the kernel spreads connections, and what waits for a dead worker
// waits for its successor, as the monitor keeps every socket. A Unix address is bound once and shared.
#pragma once

#include <vector>

#include <kj/io.h>

#include "common/config.h"
#include "common/result.h"

namespace sallyport::netd {

// One socket a worker, or one for all. The error names the address and the remedy.
Result<std::vector<kj::AutoCloseFd>, ConfigError> bindListeners(const Address& address, unsigned workers,
                                                                unsigned line);

}  // namespace sallyport::netd
