// Goal: a long-term nonce is AES-256 of counter and randomness, under a key of its role alone, and is spent once.
// Method: known answers made with another program, and decryption with the secret that only a test has.
#include "vaultd/long_term_nonce.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <type_traits>

#include "tests/unit/vaultd/memory_disk.h"
#include "tests/unit/vaultd/support.h"

namespace sallyport::vaultd {
namespace {

std::array<std::byte, 16> block(std::string_view hexText) {
  const auto bytes = test::hex(hexText);
  std::array<std::byte, 16> result;
  CHECK(bytes.size() == 16);
  std::memcpy(result.data(), bytes.data(), 16);
  return result;
}

// FIPS 197, appendix C.3.
TEST(NonceCipher, IsAes256) {
  NonceCipher cipher(NonceKey(test::hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")));
  EXPECT_EQ(toHex(cipher.encrypt(block("00112233445566778899aabbccddeeff"))), "8ea2b7ca516745bfeafc49904b496089");
  // The context keeps no state between blocks.
  EXPECT_EQ(toHex(cipher.encrypt(block("00112233445566778899aabbccddeeff"))), "8ea2b7ca516745bfeafc49904b496089");
}

// NIST SP 800-38A, F.1.5, the first two blocks.
TEST(NonceCipher, AgreesWithTheEcbVectors) {
  NonceCipher cipher(NonceKey(test::hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")));
  EXPECT_EQ(toHex(cipher.encrypt(block("6bc1bee22e409f96e93d7e117393172a"))), "f3eed1bdb5d2a03c064b5a7e3db181f8");
  EXPECT_EQ(toHex(cipher.encrypt(block("ae2d8a571e03ac9c9eb76fac45af8e51"))), "591ccb10d410ed26dc5ba74a31362870");
}

// The scramble of curve_tun's vault. We don't use it: a peer can't tell the difference. Kept because the
// protocol's known answers are given for it (docs/protocol.md §3).
std::array<std::byte, 16> curveTunScramble(std::array<std::byte, 16> text, const std::vector<std::byte>& key) {
  const auto le64 = [](const std::byte* p) {
    uint64_t value = 0;
    for (int i = 7; i >= 0; --i) value = value << 8 | static_cast<uint64_t>(p[i]);
    return value;
  };
  uint64_t v0 = le64(text.data());
  uint64_t v1 = le64(text.data() + 8);
  uint64_t k[4];
  for (size_t i = 0; i < 4; ++i) k[i] = le64(key.data() + 8 * i);
  uint64_t sum = 0;
  for (int round = 0; round < 32; ++round) {
    sum += 0x9e3779b97f4a7c15;
    v0 += ((v1 << 7) + k[0]) ^ (v1 + sum) ^ ((v1 >> 12) + k[1]);
    v1 += ((v0 << 16) + k[2]) ^ (v0 + sum) ^ ((v0 >> 8) + k[3]);
  }
  for (size_t i = 0; i < 8; ++i) {
    text[i] = static_cast<std::byte>(v0 >> (8 * i));
    text[8 + i] = static_cast<std::byte>(v1 >> (8 * i));
  }
  return text;
}

TEST(CurveTunScramble, GivesTheKnownAnswers) {
  size_t at = 0;
  for (int i = 0; i < 3; ++i) {
    const auto text = block(test::vectorText("counter_be64_and_random8", at, &at));
    const auto key = test::hex(test::vectorText("key", at, &at));
    EXPECT_EQ(toHex(curveTunScramble(text, key)), test::vectorText("nonce16", at, &at));
  }
}

class Nonces : public testing::Test {
 protected:
  std::array<std::byte, 32> secret{};
  std::unique_ptr<NonceLedger> ledger = test::freshLedger();
};

TEST_F(Nonces, HoldTheCounterAndFreshRandomness) {
  NonceBatch batch(2);
  const auto first = nonceBlock(0x0102030405060708, batch.takeRandom());
  const auto second = nonceBlock(0x0102030405060708, batch.takeRandom());
  EXPECT_EQ(toHex(ByteSpan(first).first(8)), "0102030405060708");
  EXPECT_EQ(toHex(ByteSpan(second).first(8)), "0102030405060708");
  EXPECT_NE(first, second);
}

TEST_F(Nonces, ADomainOfAProgramIsNeverAPrefixOfOurs) {
  for (const char* name :
       {"CurveCPK", "CurveCPV", "CurveCP", "CurveCPx", "SallyBox", "", "123456789", "a b", ".x", "x\xff"}) {
    EXPECT_FALSE(NonceDomain::named(name)) << name;
  }
  // Two domains, two keys: the same counter gives other nonces.
  std::set<std::string> keys;
  for (const char* name : {"minute-k", "a", "aa", "SallyBoy", "sallybox"}) {
    ASSERT_TRUE(NonceDomain::named(name)) << name;
    keys.insert(toHex(deriveNonceKey(secret, *NonceDomain::named(name), ledger->instance()).expose()));
  }
  for (const BoxRole role : {BoxRole::Cookie, BoxRole::Vouch, BoxRole::Application}) {
    keys.insert(toHex(deriveNonceKey(secret, role, ledger->instance()).expose()));
  }
  EXPECT_EQ(keys.size(), 8u);
}

TEST_F(Nonces, OfADomainAreDistinctAndCountToo) {
  DomainNonces source(*ledger, secret, *NonceDomain::named("minute-k"));
  const NonceKey key = deriveNonceKey(secret, *NonceDomain::named("minute-k"), ledger->instance());
  NonceBatch batch(64);
  const uint64_t first = test::counterOf(*source.draw(batch), key);
  for (uint64_t i = 1; i < 64; ++i) EXPECT_EQ(test::counterOf(*source.draw(batch), key), first + i);
}

TEST_F(Nonces, OfSeveralKeysInOneCallHaveTheirOwn) {
  std::array<std::byte, 32> other{};
  other[0] = std::byte{7};
  DomainNonces one(*ledger, secret, NonceDomain::of(BoxRole::Application));
  DomainNonces two(*ledger, other, NonceDomain::of(BoxRole::Application));
  const NonceKey keys[] = {deriveNonceKey(secret, BoxRole::Application, ledger->instance()),
                           deriveNonceKey(other, BoxRole::Application, ledger->instance())};
  NonceBatch batch(4);
  const uint64_t first = test::counterOf(*one.draw(batch), keys[0]);
  EXPECT_EQ(test::counterOf(*two.draw(batch), keys[1]), first + 1);
  EXPECT_EQ(test::counterOf(*one.draw(batch), keys[0]), first + 2);
  EXPECT_EQ(test::counterOf(*one.draw(batch), keys[0]), first + 3);
}

TEST_F(Nonces, TheRandomHalvesOfACallAreDistinct) {
  NonceBatch batch(64);
  std::set<std::string> seen;
  for (int i = 0; i < 64; ++i) seen.insert(toHex(batch.takeRandom()));
  EXPECT_EQ(seen.size(), 64u);
}

TEST_F(Nonces, AreAllDistinct) {
  NonceSource<BoxRole::Cookie> source(*ledger, secret);
  std::set<LongNonceBytes> seen;
  for (int i = 0; i < 100000; ++i) EXPECT_TRUE(seen.insert(std::move(*source.draw()).spend()).second);
}

// Two hosts with copies of one secret and states of their own: nothing is agreed between them. The first half of a
// nonce stands for it: 10^7 random ones clash by chance in one run of 370,000, whole nonces never.
TEST_F(Nonces, TwoVaultsWithOneKeyShareNoneOfTenMillion) {
  constexpr size_t EACH = 5'000'000;
  std::vector<uint64_t> halves;
  halves.reserve(2 * EACH);
  test::DiskState disks[2];
  std::set<InstanceId> instances;
  for (test::DiskState& disk : disks) {
    disk.image = NonceLedger::newImage({}, 0);
    auto own = NonceLedger::open(std::make_unique<test::MemoryDisk>(disk), {}, [] { return uint64_t{0}; });
    ASSERT_TRUE(own.has_value());
    NonceSource<BoxRole::Cookie> source(**own, secret);
    for (size_t i = 0; i < EACH; i += NonceBatch::MOST) {
      NonceBatch batch(NonceBatch::MOST);
      for (size_t each = 0; each < NonceBatch::MOST; ++each) {
        const LongNonceBytes nonce = std::move(*source.draw(batch)).spend();
        std::memcpy(&halves.emplace_back(), nonce.data(), sizeof(uint64_t));
      }
    }
    EXPECT_GE((*own)->refills(), 5u);
    instances.insert((*own)->instance());
  }
  EXPECT_EQ(instances.size(), 2u) << "what the random halves alone would hide";
  std::sort(halves.begin(), halves.end());
  EXPECT_EQ(std::adjacent_find(halves.begin(), halves.end()), halves.end());
}

// Not a proof of AES but a canary against wrong wiring: a counter or a constant that shows through would be far out.
TEST_F(Nonces, LookRandomByteByByte) {
  NonceSource<BoxRole::Cookie> source(*ledger, secret);
  constexpr size_t DRAWS = 25600;
  std::array<std::array<unsigned, 256>, 16> seen{};
  for (size_t i = 0; i < DRAWS; ++i) {
    const LongNonceBytes nonce = std::move(*source.draw()).spend();
    for (size_t at = 0; at < 16; ++at) ++seen[at][static_cast<size_t>(nonce.data()[at])];
  }
  for (size_t at = 0; at < 16; ++at) {
    double chiSquare = 0;
    for (const unsigned count : seen[at]) chiSquare += (count - 100.0) * (count - 100.0) / 100.0;
    // 255 degrees of freedom: mean 255, standard deviation 22.6. Ten of them away never happens by chance.
    EXPECT_NEAR(chiSquare, 255, 226) << "byte " << at;
  }
}

// What a test that knows the secret and the state file can do: rounds of kill -9 are judged this way (tests/system).
TEST_F(Nonces, CanBeTracedBackToTheirCountersWithTheSecretAlone) {
  NonceSource<BoxRole::Vouch> source(*ledger, secret);
  const NonceKey key = deriveNonceKey(secret, BoxRole::Vouch, ledger->instance());
  std::optional<uint64_t> last;
  for (int i = 0; i < 100; ++i) {
    const uint64_t counter = test::counterOf(std::move(*source.draw()).spend(), key);
    if (last) { EXPECT_EQ(counter, *last + 1); }
    last = counter;
  }
}

TEST_F(Nonces, EachRoleSecretAndInstanceHasAKeyOfItsOwn) {
  std::array<std::byte, 32> otherSecret{};
  otherSecret[31] = std::byte{1};
  InstanceId one{};
  InstanceId two{};
  two[15] = std::byte{1};
  std::set<std::string> keys;
  for (const auto& s : {secret, otherSecret}) {
    for (const BoxRole role : {BoxRole::Cookie, BoxRole::Vouch}) {
      for (const auto& instance : {one, two}) keys.insert(toHex(deriveNonceKey(s, role, instance).expose()));
    }
  }
  EXPECT_EQ(keys.size(), 8u);
}

TEST_F(Nonces, ThePrefixFollowsFromTheRole) {
  EXPECT_EQ(prefixOf(BoxRole::Cookie), "CurveCPK");
  EXPECT_EQ(prefixOf(BoxRole::Vouch), "CurveCPV");
}

TEST_F(Nonces, ALedgerThatGivesNothingMakesNone) {
  auto broken = NonceLedger::unusable("disk full");
  NonceSource<BoxRole::Cookie> source(*broken, secret);
  EXPECT_FALSE(source.draw().has_value());
  EXPECT_EQ(broken->describe(), "disk full");
}

TEST_F(Nonces, CanNotBeSpentTwice) {
  NonceSource<BoxRole::Cookie> source(*ledger, secret);
  auto nonce = source.draw();
  (void)std::move(*nonce).spend();
  EXPECT_DEATH((void)std::move(*nonce).spend(), "invariant broken");
  auto moved = source.draw();
  [[maybe_unused]] auto target = std::move(*moved);
  EXPECT_DEATH((void)std::move(*moved).spend(), "invariant broken");
}

// What the compiler refuses is part of the promise.
static_assert(!std::is_default_constructible_v<LongTermNonce<BoxRole::Cookie>>);
static_assert(!std::is_constructible_v<LongTermNonce<BoxRole::Cookie>, LongNonceBytes>);
static_assert(!std::is_copy_constructible_v<LongTermNonce<BoxRole::Cookie>>);
static_assert(!std::is_constructible_v<LongTermNonce<BoxRole::Cookie>, LongTermNonce<BoxRole::Vouch>&&>);
static_assert(!std::is_copy_constructible_v<LongTermSecret> && !std::is_copy_constructible_v<SecretText>);

}  // namespace
}  // namespace sallyport::vaultd
