// live_objects.h - how many RPC objects a client of [net] socket holds. Part of: netd-worker 0 (edge).
#pragma once

#include <cstddef>
#include <memory>
#include <utility>

#include "common/link.h"

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

}  // namespace sallyport::netd
