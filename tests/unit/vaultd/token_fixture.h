// token_fixture.h - a Token with a fake hsmd that has three keys, on one loop.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/vaultd/fake_hsmd.h"
#include "tests/unit/vaultd/support.h"
#include "vaultd/token.h"

namespace sallyport::vaultd::test {

inline constexpr uint32_t DEADLINE_MS = 300;

struct Watching final : Token::Observer {
  unsigned ups = 0;
  unsigned lost = 0;
  std::vector<std::string> events;
  void onTokenUp(Token&) override { ++ups; }
  void onTokenLost(Token&) override { ++lost; }
  void onTokenEvent(const Token&, std::string verb, std::string outcome, std::string note) override {
    events.push_back(verb + " " + outcome + " " + note);
  }
};

class TokenUse : public testing::Test {
 protected:
  EventLoop loop;
  Watching watching;
  FakeHsmd hsmd{loop};
  std::optional<Token> token;
  PublicKey own = hsmd.addX25519("one");
  PublicKey other = hsmd.addX25519("two");
  PublicKey signer = hsmd.addEd25519("sig");

  ~TokenUse() noexcept override {}

  TokenConfig config() {
    TokenConfig config;
    config.name = "hsm1";
    config.deadlineMs = DEADLINE_MS;
    return config;
  }
  void start() { start(config()); }
  void start(const TokenConfig& config, Token::Times times = {}) {
    token.emplace(loop, config, hsmd.ends(), watching, times);
  }
  static KeyVersion version(const PublicKey& key, std::string_view id) {
    KeyVersion version;
    version.publicKey = key;
    const auto bytes = asBytes(id);
    version.tokenId.assign(bytes.begin(), bytes.end());
    return version;
  }
  void wantAll() {
    token->want(KeyKind::X25519, version(own, "one"));
    token->want(KeyKind::X25519, version(other, "two"));
    token->want(KeyKind::Ed25519, version(signer, "sig"));
  }
  // Turns until it is so; the limit is for a machine that does nothing else.
  template <typename Condition>
  void until(Condition&& condition) {
    const uint64_t limit = loop.nowMs() + 30'000;
    while (!condition() && loop.nowMs() < limit) loop.turn(5);
    EXPECT_TRUE(condition());
  }
  void settle() {
    for (int i = 0; i < 20; ++i) loop.turn(0);
  }
  void bringUp() {
    start();
    wantAll();
    hsmd.up();
    until([&] { return token->up(); });
  }

  struct Answer {
    unsigned calls = 0;
    std::optional<std::array<std::byte, 32>> result;
  };
  std::shared_ptr<Answer> derive(const PublicKey& with, const PublicKey& peer) {
    auto answer = std::make_shared<Answer>();
    token->derive(with, peer, [answer](const std::span<const std::byte, 32>* result) {
      ++answer->calls;
      if (result != nullptr) std::ranges::copy(*result, answer->result.emplace().begin());
    });
    return answer;
  }
  std::optional<std::array<std::byte, 32>> derived(const PublicKey& with, const PublicKey& peer) {
    auto answer = derive(with, peer);
    until([&] { return answer->calls > 0; });
    settle();
    EXPECT_EQ(answer->calls, 1u);
    return answer->result;
  }
  std::array<std::byte, 32> expected(size_t key, const PublicKey& peer) {
    std::array<std::byte, 32> result{};
    EXPECT_EQ(crypto_scalarmult(uchars(MutableByteSpan(result)), hsmd.keys[key].secret.data(), peer.data()), 0);
    return result;
  }
  PublicKey peer() {
    PublicKey key;
    std::array<unsigned char, 32> secret;
    crypto_box_keypair(key.data(), secret.data());
    return key;
  }
  size_t count(std::string_view event) const {
    return static_cast<size_t>(
        std::ranges::count_if(watching.events, [&](const std::string& each) { return each.starts_with(event); }));
  }
  bool works(const PublicKey& with, size_t key) {
    const auto to = peer();
    return derived(with, to) == expected(key, to);
  }
};

}  // namespace sallyport::vaultd::test
