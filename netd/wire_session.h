// wire_session.h - an encrypted connection that is handed from its handshake to its user. Part of: netd-worker.
#pragma once

#include <kj/io.h>

#include "netd/curve_link.h"
#include "netd/peer_link.h"
#include "netd/sources.h"

namespace sallyport::netd {

template <typename Link>
struct WireSessionOf {
  kj::AutoCloseFd socket;  // registered nowhere
  Link link;
  Sources::Ticket ticket;  // empty on a client
};

}  // namespace sallyport::netd
