#include "tests/sim/expectation.h"

#include <algorithm>
#include <initializer_list>

namespace sallyport::sim {

using R = wire::DropReason;

namespace {

bool oneOf(R reason, std::initializer_list<R> reasons) { return std::ranges::find(reasons, reason) != reasons.end(); }

// Changed, missing or strange bytes. Not among them: AfterEnd, for nobody can forge a message behind the end.
bool fromBytes(R reason) {
  return oneOf(reason, {R::BadLength, R::BadMagic, R::BadCounter, R::BadBox, R::LowOrderKey, R::UnknownCookie,
                        R::BadVouch, R::HandshakeTimeout, R::ClosedInHandshake, R::Truncated});
}

// One flipped bit has one consequence (protocol §1: what is checked, and in this order).
bool fromFlip(const Wire& wire, R reason) {
  const size_t at = wire.flippedBit / 8;
  if (at < wire::FRAME_HEADER_BYTES) return fromBytes(reason);
  const size_t offset = at - wire::FRAME_HEADER_BYTES;
  if (offset < wire::MAGIC_BYTES) return reason == R::BadMagic;
  const size_t frame = wire.plan.frame;
  if (wire.plan.toServer && frame == 0) {
    if (offset >= wire::MAGIC_BYTES + wire::KEY_BYTES + wire::COUNTER_BYTES) return reason == R::BadBox;
    if (offset >= wire::MAGIC_BYTES + wire::KEY_BYTES) return reason == R::BadCounter;
    // X25519 ignores the highest bit of a key: such a Hello opens, and only the vouch tells.
    const bool highest = wire.flippedBit % 8 == 7 && offset == wire::MAGIC_BYTES + wire::KEY_BYTES - 1;
    return highest ? reason == R::BadVouch : oneOf(reason, {R::BadBox, R::LowOrderKey});
  }
  if (wire.plan.toServer && frame == 1) {
    if (offset < wire::MAGIC_BYTES + wire::COOKIE_BYTES) return reason == R::UnknownCookie;
    return reason ==
           (offset < wire::MAGIC_BYTES + wire::COOKIE_BYTES + wire::COUNTER_BYTES ? R::BadCounter : R::BadBox);
  }
  if (!wire.plan.toServer && frame == 0) return reason == R::BadBox;
  return reason == (offset < wire::MAGIC_BYTES + wire::COUNTER_BYTES ? R::BadCounter : R::BadBox);
}

}  // namespace

bool mayFail(const Wire& wire, bool server, R reason) {
  const uint32_t excuses = wire.excuses();
  if (excuses == 0) return false;
  // The other end failed first.
  const bool echo = oneOf(reason, {R::ClosedInHandshake, R::Truncated});
  if (excuses == TAMPERED && wire.plan.deed == Deed::Flip && wire.done && !wire.spliced) {
    return server == wire.plan.toServer ? fromFlip(wire, reason) : echo;
  }
  if (echo) return true;
  if ((excuses & (TAMPERED | ATTACKED)) != 0 && fromBytes(reason)) return true;
  if ((excuses & VAULT) != 0 && oneOf(reason, {R::VaultUnavailable, R::NonceUnavailable})) return true;
  if ((excuses & REVOKED) != 0 && oneOf(reason, {R::PeerNotAllowed, R::PeerRevoked})) return true;
  if ((excuses & ROTATED) != 0 && reason == R::ExpiredCookie) return true;
  return (excuses & CROWDED) != 0 && reason == R::HalfOpenLimit;
}

}  // namespace sallyport::sim
