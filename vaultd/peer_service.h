// peer_service.h - one connection in base mode, as netd holds it (PeerSession). Process: vaultd alone. See
// proto/vault.capnp and docs/protocol.md §14. The connection ends with close(), with this object, or with netd.
#pragma once

#include "proto/vault.capnp.h"
#include "vaultd/vault_state.h"

namespace sallyport::vaultd {

class PeerSessionService final : public proto::PeerSession::Server {
 public:
  // Of all netd's together: many times the sessions that there may be, and yet not what a netd that never releases one
  // would make of it.
  static constexpr size_t MAX_OBJECTS = 512;

  // `number` is of state.base.
  PeerSessionService(VaultState& state, uint64_t number) : state_(state), number_(number) {
    ++state_.peerSessionObjects;
  }
  ~PeerSessionService() noexcept;

  // The connection's first bytes, in the step that begins it. A session that they don't prove anything of is over, and
  // refused is what claiming the block was.
  Result<void, Refusal> openFirst(ByteSpan frames, proto::OpenedOutcome::Builder outcome);

 protected:
  kj::Promise<void> seal(SealContext context) override;
  kj::Promise<void> open(OpenContext context) override;
  kj::Promise<void> close(CloseContext context) override;
  kj::Promise<void> ended(EndedContext context) override;

 private:
  // The session, if it may still do something. EXPIRED, NOT_RECORDED.
  Result<BaseSessions::Session*, Refusal> session();
  Result<void, Refusal> claim(BaseSessions::Session& session);
  template <typename Context, typename Step>
  kj::Promise<void> answer(Context& context, size_t words, Step&& step);
  Result<void, Refusal> sealInto(ByteSpan frames, proto::SealedOutcome::Builder outcome);
  Result<void, Refusal> openInto(ByteSpan frames, proto::OpenedOutcome::Builder outcome);

  VaultState& state_;
  uint64_t number_;
};

}  // namespace sallyport::vaultd
