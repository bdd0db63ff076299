// test_vault.h - both vaults of curve_tun in a few lines of libsodium, for the tests of netd: what vaultd does with
// long-term keys, without any of its care.
#pragma once

#include <gtest/gtest.h>
#include <sodium.h>

#include <functional>
#include <vector>

#include "netd/handshake.h"
#include "peer/block_keys.h"
#include "tests/unit/wire/vectors.h"

namespace sallyport::netd::test {

using sallyport::test::hex;
using sallyport::test::LOW_ORDER_POINTS;
using sallyport::test::messageVectors;
using sallyport::test::text;
using sallyport::test::vec;
using sallyport::test::vector;
using R = wire::DropReason;

struct Pair {
  PublicKey open;
  PublicKey secret;  // in a test it is no secret
  static Pair random() {
    Pair pair;
    crypto_box_keypair(pair.open.data(), pair.secret.data());
    return pair;
  }
};

inline std::array<unsigned char, 24> longNonce(std::string_view prefix, const LongNonceBytes& rest) {
  std::array<unsigned char, 24> nonce;
  std::memcpy(nonce.data(), prefix.data(), 8);
  std::memcpy(nonce.data() + 8, rest.data(), 16);
  return nonce;
}

inline SharedKey sharedKey(const PublicKey& open, const PublicKey& secret) {
  SharedKey key;
  CHECK(crypto_box_beforenm(key.exposeData(), open.data(), secret.data()) == 0);
  return key;
}

// The long-term keys of one server and one client, and a block of which the server is B.
struct TestVault {
  std::array<std::byte, wire::PEER_BLOCK_BYTES> block = randomBlock();
  std::vector<wire::PeerSalt> salts;  // drawn and not used
  uint32_t blockVersion = 1;
  unsigned saltsOverRate = 0;  // so many are refused first
  size_t accepts = 0;          // peers that were accepted
  // Other versions of the block that the peer may have: by number.
  std::vector<std::pair<uint32_t, std::array<std::byte, wire::PEER_BLOCK_BYTES>>> otherBlocks;
  bool holdsAccepts = false;  // their answers wait
  std::vector<std::function<void()>> heldAccepts;
  bool holdsSalts = false;
  std::vector<std::function<void()>> heldSalts;
  size_t sessions = 0;                                          // of base mode, that were begun
  uint32_t maxFrameBytes = wire::PEER_DEFAULT_MAX_FRAME_BYTES;  // and that they take
  bool holdsSeals = false;                                      // what they seal waits
  std::vector<std::function<void()>> heldSeals;
  struct AwaitedEnd {
    std::function<void()> tell;
    std::function<bool()> isAwaited;
  };
  std::vector<AwaitedEnd> sessionEnds;  // of each session that netd has asked about

  static std::array<std::byte, wire::PEER_BLOCK_BYTES> randomBlock() {
    std::array<std::byte, wire::PEER_BLOCK_BYTES> block;
    randombytes_buf(block.data(), block.size());
    return block;
  }
  wire::PeerSalt drawPeerSalt() {
    wire::PeerSalt salt;
    randombytes_buf(salt.data(), wire::PeerSalt::SIZE);
    return salts.emplace_back(salt);
  }
  bool takePeerSalt(const wire::PeerSalt& salt) { return std::erase(salts, salt) == 1; }

  Pair server = Pair::random();
  Pair client = Pair::random();
  std::string peerName = "alice";

  // protocol §3 step 2.
  Result<SealedCookie, R> sealCookie(const SealCookieRequest& request) const {
    std::array<unsigned char, 24> nonce{};
    std::memcpy(nonce.data(), "CurveCP-client-H", 16);
    std::array<unsigned char, 64> zeros;
    if (crypto_box_open_easy(zeros.data(), uchars(ByteSpan(request.box)), request.box.size(), nonce.data(),
                             request.clientEphemeral.data(), server.secret.data()) != 0) {
      return refuse(R::BadBox);
    }
    if (!sodium_is_zero(zeros.data(), zeros.size())) return refuse(R::BadBox);
    return sealCookieUnchecked(request);
  }
  Result<SealedCookie, R> sealCookieUnchecked(const SealCookieRequest& request) const {
    std::array<std::byte, 128> text;
    std::memcpy(text.data(), request.serverEphemeral.data(), 32);
    std::memcpy(text.data() + 32, request.cookie.data(), 96);
    SealedCookie sealed;
    randombytes_buf(sealed.packet.nonce.data(), 16);
    if (crypto_box_easy(uchars(MutableByteSpan(sealed.packet.box)), uchars(ByteSpan(text)), text.size(),
                        longNonce("CurveCPK", sealed.packet.nonce).data(), request.clientEphemeral.data(),
                        server.secret.data()) != 0) {
      return refuse(R::LowOrderKey);
    }
    return sealed;
  }
  // Step 3.
  Result<MadeVouch, R> makeVouch(const MakeVouchRequest& request) const {
    MadeVouch made{client.open, {}, {}};
    randombytes_buf(made.nonce.data(), 16);
    CHECK(crypto_box_easy(uchars(MutableByteSpan(made.box)), request.clientEphemeral.data(), 32,
                          longNonce("CurveCPV", made.nonce).data(), server.open.data(), client.secret.data()) == 0);
    return made;
  }
  // Step 4.
  Result<VerifiedVouch, R> verifyVouch(const VerifyVouchRequest& request) const {
    PublicKey vouched;
    if (crypto_box_open_easy(vouched.data(), uchars(ByteSpan(request.box)), request.box.size(),
                             longNonce("CurveCPV", request.nonce).data(), request.client.data(),
                             server.secret.data()) != 0 ||
        vouched != request.clientEphemeral) {
      return refuse(R::BadVouch);
    }
    if (request.client != client.open) return refuse(R::PeerNotAllowed);
    return VerifiedVouch{peerName};
  }
};

}  // namespace sallyport::netd::test
