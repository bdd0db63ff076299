// Goal: our fast box is crypto_box to the byte, and no changed box opens: docs/decisions/0010-xsalsa20-and-poly1305.md.
// Method: a differential test against libsodium over the lengths where the code takes another path; every bit flipped.
#include "netd/short_term_box.h"

#include <gtest/gtest.h>
#include <sodium.h>

#include <algorithm>

#include "tests/unit/netd/test_vault.h"

namespace sallyport::netd {
namespace {

using test::hex;
using test::vec;
using Block = std::vector<std::byte>;

// What NaCl makes of it: the tag, then the ciphertext.
Block naclSeal(ByteSpan text, std::string_view prefix, uint64_t counter, const SharedKey& key) {
  std::array<unsigned char, 24> nonce;
  std::memcpy(nonce.data(), prefix.data(), 16);
  wire::writeBe64(std::as_writable_bytes(std::span(nonce)).subspan<16, 8>(), counter);
  Block box(text.size() + 16);
  CHECK(crypto_box_easy_afternm(uchars(MutableByteSpan(box)), uchars(text), text.size(), nonce.data(),
                                key.exposeData()) == 0);
  return box;
}

Block randomBlock(size_t bytes) {
  Block block(bytes);
  if (bytes > 0) randombytes_buf(block.data(), bytes);
  return block;
}

Block ourBox(MessageCipher& cipher, ByteSpan text, uint64_t counter, std::span<const std::byte, wire::KEY_BYTES> key) {
  Block box(text.size() + 16);
  std::ranges::copy(text, box.begin() + 16);
  cipher.seal(box, counter, key);
  return box;
}

std::vector<size_t> lengths() {
  std::vector<size_t> result;
  for (size_t length = 0; length <= 300; ++length) result.push_back(length);
  for (const size_t edge : {1023, 4096, 16384, 16384 + 32, 32768, 32768 + 32, 49152 + 32}) {
    for (size_t length = edge - 1; length <= edge + 2; ++length) result.push_back(length);
  }
  result.push_back(wire::MAX_MESSAGE_BYTES - 1);
  result.push_back(wire::MAX_MESSAGE_BYTES);
  return result;
}

class AMessageBox : public testing::Test {
 protected:
  const SharedKey shared = SharedKey::random();
  const ClientToServerKey toServer = clientToServerKey(shared);
  const ServerToClientKey toClient = serverToClientKey(shared);
  MessageCipher cipher;
};

TEST_F(AMessageBox, IsNaClsForEveryLengthAndBothDirections) {
  for (const size_t length : lengths()) {
    const Block text = randomBlock(length);
    const uint64_t counter = length % 3 == 0 ? 2 : uint64_t{randombytes_random()} << 31;
    ASSERT_EQ(ourBox(cipher, text, counter, toServer.expose()), naclSeal(text, "CurveCP-client-M", counter, shared))
        << length;
    ASSERT_EQ(ourBox(cipher, text, counter, toClient.expose()), naclSeal(text, "CurveCP-server-M", counter, shared))
        << length;
  }
}

TEST_F(AMessageBox, OfNaClsOpensForEveryLength) {
  for (const size_t length : lengths()) {
    const Block text = randomBlock(length);
    Block box = naclSeal(text, "CurveCP-client-M", length, shared);
    ASSERT_TRUE(cipher.open(box, length, toServer.expose())) << length;
    ASSERT_EQ(vec(ByteSpan(box).subspan(16)), text) << length;
  }
}

TEST_F(AMessageBox, DoesNotOpenAfterOneFlippedBitAndKeepsItsText) {
  for (const size_t length : {size_t{0}, size_t{1}, size_t{31}, size_t{32}, size_t{33}, size_t{65}}) {
    const Block box = ourBox(cipher, randomBlock(length), 2, toServer.expose());
    for (size_t bit = 0; bit < 8 * box.size(); ++bit) {
      Block changed = box;
      changed[bit / 8] ^= std::byte(1 << bit % 8);
      const Block before = changed;
      ASSERT_FALSE(cipher.open(changed, 2, toServer.expose())) << length << " bit " << bit;
      ASSERT_EQ(changed, before);  // not a byte was decrypted
    }
  }
}

TEST_F(AMessageBox, ThatIsLongDoesNotOpenAfterAChangeAnywhereInIt) {
  for (const size_t length : {size_t{1023}, size_t{1024}, size_t{16416}, wire::MAX_MESSAGE_BYTES}) {
    const Block box = ourBox(cipher, randomBlock(length), 2, toServer.expose());
    for (size_t at = 0; at < box.size(); at += length / 97 + 1) {
      Block changed = box;
      changed[at] ^= std::byte{0x40};
      const Block before = changed;
      ASSERT_FALSE(cipher.open(changed, 2, toServer.expose())) << length << " at " << at;
      ASSERT_EQ(changed, before);
    }
    Block changed = box;
    changed.back() ^= std::byte{1};
    ASSERT_FALSE(cipher.open(changed, 2, toServer.expose()));
  }
}

TEST_F(AMessageBox, DoesNotOpenUnderAnotherKeyCounterOrDirection) {
  for (const size_t length : {size_t{5}, size_t{5000}}) {
    Block box = ourBox(cipher, randomBlock(length), 2, toServer.expose());
    EXPECT_FALSE(cipher.open(box, 3, toServer.expose()));
    EXPECT_FALSE(cipher.open(box, uint64_t{2} << 56, toServer.expose()));  // the other byte order
    EXPECT_FALSE(cipher.open(box, 2, toClient.expose()));
    EXPECT_FALSE(cipher.open(box, 2, clientToServerKey(SharedKey::random()).expose()));
    EXPECT_TRUE(cipher.open(box, 2, toServer.expose()));
  }
}

TEST_F(AMessageBox, ThatIsCutDoesNotOpen) {
  const Block box = ourBox(cipher, randomBlock(2000), 2, toServer.expose());
  for (const size_t length : {size_t{16}, size_t{17}, size_t{1039}, size_t{1040}, size_t{2015}}) {
    Block cut = box;
    cut.resize(length);
    EXPECT_FALSE(cipher.open(cut, 2, toServer.expose())) << length;
  }
}

using AMessageBoxDeathTest = AMessageBox;
TEST_F(AMessageBoxDeathTest, HasRoomForItsTag) {
  Block small(15);
  EXPECT_DEATH(cipher.seal(small, 2, toServer.expose()), "invariant broken");
  EXPECT_DEATH(static_cast<void>(cipher.open(small, 2, toServer.expose())), "invariant broken");
}

// --- boxes of the handshake ------------------------------------------------------------------------------------------

TEST(AHandshakeBox, IsTheOriginals) {
  const SharedKey helloKey = *agree(PublicKey(test::vector("S")), EphemeralSecret(test::vector("ECs")));
  wire::Hello hello{PublicKey(test::vector("EC")), {}};
  sealBox(hello.box, std::array<std::byte, 64>{}, ShortPrefix::ClientHello, 0, helloKey);
  EXPECT_EQ(vec(ByteSpan(wire::writeHello(hello)).subspan(2)), test::vector("hello"));

  const SharedKey key = *agree(PublicKey(test::vector("EC")), EphemeralSecret(test::vector("ESs")));
  const auto initiate = wire::parseInitiate(test::vector("vouch"));
  std::array<std::byte, 96> text;
  ASSERT_TRUE(openBox(text, initiate->box, ShortPrefix::ClientInitiate, 1, key));
  EXPECT_EQ(vec(ByteSpan(text).first(32)), test::vector("C"));
  EXPECT_EQ(vec(ByteSpan(text).subspan(32, 16)), test::vector("client_safe_nonce"));
  wire::Initiate again{initiate->cookie, {}};
  sealBox(again.box, text, ShortPrefix::ClientInitiate, 1,
          *agree(PublicKey(test::vector("ES")), EphemeralSecret(test::vector("ECs"))));
  EXPECT_EQ(vec(ByteSpan(wire::writeInitiate(again)).subspan(2)), test::vector("vouch"));
}

TEST(AHandshakeBox, OfTheOriginalsCookieHoldsESAndK) {
  const SharedKey key = *agree(PublicKey(test::vector("S")), EphemeralSecret(test::vector("ECs")));
  const auto cookie = wire::parseCookiePacket(test::vector("cookie"));
  std::array<std::byte, 128> text;
  ASSERT_TRUE(openCookieBox(text, cookie->box, cookie->nonce, key));
  EXPECT_EQ(vec(ByteSpan(text).first(32)), test::vector("ES"));
  EXPECT_EQ(vec(ByteSpan(text).subspan(32)), test::vector("K"));
}

TEST(AHandshakeBox, ThatIsNotGenuineLeavesZeros) {
  const SharedKey key = SharedKey::random();
  std::array<std::byte, 80> box;
  sealBox(box, std::array<std::byte, 64>{}, ShortPrefix::ClientHello, 0, key);
  const auto refused = [&](ByteSpan changed, ShortPrefix prefix, uint64_t counter, const SharedKey& with) {
    std::array<std::byte, 64> out;
    out.fill(std::byte{0xee});
    const bool opened = openBox(out, changed, prefix, counter, with);
    return !opened && std::ranges::all_of(out, [](std::byte b) { return b == std::byte{0}; });
  };
  for (size_t bit = 0; bit < 8 * box.size(); ++bit) {
    auto changed = box;
    changed[bit / 8] ^= std::byte(1 << bit % 8);
    ASSERT_TRUE(refused(changed, ShortPrefix::ClientHello, 0, key)) << bit;
  }
  EXPECT_TRUE(refused(box, ShortPrefix::ClientInitiate, 0, key));
  EXPECT_TRUE(refused(box, ShortPrefix::ClientHello, 1, key));
  EXPECT_TRUE(refused(box, ShortPrefix::ClientHello, 0, SharedKey::random()));
}

TEST(AHandshakeBox, OfTheCookieThatIsNotGenuineLeavesZeros) {
  const SharedKey key = *agree(PublicKey(test::vector("S")), EphemeralSecret(test::vector("ECs")));
  const auto cookie = wire::parseCookiePacket(test::vector("cookie"));
  for (size_t bit = 0; bit < 8 * (cookie->box.size() + 16); bit += 3) {
    auto changed = *cookie;
    auto& byte = bit < 128 ? changed.nonce.mutableSpan()[bit / 8] : changed.box[bit / 8 - 16];
    byte ^= std::byte(1 << bit % 8);
    std::array<std::byte, 128> out;
    out.fill(std::byte{0xee});
    ASSERT_FALSE(openCookieBox(out, changed.box, changed.nonce, key)) << bit;
    ASSERT_TRUE(std::ranges::all_of(out, [](std::byte b) { return b == std::byte{0}; }));
  }
}

TEST(AnAgreement, IsTheSameOnBothSidesAndAnotherForEachPair) {
  const EphemeralPair a = makeEphemeralPair(), b = makeEphemeralPair(), c = makeEphemeralPair();
  EXPECT_TRUE(equalsConstantTime(agree(a.publicKey, b.secret)->expose(), agree(b.publicKey, a.secret)->expose()));
  EXPECT_FALSE(equalsConstantTime(agree(a.publicKey, b.secret)->expose(), agree(c.publicKey, b.secret)->expose()));
}

TEST(AnAgreement, WithALowOrderPointIsNone) {
  const EphemeralPair pair = makeEphemeralPair();
  for (const char* point : test::LOW_ORDER_POINTS) {
    EXPECT_FALSE(agree(PublicKey(hex(point)), pair.secret).has_value()) << point;
  }
}

TEST(DirectionKeys, AreDifferentAndNotTheSharedKey) {
  const SharedKey shared = SharedKey::random();
  const auto there = clientToServerKey(shared);
  const auto back = serverToClientKey(shared);
  EXPECT_FALSE(equalsConstantTime(there.expose(), back.expose()));
  EXPECT_FALSE(equalsConstantTime(there.expose(), shared.expose()));
  EXPECT_FALSE(equalsConstantTime(back.expose(), shared.expose()));
}

}  // namespace
}  // namespace sallyport::netd
