// channel_life.h - how a connection takes a channel over, and how it leaves it. Part of: netd-worker (edge).
// The same for every protocol: channel.cc and base_channel.cc.
#pragma once

#include <algorithm>

#include "netd/channel.h"
#include "netd/worker.h"

namespace sallyport::netd {

inline void takeChannel(ChannelState& state, ChannelWire& connection, Worker& worker, const Entry& entry) {
  // Two programs that both send a frame and don't receive meanwhile must not wait for each other: the longest has room.
  constexpr size_t MIN_PEER_ROOM = 1 << 20;
  state.connection = &connection;
  state.inbox.setBudget(worker.sharedBudget());
  if (entry.framing) {
    state.maxMessageBytes = entry.framing->maxFrameBytes;
    state.reservesCode = !entry.framing->base;
    state.inbox.setRoom(std::max<size_t>(entry.framing->maxFrameBytes, MIN_PEER_ROOM));
  }
  worker.stats().add(Counter::Channels);
  worker.stats().add(Counter::Connections);
}

// `failure`: why the connection failed, if it did and nobody has said it yet.
inline void leaveChannel(const std::shared_ptr<ChannelState>& state, Worker& worker,
                         std::optional<wire::DropReason> failure) {
  worker.stats().subtract(Counter::Channels);
  worker.stats().subtract(Counter::Connections);
  state->connection = nullptr;
  if (failure && !state->broken && !state->ended) state->broken = failure;
  state->ended = true;
  // Not now: a program's object may be the caller.
  worker.soon([state, failure] {
    if (failure == wire::DropReason::MemoryLimit) state->inbox.wipeAll();  // else nothing would be gained
    if (state->onNews) state->onNews();
    if (state->onSent) state->onSent();
  });
}

// How long what a peer still sends is read and thrown away: a close with bytes unread would be a reset, which takes
// what we sent last from the peer's hands.
inline constexpr uint32_t LINGER_MS = 2000;
template <typename Over>
kj::Promise<void> lingerThen(Worker& worker, Over over) {
  return worker.loop()
      .timer()
      .afterDelay(LINGER_MS * kj::MILLISECONDS)
      .then([&worker, over] { worker.soon(over); })
      .eagerlyEvaluate(nullptr);
}

}  // namespace sallyport::netd
