// outgoing_base.h - a connection of the peer protocol's base mode to a configured host. Part of: netd-worker (edge).
// docs/protocol.md §13.3. Nothing is exchanged before the first frame: that a host answers doesn't mean it is the peer.
#pragma once

#include "netd/base_session.h"
#include "netd/outgoing.h"
#include "netd/worker.h"

namespace sallyport::netd {

class OutgoingBase final : public OutgoingOf<BaseLink> {
 public:
  using OutgoingOf::OutgoingOf;

 private:
  void start() override {
    question_ = worker_.vault().openPeerSession(entry(), false, {}, [this](auto begun) {
      question_ = nullptr;
      if (!begun) return drop(begun.error());
      established(BaseLink{std::move(begun->session), std::make_unique<BaseFrames>(worker_.sharedBudget())});
    });
  }
  void onReadable() override {}
};

}  // namespace sallyport::netd
