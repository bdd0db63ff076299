// Goal: the four steps with a long-term key give what curve_tun gives, and refuse everything else by the right name.
// Method: the original's known answers, a client played by libsodium, and one change to each input.
#include "vaultd/box.h"

#include <sodium.h>

#include "tests/unit/vaultd/memory_disk.h"
#include "tests/unit/vaultd/support.h"

namespace sallyport::vaultd {
namespace {

using test::hex;
using test::vector;

// NaCl itself, for the other side of each box.
std::vector<std::byte> naclBox(ByteSpan text, std::string_view prefix, ByteSpan rest, const PublicKey& to,
                               ByteSpan secret) {
  std::array<unsigned char, 24> nonce{};
  std::memcpy(nonce.data(), prefix.data(), prefix.size());
  std::memcpy(nonce.data() + prefix.size(), rest.data(), rest.size());
  std::vector<std::byte> box(text.size() + 16);
  CHECK(crypto_box_easy(uchars(MutableByteSpan(box)), uchars(text), text.size(), nonce.data(), to.data(),
                        uchars(secret)) == 0);
  return box;
}

std::optional<std::vector<std::byte>> naclOpen(ByteSpan box, std::string_view prefix, ByteSpan rest,
                                               const PublicKey& from, ByteSpan secret) {
  std::array<unsigned char, 24> nonce{};
  std::memcpy(nonce.data(), prefix.data(), prefix.size());
  std::memcpy(nonce.data() + prefix.size(), rest.data(), rest.size());
  std::vector<std::byte> text(box.size() - 16);
  if (crypto_box_open_easy(uchars(MutableByteSpan(text)), uchars(box), box.size(), nonce.data(), from.data(),
                           uchars(secret)) != 0) {
    return std::nullopt;
  }
  return text;
}

// The points of order 1, 2, 4 and 8, and their non-canonical spellings (libsodium's and RFC 7748's list).
const char* const LOW_ORDER[] = {"0000000000000000000000000000000000000000000000000000000000000000",
                                 "0100000000000000000000000000000000000000000000000000000000000000",
                                 "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
                                 "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
                                 "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
                                 "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
                                 "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"};

class Box : public testing::Test {
 protected:
  std::unique_ptr<SecretArena> arena = std::move(*SecretArena::create(8192));
  SharedKeyCache cache{*arena, 8};
  std::unique_ptr<NonceLedger> ledger = test::freshLedger();
  const PublicKey S{vector("S")};
  const PublicKey C{vector("C")};
  const PublicKey EC{vector("EC")};
  const PublicKey ES{vector("ES")};
  LongTermBox server{*arena, cache, 0, LongTermSecret(vector("Ss"))};
  LongTermBox client{*arena, cache, 1, LongTermSecret(vector("Cs"))};
  NonceSource<BoxRole::Cookie> cookieNonces{*ledger, server.secretForNonceKeys()};
  NonceSource<BoxRole::Vouch> vouchNonces{*ledger, client.secretForNonceKeys()};
  NonceBatch batch{NonceBatch::MOST};

  std::array<std::byte, 144> cookieBox{};
  std::array<std::byte, 48> vouchBox{};
  std::vector<std::byte> hello = vector("hello");
  std::vector<std::byte> K = vector("K");
  bool cached = false;

  Result<LongNonceBytes, Refusal> seal(const PublicKey& from, ByteSpan box) {
    return server.sealCookie({from, box.first<80>(), ES, ByteSpan(K).first<96>()}, cookieNonces, batch, cookieBox);
  }
  Result<void, Refusal> verify(const PublicKey& from, const LongNonceBytes& nonce, ByteSpan box, const PublicKey& ec,
                               bool remember = true) {
    return server.verifyVouch({from, nonce, box.first<48>(), ec}, remember, cached);
  }
  ByteSpan helloBox() const { return ByteSpan(hello).subspan(48, 80); }
};

TEST_F(Box, KnowsItsPublicKey) {
  EXPECT_EQ(server.publicKey(), S);
  EXPECT_EQ(client.publicKey(), C);
}

TEST_F(Box, TheSelfTestPasses) { EXPECT_TRUE(boxSelfTest()); }

TEST_F(Box, AnswersTheHelloOfTheVectorsWithACookieThatTheClientOpens) {
  auto nonce = seal(EC, helloBox());
  ASSERT_TRUE(nonce.has_value());
  auto text = naclOpen(cookieBox, "CurveCPK", nonce->span(), S, vector("ECs"));
  ASSERT_TRUE(text.has_value());
  EXPECT_EQ(toHex(*text), toHex(ES.span()) + toHex(K));
}

// The box of the vectors' cookie packet, made under its nonce by NaCl: the layout that our seal produces is the
// original's.
TEST_F(Box, TheLayoutIsThatOfTheVectors) {
  const auto cookie = vector("cookie");
  std::vector<std::byte> text(ES.span().begin(), ES.span().end());
  text.insert(text.end(), K.begin(), K.end());
  EXPECT_EQ(toHex(naclBox(text, "CurveCPK", ByteSpan(cookie).subspan(8, 16), EC, vector("Ss"))),
            toHex(ByteSpan(cookie).subspan(24)));
}

TEST_F(Box, TwoCookiesHaveTwoNonces) {
  auto first = seal(EC, helloBox());
  auto second = seal(EC, helloBox());
  EXPECT_NE(*first, *second);
}

TEST_F(Box, NoFlippedBitOfAHelloOpens) {
  for (size_t bit = 0; bit < 80 * 8; bit += 3) {
    std::vector<std::byte> box(helloBox().begin(), helloBox().end());
    box[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    auto result = seal(EC, box);
    ASSERT_FALSE(result.has_value()) << bit;
    EXPECT_EQ(result.error(), Refusal::BAD_BOX);
  }
}

TEST_F(Box, AHelloToAnotherServerDoesNotOpen) {
  const auto box = naclBox(std::vector<std::byte>(64), "CurveCP-client-H", std::vector<std::byte>(8), C, vector("ECs"));
  EXPECT_EQ(seal(EC, box).error(), Refusal::BAD_BOX);
}

TEST_F(Box, AHelloOfAnotherClientKeyDoesNotOpen) { EXPECT_EQ(seal(C, helloBox()).error(), Refusal::BAD_BOX); }

TEST_F(Box, AHelloThatHoldsSomethingElseThanZerosIsRefused) {
  for (size_t at : {0u, 31u, 63u}) {
    std::vector<std::byte> text(64);
    text[at] = std::byte{1};
    const auto box = naclBox(text, "CurveCP-client-H", std::vector<std::byte>(8), S, vector("ECs"));
    EXPECT_EQ(seal(EC, box).error(), Refusal::BAD_BOX);
  }
}

TEST_F(Box, AHelloUnderAnotherCounterOrPrefixIsRefused) {
  const std::vector<std::byte> zeros(64);
  auto counter = hex("0000000000000001");
  EXPECT_FALSE(seal(EC, naclBox(zeros, "CurveCP-client-H", counter, S, vector("ECs"))).has_value());
  EXPECT_FALSE(seal(EC, naclBox(zeros, "CurveCP-client-I", std::vector<std::byte>(8), S, vector("ECs"))).has_value());
  EXPECT_FALSE(seal(EC, naclBox(zeros, "CurveCPV", std::vector<std::byte>(16), S, vector("ECs"))).has_value());
}

TEST_F(Box, LowOrderKeysAreRefusedEverywhere) {
  for (const char* text : LOW_ORDER) {
    const PublicKey low(hex(text));
    EXPECT_EQ(seal(low, helloBox()).error(), Refusal::LOW_ORDER_KEY) << text;
    EXPECT_EQ(verify(low, LongNonceBytes(), vouchBox, EC).error(), Refusal::LOW_ORDER_KEY) << text;
    EXPECT_EQ(client.makeVouch(low, EC, vouchNonces, batch, vouchBox, cached).error(), Refusal::LOW_ORDER_KEY) << text;
  }
  EXPECT_EQ(cache.size(), 0u);
}

TEST_F(Box, ARefusedHelloCostsNoNonce) {
  const uint64_t before = *ledger->draw();
  std::vector<std::byte> box(80);
  for (int i = 0; i < 10; ++i) (void)seal(EC, box);
  EXPECT_EQ(*ledger->draw(), before + 1);
}

TEST_F(Box, WithoutANonceNothingIsSealed) {
  auto broken = NonceLedger::unusable("disk full");
  NonceSource<BoxRole::Cookie> none(*broken, server.secretForNonceKeys());
  auto result = server.sealCookie({EC, helloBox().first<80>(), ES, ByteSpan(K).first<96>()}, none, batch, cookieBox);
  EXPECT_EQ(result.error(), Refusal::NONCE_UNAVAILABLE);
  EXPECT_EQ(toHex(cookieBox), std::string(288, '0'));
  NonceSource<BoxRole::Vouch> noVouch(*broken, client.secretForNonceKeys());
  EXPECT_EQ(client.makeVouch(S, EC, noVouch, batch, vouchBox, cached).error(), Refusal::NONCE_UNAVAILABLE);
}

TEST_F(Box, AVouchThatItMadeIsVerified) {
  auto nonce = client.makeVouch(S, EC, vouchNonces, batch, vouchBox, cached);
  ASSERT_TRUE(nonce.has_value());
  EXPECT_TRUE(verify(C, *nonce, vouchBox, EC).has_value());
}

// V of the vectors, under the nonce of the vectors.
TEST_F(Box, VerifiesTheVouchOfTheVectors) {
  const LongNonceBytes nonce(vector("client_safe_nonce"));
  const auto V = naclBox(EC.span(), "CurveCPV", nonce.span(), S, vector("Cs"));
  EXPECT_TRUE(verify(C, nonce, V, EC).has_value());
}

TEST_F(Box, AVouchForAnotherEphemeralKeyIsRefused) {
  auto nonce = client.makeVouch(S, EC, vouchNonces, batch, vouchBox, cached);
  EXPECT_EQ(verify(C, *nonce, vouchBox, ES).error(), Refusal::BAD_BOX);
  // X25519 ignores bit 255; the vouch does not.
  PublicKey flipped = EC;
  flipped.data()[31] ^= 0x80;
  EXPECT_EQ(verify(C, *nonce, vouchBox, flipped).error(), Refusal::BAD_BOX);
}

TEST_F(Box, AVouchOfSomebodyElseOrForSomebodyElseIsRefused) {
  auto nonce = client.makeVouch(S, EC, vouchNonces, batch, vouchBox, cached);
  EXPECT_EQ(verify(ES, *nonce, vouchBox, EC).error(), Refusal::BAD_BOX);
  auto forOther = client.makeVouch(ES, EC, vouchNonces, batch, vouchBox, cached);
  EXPECT_EQ(verify(C, *forOther, vouchBox, EC).error(), Refusal::BAD_BOX);
}

TEST_F(Box, AVouchUnderAnotherNonceIsRefused) {
  auto nonce = client.makeVouch(S, EC, vouchNonces, batch, vouchBox, cached);
  nonce->data()[0] ^= 1;
  EXPECT_EQ(verify(C, *nonce, vouchBox, EC).error(), Refusal::BAD_BOX);
}

// Domain separation: a cookie's box is no vouch, though both are made by long-term keys.
TEST_F(Box, ABoxOfAnotherRoleIsRefused) {
  const LongNonceBytes nonce(vector("client_safe_nonce"));
  for (const char* prefix : {"CurveCPK", "minute-k", "hybriddI"}) {
    EXPECT_EQ(verify(C, nonce, naclBox(EC.span(), prefix, nonce.span(), S, vector("Cs")), EC).error(),
              Refusal::BAD_BOX);
  }
}

TEST_F(Box, AKnownClientCostsNoMultiplication) {
  auto nonce = client.makeVouch(S, EC, vouchNonces, batch, vouchBox, cached);
  EXPECT_FALSE(cached);
  EXPECT_TRUE(verify(C, *nonce, vouchBox, EC).has_value());
  EXPECT_FALSE(cached);
  EXPECT_TRUE(verify(C, *nonce, vouchBox, EC).has_value());
  EXPECT_TRUE(cached);
  vouchBox[0] ^= std::byte{1};
  EXPECT_FALSE(verify(C, *nonce, vouchBox, EC).has_value()) << "a cached key opens no forgery";
}

TEST_F(Box, ForgeriesAndStrangersAreNotRemembered) {
  (void)verify(C, LongNonceBytes(), vouchBox, EC);
  EXPECT_EQ(cache.size(), 0u);
  auto nonce = client.makeVouch(S, EC, vouchNonces, batch, vouchBox, cached);
  const size_t before = cache.size();
  EXPECT_TRUE(verify(C, *nonce, vouchBox, EC, false).has_value());
  EXPECT_EQ(cache.size(), before);
}

TEST_F(Box, AHelloIsNotRemembered) {
  ASSERT_TRUE(seal(EC, helloBox()).has_value());
  EXPECT_EQ(cache.size(), 0u);
}

}  // namespace
}  // namespace sallyport::vaultd
