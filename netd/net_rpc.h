// net_rpc.h - the RPC objects of proto/net.capnp. Part of: netd-worker 0 (edge).
#pragma once

#include <capnp/capability.h>

namespace sallyport::netd {

class Worker;

// The bootstrap of one client of [net] socket; it counts that client's live objects.
capnp::Capability::Client makeNetwork(Worker& worker);

}  // namespace sallyport::netd
