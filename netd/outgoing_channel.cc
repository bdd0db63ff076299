// outgoing_channel.cc - see outgoing_channel.h.
#include "netd/outgoing_channel.h"

#include "netd/base_channel.h"
#include "netd/outgoing_base.h"
#include "netd/outgoing_curve.h"
#include "netd/outgoing_peer.h"
#include "netd/worker.h"

namespace sallyport::netd {

using wire::DropReason;

namespace {

template <typename Link>
std::unique_ptr<Connection> makeChannelConnection(Worker& worker, const std::shared_ptr<const Entry>& entry,
                                                  WireSessionOf<Link> wire, std::shared_ptr<ChannelState> state) {
  return std::make_unique<ChannelConnectionOf<Link>>(worker, entry, entry->server, std::move(wire), std::move(state));
}
std::unique_ptr<Connection> makeChannelConnection(Worker& worker, const std::shared_ptr<const Entry>& entry,
                                                  WireSessionOf<BaseLink> wire, std::shared_ptr<ChannelState> state) {
  return std::make_unique<BaseChannel>(worker, entry, std::move(wire), std::move(state));
}

template <typename Outgoing, typename Link>
std::unique_ptr<Connection> open(Worker& worker, const std::shared_ptr<const Entry>& entry, OnChannel onDone) {
  return std::make_unique<Outgoing>(
      worker, entry, [&worker, entry, onDone = std::move(onDone)](Result<WireSessionOf<Link>, DropReason> outcome) {
        if (!outcome) return onDone(refuse(outcome.error()));
        auto state = std::make_shared<ChannelState>();
        worker.own(makeChannelConnection(worker, entry, std::move(*outcome), state));
        onDone(std::move(state));
      });
}

}  // namespace

void connectChannel(Worker& worker, const std::shared_ptr<const Entry>& entry, OnChannel onDone) {
  auto connection = entry->isBase()  ? open<OutgoingBase, BaseLink>(worker, entry, std::move(onDone))
                    : entry->framing ? open<OutgoingPeer, PeerLink>(worker, entry, std::move(onDone))
                                     : open<OutgoingHandshake, CurveLink>(worker, entry, std::move(onDone));
  worker.startHandshake(*connection, false);
  worker.own(std::move(connection));
}

}  // namespace sallyport::netd
