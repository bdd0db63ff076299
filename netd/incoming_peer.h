// incoming_peer.h - an accepted connection of the peer protocol until its first frame. Part of: netd-worker (edge).
// docs/protocol.md §13, hard mode. Who connects speaks first: only a whole preamble costs the vault a call, and only
// a genuine frame, which nobody makes without the block, ends the half-open state. What that frame holds is kept for
// whom the session is given to. Not a byte is read beyond what the state expects.
#pragma once

#include "netd/incoming.h"

namespace sallyport::netd {

class IncomingPeer final : public IncomingOf<PeerLink> {
 public:
  using IncomingOf::IncomingOf;

  wire::DropReason timeoutReason() const override;
  // Who is kept waiting with the keys of a block must not come in when it isn't in use any more.
  std::optional<uint32_t> blockVersion() const override {
    if (!candidates_.empty()) return candidates_.front().blockVersion;  // the one in use: ends when that is another
    return opening_ ? opening_->blockVersion() : IncomingOf::blockVersion();
  }

 private:
  void onHandshakeEvents() override;
  void release(bool failed) override;
  void readPreamble();
  void onAccepted(PeerAccepted& accepted);
  void choose(PeerSecrets& secrets);
  bool chooseByHeader();
  void readFirst();
  [[nodiscard]] bool open(const WireRead& read);

  wire::PeerPreambleBytes preamble_;
  size_t have_ = 0;
  wire::PeerParty theirParty_{};         // as their preamble says
  uint64_t askedUnder_ = 0;              // which configuration was in force then
  std::vector<PeerSecrets> candidates_;  // until it is known which version of the block the peer has
  wire::PeerHeaderBytes header_;         // of the first frame, which tells that
  size_t headerHave_ = 0;
  size_t firstBytes_ = 0;            // of the first frame, so far
  std::optional<PeerLink> opening_;  // with its keys, until the first frame
};

}  // namespace sallyport::netd
