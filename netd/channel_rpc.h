// channel_rpc.h - the RPC object of one message channel. Part of: netd-worker 0 (edge: serves Channel of
// proto/net.capnp).
#pragma once

#include "netd/channel.h"
#include "netd/live_objects.h"
#include "proto/net.capnp.h"

namespace sallyport::netd {

// Claims the channel. The object's end, by close() or by its client's, is the channel's.
proto::Channel::Client makeChannel(Worker& worker, std::shared_ptr<ChannelState> state, ObjectCount count);

}  // namespace sallyport::netd
