// outgoing_channel.cc - see outgoing_channel.h.
#include "netd/outgoing_channel.h"

#include "netd/outgoing_curve.h"
#include "netd/outgoing_peer.h"
#include "netd/worker.h"

namespace sallyport::netd {

using wire::DropReason;

namespace {

template <typename Outgoing, typename Link>
std::unique_ptr<Connection> open(Worker& worker, const std::shared_ptr<const Entry>& entry, OnChannel onDone) {
  return std::make_unique<Outgoing>(
      worker, entry, [&worker, entry, onDone = std::move(onDone)](Result<WireSessionOf<Link>, DropReason> outcome) {
        if (!outcome) return onDone(refuse(outcome.error()));
        auto state = std::make_shared<ChannelState>();
        worker.own(std::make_unique<ChannelConnectionOf<Link>>(worker, entry, entry->server, std::move(*outcome), state));
        onDone(std::move(state));
      });
}

}  // namespace

void connectChannel(Worker& worker, const std::shared_ptr<const Entry>& entry, OnChannel onDone) {
  auto connection = entry->framing ? open<OutgoingPeer, PeerLink>(worker, entry, std::move(onDone))
                                   : open<OutgoingHandshake, CurveLink>(worker, entry, std::move(onDone));
  worker.startHandshake(*connection, false);
  worker.own(std::move(connection));
}

}  // namespace sallyport::netd
