// token_service_fixture.h - the services over real RPC, with a key in a token, one that signs there, and one in a file
// that the token opens; the token is a fake hsmd on the same loop.
#pragma once

#include <algorithm>

#include "tests/unit/vaultd/app_fixture.h"
#include "tests/unit/vaultd/fake_hsmd.h"
#include "vaultd/admin_service.h"
#include "vaultd/metrics.h"
#include "vaultd/tokens.h"
#include "vaultd/vault_service.h"

namespace sallyport::vaultd::test {

inline constexpr std::string_view TOKEN_CONFIG = R"(
[[grant]]
name = "token-boxes"
users = [1001]
keys = ["tk", "tsig", "sealed"]
verbs = ["box", "open", "sign", "fresh_nonce"]
peers = ["*"]
domains = ["minute-k"]
per_second = 40

[[listen]]
name = "db"
address = "127.0.0.1:7001"
key = "tk"
allow = ["alice"]
service = "echo"

[[connect]]
name = "out"
address = "127.0.0.1:7001"
key = "tk"
peer = "alice"

[token.hsm1]
module = "/usr/lib/none.so"
uri = "pkcs11:token=fake"
pin = "ask"
deadline_ms = 400
presence = "always"
)";

class TokenServices : public Apps {
 protected:
  std::unique_ptr<FakeHsmd> hsmd;
  std::optional<Tokens> tokens;
  AdminFacts facts;
  std::optional<RpcServer> netServer, adminServer;
  std::optional<RpcClient> netClient, adminClient;
  PublicKey active, older;
  SlotSecret dek{SealKind::Token, {}, {}};
  bool attaches = true;  // as soon as the keys are loaded

  ~TokenServices() noexcept override {}

  static OpenedVersion inToken(uint32_t number, const PublicKey& key, std::string_view id, int64_t from,
                               int64_t openOnly) {
    OpenedVersion made{{}, LongTermSecret::random()};
    made.version.number = number;
    made.version.publicKey = key;
    made.version.activeFrom = from;
    made.version.openOnlyFrom = openOnly;
    made.version.retiredFrom = openOnly == 0 ? 0 : NOW + 1000;
    const auto bytes = asBytes(id);
    made.version.tokenId.assign(bytes.begin(), bytes.end());
    made.version.spelling = "montgomery";
    return made;
  }
  void addTokenKey(const std::string& name, KeyKind kind, std::vector<OpenedVersion> versions) {
    OpenedKey opened;
    opened.header.name = name;
    opened.header.kind = kind;
    opened.header.token = "hsm1";
    for (const OpenedVersion& each : versions) opened.header.versions.push_back(each.version);
    opened.versions = std::move(versions);
    auto ledger = openNonceFile(temporary.path() / (name + ".nonces"), opened.header.ledgerId, {});
    ASSERT_TRUE(ledger.has_value());
    ASSERT_TRUE(keys->add(std::move(opened), std::move(*ledger), 30, nowMs, nowUnix).has_value());
  }
  // A software key whose file the token opens: not open yet.
  void addSealedKey() {
    const auto secret = TokenSecret::random();
    ASSERT_TRUE(dek.text.append({reinterpret_cast<const char*>(secret.exposeData()), TokenSecret::SIZE}));
    Sealing sealing;
    sealing.kind = SealKind::Token;
    sealing.secret = &dek.text;
    sealing.token = "hsm1";
    sealing.tokenWrap = {TokenCipher::AesGcm, {std::byte{'k'}}, {std::byte{'0'}}};
    auto made = newKey("sealed", KeyKind::X25519, LongTermSecret::random(), sealing, NOW - 10);
    ASSERT_TRUE(made.has_value());
    std::array<std::byte, 32> held;
    std::ranges::copy(secret.expose(), held.begin());
    hsmd->wrapped.push_back(held);
    hsmd->addAes("k");
    auto parsed = parseKeyText(keyText(made->opened, made->fileKey).expose());
    ASSERT_TRUE(parsed.has_value());
    auto ledger = openNonceFile(temporary.path() / "sealed.nonces", parsed->header.ledgerId, {});
    VaultKey* key = keys->addLocked(parsed->header, std::move(*ledger), 1000, nowMs);
    key->awaitsToken = true;
    key->sealed = std::make_unique<SealedKey>(std::move(*parsed));
  }

  void SetUp() override {
    Apps::SetUp();
    hsmd = std::make_unique<FakeHsmd>(loop);
    older = hsmd->addX25519("old");
    active = hsmd->addX25519("new");
    const PublicKey sig = hsmd->addEd25519("sig");
    std::vector<OpenedVersion> versions;
    versions.push_back(inToken(1, older, "old", NOW - 300, NOW - 100));
    versions.push_back(inToken(2, active, "new", NOW - 100, 0));
    addTokenKey("tk", KeyKind::X25519, std::move(versions));
    std::vector<OpenedVersion> signing;
    signing.push_back(inToken(1, sig, "sig", NOW - 100, 0));
    addTokenKey("tsig", KeyKind::Ed25519, std::move(signing));
    signer = sig;
    addSealedKey();
    std::string text(CONFIG);
    text.insert(text.find("[key.honey]"), std::string(TOKEN_CONFIG) + "\n");
    configure(text);
    const auto config = parseConfig(text, temporary.path() / "sallyport.toml");
    Keepers keepers;
    keepers.emplace("hsm1", hsmd->ends());
    tokens.emplace(loop, *config, std::move(keepers));
    state->tokens = &*tokens;
    if (attaches) tokens->attach(*state);
    netServer.emplace(
        loop, listenUnix(temporary.path() / "net.sock", 0600),
        [this](const PeerCredentials&) -> kj::Maybe<capnp::Capability::Client> {
          return capnp::Capability::Client(kj::heap<NetService>(*state));
        },
        LinkLimits());
    netClient.emplace(loop, connectUnix(temporary.path() / "net.sock"), LinkLimits(), [] {});
  }
  template <typename Condition>
  void until(Condition&& condition) {
    const uint64_t limit = loop.nowMs() + 30'000;
    while (!condition() && loop.nowMs() < limit) loop.turn(5);
    EXPECT_TRUE(condition());
  }
  Token& token() { return *tokens->find("hsm1"); }
  // As `hsm status` shows it.
  std::optional<Tokens::KeyState> shown(std::string_view name) {
    for (const auto& key : tokens->keysOf(token())) {
      if (key.name == name) return key;
    }
    return std::nullopt;
  }
  void bringUp() {
    hsmd->up();
    const size_t before = hsmd->count<hsm::Unwrap>();
    const bool waits = keys->find("sealed")->awaitsToken;
    until([&] { return token().up() && (!waits || hsmd->count<hsm::Unwrap>() > before); });
    for (int i = 0; i < 5; ++i) loop.turn(0);  // and what that opens is open
  }
  proto::Admin::Client admin() {
    if (!adminClient) {
      adminServer.emplace(
          loop, listenUnix(temporary.path() / "admin.sock", 0600),
          [this](const PeerCredentials&) -> kj::Maybe<capnp::Capability::Client> {
            return capnp::Capability::Client(kj::heap<AdminService>(*state, facts));
          },
          LinkLimits());
      adminClient.emplace(loop, connectUnix(temporary.path() / "admin.sock"), LinkLimits(), [] {});
    }
    return adminClient->bootstrap().castAs<proto::Admin>();
  }
  // The refusal's text, or nothing if it was done.
  std::string unlockToken(const char* name, std::string_view pin) {
    auto request = admin().unlockTokenRequest();
    request.setToken(name);
    request.setPin(raw(pin));
    auto answer = loop.await(request.send());
    const auto outcome = answer.getOutcome();
    return outcome.isDone() ? "" : std::string(outcome.getRefused().getProblem().cStr());
  }
  proto::Net::Client net() { return netClient->bootstrap().castAs<proto::Net>(); }

  // A Hello that is genuine for version `to`, by a fresh ephemeral key; `count` times in one call.
  auto hellosRequest(const PublicKey& to, unsigned count = 1) {
    auto request = net().sealCookiesRequest();
    for (auto hello : request.initHellos(count)) {
      const Pair ephemeral;
      std::array<unsigned char, 24> nonce{};
      std::memcpy(nonce.data(), "CurveCP-client-H", 16);
      const std::array<unsigned char, 64> zeros{};
      std::array<unsigned char, 80> box;
      EXPECT_EQ(
          crypto_box_easy(box.data(), zeros.data(), zeros.size(), nonce.data(), to.data(), ephemeral.secret.data()), 0);
      hello.setEntry("db");
      hello.setClientEphemeral(raw(ephemeral.publicKey.span()));
      hello.setBox({box.data(), box.size()});
      hello.setServerEphemeral(raw(peer.publicKey.span()));
      hello.setCookie(
          raw(std::string_view("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
                               "0123456789abcdef0123456789abcdef")));
    }
    return request;
  }
  auto hellos(const PublicKey& to, unsigned count = 1) { return loop.await(hellosRequest(to, count).send()); }
};

}  // namespace sallyport::vaultd::test
