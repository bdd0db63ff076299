// hard_keys.cc - see hard_keys.h.
#include "peer/hard_keys.h"

#include <algorithm>
#include <string>

namespace sallyport::peer {

using wire::PeerMode;
using wire::PeerParty;

namespace {

struct EpochSecretTag;
using EpochSecret = SecretBytes<EpochSecretTag, wire::PEER_SECRET_BYTES>;

constexpr std::string_view KEYS_INFO = "p2pframe/1 keys ";
constexpr std::string_view NEXT_INFO = "p2pframe/1 next";
constexpr size_t EXPANDED_BYTES = 112;  // cipher key 32, first block 16, tag key 32, header key 32

// HKDF-Expand of RFC 5869 with SHA-256.
struct ExpandedTag;
using Expanded = SecretBytes<ExpandedTag, EXPANDED_BYTES>;
Expanded expand(const HmacKey& secret, std::string_view info, std::byte letter) {
  Expanded out;
  Digest block;
  for (size_t at = 0, count = 1; at < EXPANDED_BYTES; at += DIGEST_BYTES, ++count) {
    const std::array<std::byte, 2> end = {letter, static_cast<std::byte>(count)};
    const ByteSpan previous = count == 1 ? ByteSpan() : ByteSpan(block.expose());
    Digest next;
    secret.mac(next.exposeMutable(), {previous, asBytes(info), end});
    const size_t bytes = std::min(DIGEST_BYTES, EXPANDED_BYTES - at);
    std::memcpy(out.exposeMutable().data() + at, next.expose().data(), bytes);
    block = std::move(next);
  }
  return out;
}

class HardSchedule : public KeySchedule {
 public:
  // `sender` is the party whose direction this is.
  HardSchedule(ByteSpan secret, PeerParty sender) : secret_(secret), letter_(static_cast<std::byte>(sender)) {}

  bool next(EpochKeys& keys) override {
    const HmacKey secret(secret_.expose());
    const Expanded all = expand(secret, KEYS_INFO, letter_);
    const auto bytes = all.expose();
    keys.stream.key = CipherKey(bytes.subspan(0, 32));
    keys.stream.first = FirstBlock(bytes.subspan(32, 16));
    keys.tag = HmacKey(bytes.subspan(48, 32));
    keys.header = HmacKey(bytes.subspan(80, 32));
    // One way, and at once: from what is kept now, the keys just made don't follow.
    secret.mac(secret_.exposeMutable(), {asBytes(NEXT_INFO)});
    return true;
  }

 private:
  EpochSecret secret_;
  std::byte letter_;
};

}  // namespace

FrameSealer hardSealer(SendSecret secret, PeerParty own, uint32_t rotateFrames) {
  return FrameSealer(Direction(PeerMode::Hard, std::make_unique<HardSchedule>(secret.expose(), own), rotateFrames));
}

FrameOpener hardOpener(ReceiveSecret secret, PeerParty own, uint32_t maxFrameBytes, uint32_t rotateFrames) {
  return FrameOpener(
      Direction(PeerMode::Hard, std::make_unique<HardSchedule>(secret.expose(), wire::otherParty(own)), rotateFrames),
      maxFrameBytes);
}

}  // namespace sallyport::peer
