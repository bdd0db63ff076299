// channel_rpc.h - the RPC object of one message channel. Part of: netd-worker 0 (edge: serves Channel of
// proto/net.capnp).
#pragma once

#include <memory>

#include "common/link.h"
#include "netd/channel.h"
#include "proto/net.capnp.h"

namespace sallyport::netd {

// The live objects of one client of [net] socket, and what they cost its link's budget.
struct LiveObjects {
  static constexpr size_t BYTES_EACH = 1536;  // measured: with what the RPC system keeps of it
  size_t count = 0;
  std::shared_ptr<LinkCharge> charge;  // null: they cost nothing
};
using ObjectCount = std::shared_ptr<LiveObjects>;

// Counts one live object of a client.
class Counted {
 public:
  explicit Counted(ObjectCount objects) : objects_(std::move(objects)) {
    ++objects_->count;
    if (objects_->charge) objects_->charge->bytes += LiveObjects::BYTES_EACH;
  }
  Counted(const Counted&) = delete;
  ~Counted() {
    --objects_->count;
    if (objects_->charge) objects_->charge->bytes -= LiveObjects::BYTES_EACH;
  }

 private:
  ObjectCount objects_;
};

// Claims the channel. The object's end, by close() or by its client's, is the channel's.
proto::Channel::Client makeChannel(Worker& worker, std::shared_ptr<ChannelState> state, ObjectCount count);

}  // namespace sallyport::netd
