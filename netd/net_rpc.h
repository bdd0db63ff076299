// net_rpc.h - the RPC objects of proto/net.capnp. Part of: netd-worker 0 (edge).
#pragma once

#include <memory>

#include <capnp/capability.h>

#include "common/link.h"

namespace sallyport::netd {

class Worker;

// The bootstrap of one client of [net] socket; it counts that client's live objects, and charges it for them.
capnp::Capability::Client makeNetwork(Worker& worker, std::shared_ptr<LinkCharge> charge);

}  // namespace sallyport::netd
