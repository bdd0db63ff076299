// wire_session.h - an encrypted connection that is handed from its handshake to its user. Part of: netd-worker.
#pragma once

#include <kj/io.h>

#include "netd/session.h"
#include "netd/sources.h"

namespace sallyport::netd {

struct WireSession {
  kj::AutoCloseFd socket;  // registered nowhere
  Session session;
  Sources::Ticket ticket;  // empty on a client
};

}  // namespace sallyport::netd
