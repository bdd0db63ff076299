// block_keys.cc - see block_keys.h.
#include "peer/block_keys.h"

#include <sodium/crypto_hash_sha512.h>

namespace sallyport::peer {

using wire::PeerMode;
using wire::PeerParty;

namespace {

using HalfView = std::span<const std::byte, wire::PEER_HALF_BYTES>;

constexpr size_t CIPHER_KEY_BYTES = 32;
constexpr size_t FIRST_BLOCK_BYTES = wire::PEER_CIPHER_BLOCK_BYTES;
constexpr std::string_view ROTATE_INFO = "p2pframe rotate";

// A sends with the first half, B with the second.
HalfView halfOf(PeerBlockView block, PeerParty sender) {
  return sender == PeerParty::A ? HalfView(block.first<wire::PEER_HALF_BYTES>())
                                : HalfView(block.last<wire::PEER_HALF_BYTES>());
}

template <typename Secret>
Secret hardSecret(PeerBlockView block, PeerParty sender, const wire::PeerSalt& saltA, const wire::PeerSalt& saltB) {
  std::array<std::byte, 2 * wire::PEER_SALT_BYTES> salts;
  std::memcpy(salts.data(), saltA.data(), wire::PEER_SALT_BYTES);
  std::memcpy(salts.data() + wire::PEER_SALT_BYTES, saltB.data(), wire::PEER_SALT_BYTES);
  Secret secret;
  HmacKey(salts).mac(secret.exposeMutable(), {halfOf(block, sender)});
  return secret;
}

class BaseSchedule : public KeySchedule {
 public:
  explicit BaseSchedule(HalfView half) : half_(half) {}

  bool next(EpochKeys&) override {
    if (epochs_ > UINT32_MAX) return false;
    ++epochs_;
    return true;
  }

  void fetch(StreamKey& key) const override {
    if (epochs_ == 1) return take(key, half_);
    std::array<std::byte, 4> epoch;
    for (size_t i = 0; i < 4; ++i) epoch[i] = static_cast<std::byte>((epochs_ - 1) >> (24 - 8 * i));
    struct RotatedTag;
    SecretBytes<RotatedTag, crypto_hash_sha512_BYTES> rotated;
    crypto_hash_sha512_state state;
    crypto_hash_sha512_init(&state);
    for (const ByteSpan part : {asBytes(ROTATE_INFO), ByteSpan(half_), ByteSpan(epoch)})
      crypto_hash_sha512_update(&state, uchars(part), part.size());
    crypto_hash_sha512_final(&state, rotated.exposeData());  // wipes the state
    take(key, rotated.expose());
  }

 private:
  static void take(StreamKey& key, ByteSpan bytes) {
    key.key = CipherKey(bytes.first(CIPHER_KEY_BYTES));
    key.first = FirstBlock(bytes.subspan(CIPHER_KEY_BYTES, FIRST_BLOCK_BYTES));
  }

  HalfView half_;
  uint64_t epochs_ = 0;  // begun
};

Direction baseDirection(PeerBlockView block, PeerParty sender, uint32_t rotateFrames) {
  return Direction(PeerMode::Base, std::make_unique<BaseSchedule>(halfOf(block, sender)), rotateFrames);
}

}  // namespace

SendSecret hardSendSecret(PeerBlockView block, PeerParty own, const wire::PeerSalt& ownSalt,
                          const wire::PeerSalt& peerSalt) {
  return own == PeerParty::A ? hardSecret<SendSecret>(block, own, ownSalt, peerSalt)
                             : hardSecret<SendSecret>(block, own, peerSalt, ownSalt);
}

ReceiveSecret hardReceiveSecret(PeerBlockView block, PeerParty own, const wire::PeerSalt& ownSalt,
                                const wire::PeerSalt& peerSalt) {
  return own == PeerParty::A ? hardSecret<ReceiveSecret>(block, wire::otherParty(own), ownSalt, peerSalt)
                             : hardSecret<ReceiveSecret>(block, wire::otherParty(own), peerSalt, ownSalt);
}

FrameSealer baseSealer(PeerBlockView block, PeerParty own, uint32_t rotateFrames) {
  return FrameSealer(baseDirection(block, own, rotateFrames));
}

FrameOpener baseOpener(PeerBlockView block, PeerParty own, uint32_t maxFrameBytes, uint32_t rotateFrames) {
  return FrameOpener(baseDirection(block, wire::otherParty(own), rotateFrames), maxFrameBytes);
}

}  // namespace sallyport::peer
