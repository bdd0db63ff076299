// channel_rpc.h - the RPC object of one message channel. Part of: netd-worker 0 (edge: serves Channel of
// proto/net.capnp).
#pragma once

#include <memory>

#include "netd/channel.h"
#include "proto/net.capnp.h"

namespace sallyport::netd {

// The live objects of one client of [net] socket.
using ObjectCount = std::shared_ptr<size_t>;

// Counts one live object of a client.
class Counted {
 public:
  explicit Counted(ObjectCount count) : count_(std::move(count)) { ++*count_; }
  Counted(const Counted&) = delete;
  ~Counted() { --*count_; }

 private:
  ObjectCount count_;
};

// Claims the channel. The object's end, by close() or by its client's, is the channel's.
proto::Channel::Client makeChannel(Worker& worker, std::shared_ptr<ChannelState> state, ObjectCount count);

}  // namespace sallyport::netd
