// listening_sockets.h - binds what the configuration names. Part of: netd (monitor).
// A TCP address is bound once a worker (SO_REUSEPORT): the kernel spreads connections, and what waits for a dead worker
// waits for its successor, as the monitor keeps every socket. A Unix address is bound once and shared.
#pragma once

#include <sys/types.h>

#include <vector>

#include <kj/io.h>

#include "common/config.h"
#include "common/result.h"

namespace sallyport::netd {

// One socket a worker, or one for all. The error names the address and the remedy. `unixMode`: of a Unix socket's file.
// `inForce`: of a netd that has started already, and may have given up the right to bind.
Result<std::vector<kj::AutoCloseFd>, ConfigError> bindListeners(const Address& address, mode_t unixMode,
                                                                unsigned workers, unsigned line,
                                                                const Config* inForce = nullptr);
// Both sides of entries are open to every local user, as a port is, but whom their folder doesn't let pass: who starts
// netd is not who uses its tunnels, and at the encrypted side peers prove who they are.
inline constexpr mode_t ENTRY_SOCKET_MODE = 0666;
inline constexpr mode_t METRICS_SOCKET_MODE = 0600;
// [net] socket is for programs of the user that started us, and root; and for `socket_group`.
inline constexpr mode_t NET_SOCKET_MODE = 0600;

}  // namespace sallyport::netd
