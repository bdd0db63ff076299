// Goal: no branch and no memory index of the vault depends on a secret but where docs/threat-model.md says so.
// Method: ctgrind's. Secrets are marked as undefined for valgrind's memcheck, which follows what is computed from them
// bit by bit and reports each branch and each index that depends on it. The points at which a bit may become public are
// reveal() and those in libsodium: declassified.supp has all of them. After a step its results are asked whether they
// depend on the secret, so a step that used something else can't pass; and two steps that break the rule must be found.
// Not covered: Argon2id, whose second half indexes memory by what it computed, and the reading of a plain key's text.
#include <sodium.h>
#include <valgrind/memcheck.h>

#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "tests/unit/vaultd/memory_disk.h"
#include "vaultd/audit_record.h"
#include "vaultd/box.h"
#include "vaultd/key_format.h"
#include "vaultd/key_shares.h"
#include "vaultd/signer.h"

namespace sallyport::vaultd {
namespace {

int failures = 0;

void expect(bool good, const std::string& what) {
  if (good) return;
  std::printf("FAILED: %s\n", what.c_str());
  ++failures;
}

void makeSecret(ByteSpan bytes) { VALGRIND_MAKE_MEM_UNDEFINED(bytes.data(), bytes.size()); }
// What leaves the vault: from here on anybody may look at it.
void publish(ByteSpan bytes) { VALGRIND_MAKE_MEM_DEFINED(bytes.data(), bytes.size()); }

bool dependsOnASecret(ByteSpan bytes) {
  std::vector<unsigned char> undefined(bytes.size());
  CHECK(VALGRIND_GET_VBITS(bytes.data(), undefined.data(), bytes.size()) == 1);
  return sodium_is_zero(undefined.data(), undefined.size()) == 0;
}

// Results that must follow from the secret; then they are published.
void expectSecret(ByteSpan bytes, const std::string& what) {
  expect(dependsOnASecret(bytes), what + ": doesn't depend on the secret, so the step wasn't tried");
  publish(bytes);
}

unsigned reported() { return VALGRIND_COUNT_ERRORS; }

void step(const std::string& name, const std::function<void()>& work) {
  const unsigned before = reported();
  work();
  wipeDeadStack();
  const unsigned found = reported() - before;
  std::printf("# %-28s %u\n", name.c_str(), found);
  expect(found == 0, name + ": valgrind reports a branch or an index that depends on a secret");
}

void control(const std::string& name, const std::function<void()>& work) {
  const unsigned before = reported();
  std::printf("# the next report is wanted: %s\n", name.c_str());
  std::fflush(stdout);
  work();
  expect(reported() > before, name + ": not reported, so nothing above says anything");
}

struct Pair {
  PublicKey publicKey;
  std::array<unsigned char, 32> secret;
  Pair() { crypto_box_keypair(publicKey.data(), secret.data()); }
};

using Nonce = std::array<unsigned char, 24>;

Nonce nonceOf(std::string_view prefix, ByteSpan rest) {
  Nonce nonce{};
  std::memcpy(nonce.data(), prefix.data(), prefix.size());
  std::memcpy(nonce.data() + prefix.size(), rest.data(), rest.size());
  return nonce;
}

// A box by somebody else, to our key.
std::vector<std::byte> boxOf(const Pair& from, const PublicKey& to, const Nonce& nonce, ByteSpan text) {
  std::vector<std::byte> box(text.size() + wire::BOX_TAG_BYTES);
  CHECK(crypto_box_easy(uchars(MutableByteSpan(box)), uchars(text), text.size(), nonce.data(), to.data(),
                        from.secret.data()) == 0);
  return box;
}

std::vector<std::byte> forged(std::vector<std::byte> box) {
  box.back() ^= std::byte{1};
  return box;
}

class Flows {
 public:
  Flows() : arena_(std::move(*SecretArena::create(64 * 1024, SecretArena::Want::LockedMemory))), cache_(*arena_, 64) {
    makeSecret(secret_.expose());
    makeSecret(seed_.expose());
  }

  void run() {
    step("public keys", [&] { makeKeys(); });
    step("sealCookie", [&] { cookies(); });
    step("verifyVouch", [&] { verifiedVouches(); });
    step("makeVouch", [&] { madeVouches(); });
    step("box", [&] { boxes(); });
    step("open", [&] { openedBoxes(); });
    step("openSealed", [&] { sealedBoxes(); });
    step("sign", [&] { signatures(); });
    step("fresh nonces", [&] { nonces(); });
    step("shared keys dropped", [&] { cache_.retain([](auto, const auto&) { return false; }); });
    for (const KeyKind kind : {KeyKind::X25519, KeyKind::Ed25519})
      step("unsealing " + std::string(describe(kind)), [&] { unsealing(kind); });
    step("shares", [&] { shares(); });
    step("audit mac", [&] { auditMacs(); });
  }

 private:
  void makeKeys() {
    box_.emplace(*arena_, cache_, 1, secret_);
    signer_.emplace(*arena_, seed_);
    expectSecret(box_->publicKey().span(), "a public key");
    expectSecret(signer_->publicKey().span(), "a public key that verifies");
  }

  template <BoxRole R>
  NonceSource<R> source() {
    return NonceSource<R>(*ledger_, box_->secretForNonceKeys());
  }

  void cookies() {
    auto nonces = source<BoxRole::Cookie>();
    const Pair client, server;
    const std::array<std::byte, wire::HELLO_ZERO_BYTES> zeros{};
    std::array<std::byte, wire::HELLO_ZERO_BYTES> other{};
    other[63] = std::byte{1};
    const std::array<std::byte, wire::COOKIE_BYTES> cookie{};
    std::array<std::byte, wire::COOKIE_PACKET_BOX_BYTES> out;
    const auto attempt = [&](const PublicKey& key, const std::vector<std::byte>& box) {
      const auto exactly = std::span<const std::byte, wire::HELLO_BOX_BYTES>(box.data(), box.size());
      return box_->sealCookie({key, exactly, server.publicKey, cookie}, nonces, out);
    };
    const Nonce nonce = nonceOf("CurveCP-client-H", {});
    const auto hello = boxOf(client, box_->publicKey(), nonce, zeros);
    const auto made = attempt(client.publicKey, hello);
    expect(made.has_value(), "a cookie is sealed");
    expectSecret(made->span(), "its nonce");
    expectSecret(out, "its box");
    expect(!attempt(client.publicKey, forged(hello)), "a forged Hello");
    expect(!attempt(client.publicKey, boxOf(client, box_->publicKey(), nonce, other)), "a Hello of something else");
    expect(!attempt(PublicKey(), hello), "a key of low order");
  }

  void verifiedVouches() {
    const Pair client, ephemeral;
    std::array<std::byte, 16> random{};
    const auto box =
        boxOf(client, box_->publicKey(), nonceOf(prefixOf(BoxRole::Vouch), random), ephemeral.publicKey.span());
    const auto attempt = [&](const std::vector<std::byte>& vouch, const PublicKey& key, bool mustBeCached) {
      const auto exactly = std::span<const std::byte, wire::VOUCH_BYTES>(vouch.data(), vouch.size());
      bool cached = false;
      const auto done =
          box_->verifyVouch({client.publicKey, LongNonceBytes(random), exactly, key}, true, cached).has_value();
      expect(cached == mustBeCached, "the shared key of a vouch is cached");
      return done;
    };
    expect(!attempt(forged(box), ephemeral.publicKey, false), "a forged vouch");
    expect(!attempt(box, client.publicKey, false), "a vouch for another key");
    expect(attempt(box, ephemeral.publicKey, false), "a vouch");
    expect(attempt(box, ephemeral.publicKey, true), "a vouch, by the cached key");
    expect(!attempt(forged(box), ephemeral.publicKey, true), "a forged vouch, by the cached key");
  }

  void madeVouches() {
    auto nonces = source<BoxRole::Vouch>();
    const Pair server, ephemeral;
    for (const bool mustBeCached : {false, true}) {
      std::array<std::byte, wire::VOUCH_BYTES> out;
      bool cached = false;
      const auto nonce = box_->makeVouch(server.publicKey, ephemeral.publicKey, nonces, out, cached);
      expect(nonce.has_value() && cached == mustBeCached, "a vouch is made");
      expectSecret(nonce->span(), "its nonce");
      expectSecret(out, "its box");
    }
  }

  void boxes() {
    auto nonces = source<BoxRole::Application>();
    const Pair peer;
    const std::vector<std::byte> text(300);
    std::vector<std::byte> out(text.size() + wire::BOX_TAG_BYTES);
    NonceBatch batch(3);
    for (const bool remember : {true, false}) {
      bool cached = false;
      const auto nonce = box_->sealText(peer.publicKey, text, nonces, batch, out, remember, cached);
      expect(nonce.has_value(), "a text is boxed");
      expectSecret(nonce->span(), "its nonce");
      expectSecret(out, "its box");
    }
    bool cached = false;
    expect(!box_->sealText(PublicKey(), text, nonces, batch, out, true, cached), "a peer of low order");
  }

  void openedBoxes() {
    const Pair peer;
    const std::vector<std::byte> text(300);
    std::array<std::byte, 16> random{};
    const Nonce nonce = nonceOf(prefixOf(BoxRole::Application), random);
    const AppNonceBytes nonceBytes(std::as_bytes(std::span(nonce)));
    const auto box = boxOf(peer, box_->publicKey(), nonce, text);
    const auto attempt = [&](const PublicKey& from, const std::vector<std::byte>& sealed) {
      std::vector<std::byte> out(text.size());
      bool cached = false;
      const bool opened = box_->openText(from, nonceBytes, sealed, out, true, cached).has_value();
      if (opened) expectSecret(out, "an opened text");
      return opened;
    };
    expect(!attempt(peer.publicKey, forged(box)), "a forged box");
    expect(attempt(peer.publicKey, box), "a box");
    expect(attempt(peer.publicKey, box), "a box, by the cached key");
    expect(!attempt(peer.publicKey, forged(box)), "a forged box, by the cached key");
    expect(!attempt(PublicKey(), box), "a peer of low order");
  }

  void sealedBoxes() {
    const std::vector<std::byte> text(300);
    std::vector<std::byte> box(text.size() + SEALED_BOX_BYTES), out(text.size());
    CHECK(crypto_box_seal(uchars(MutableByteSpan(box)), uchars(ByteSpan(text)), text.size(),
                          box_->publicKey().data()) == 0);
    expect(box_->openAnonymous(box, out).has_value(), "a sealed box");
    expectSecret(out, "its text");
    expect(!box_->openAnonymous(forged(box), out), "a forged sealed box");
  }

  void signatures() {
    for (const size_t size : {0, 1, 300}) {
      std::array<std::byte, SIGNATURE_BYTES> signature;
      expect(signer_->sign(std::vector<std::byte>(size), signature).has_value(), "signing");
      expectSecret(signature, "a signature");
    }
  }

  void nonces() {
    DomainNonces mine(*ledger_, signer_->secretForNonceKeys(), *NonceDomain::named("mine"));
    NonceBatch batch(64);
    for (int i = 0; i < 64; ++i) expectSecret(mine.draw(batch)->span(), "a nonce of a program's own");
  }

  // A key file whose slot is a credential: what Argon2id gives is used in the same way.
  void unsealing(KeyKind kind) {
    auto credential = SecretText::copyOf(std::string(40, 'c'));
    const Sealing sealing{SealKind::SystemdCredential, &credential, {}, "cred", 0, 0, {}};
    const auto made = newKey("k", kind, LongTermSecret::random(), sealing, 1'800'000'000);
    CHECK(made.has_value());
    const SecretText text = keyText(made->opened, made->fileKey);
    const auto sealed = parseKeyText(text.expose());
    CHECK(sealed.has_value());
    const auto given = [](char letter) {
      SlotSecret secret{SealKind::SystemdCredential, SecretText::copyOf(std::string(40, letter)), "cred"};
      makeSecret(asBytes(secret.text.expose()));
      return secret;
    };
    expect(!fileKeyOf(*sealed, given('d')), "another credential");
    const auto fileKey = fileKeyOf(*sealed, given('c'));
    expect(fileKey.has_value() && dependsOnASecret(fileKey->expose()), "a file key");
    const auto opened = openKey(*sealed, *fileKey);
    expect(opened.has_value() && dependsOnASecret(opened->versions[0].secret.expose()), "an unsealed key");
    FileKey wrong = FileKey::random();
    makeSecret(wrong.expose());
    expect(!openKey(*sealed, wrong), "another file key");
  }

  void shares() {
    const ShareSecret secret = ShareSecret::random();
    makeSecret(secret.expose());
    auto split = splitSecret(secret, "k", {}, 2, 3);
    expect(dependsOnASecret(split[0].value.expose()), "a share");
    const auto joined = joinShares(std::span(split).subspan(1));
    expect(joined.has_value() && dependsOnASecret(asBytes(joined->text.expose())), "the joined secret");
  }

  void auditMacs() {
    AuditKey key = AuditKey::random();
    AuditKey copy(key.expose());
    for (AuditKey* each : {&key, &copy}) makeSecret(each->expose());
    AuditRecord record;
    record.seq = 1;
    record.timeMs = 1'800'000'000'000;
    record.verb = "box";
    record.outcome = "ok";
    AuditChain chain;
    std::string line = sealRecord(record, chain, key);
    expectSecret(asBytes(line), "a record's mac");
    expect(dependsOnASecret(key.expose()), "the next mac key");
    AuditChecker checker(1, {});
    checker.useKey(std::move(copy));
    expect(checker.take(line).has_value(), "a record is checked");
    AuditChecker other(1, {});
    AuditKey wrong = AuditKey::random();
    makeSecret(wrong.expose());
    other.useKey(std::move(wrong));
    expect(!other.take(line), "a record of another key");
  }

  std::unique_ptr<SecretArena> arena_;
  SharedKeyCache cache_;
  std::unique_ptr<NonceLedger> ledger_ = test::freshLedger();
  LongTermSecret secret_ = LongTermSecret::random();
  LongTermSecret seed_ = LongTermSecret::random();
  std::optional<LongTermBox> box_;
  std::optional<LongTermSigner> signer_;
};

[[gnu::noinline]] void branchOn(const unsigned char& secret) {
  if ((secret & 1) != 0) asm volatile("# one");
}
[[gnu::noinline]] int indexBy(const unsigned char& secret) {
  static volatile unsigned char table[256];
  return table[secret];
}

int run() {
  if (RUNNING_ON_VALGRIND == 0) {
    std::puts("run it under valgrind: meson test 'secret flow'");
    return 77;
  }
  CHECK(sodium_init() >= 0);
  prepareNonceCipher();
  Flows().run();
  const LongTermSecret planted = LongTermSecret::random();
  makeSecret(planted.expose());
  control("a branch", [&] { branchOn(*planted.exposeData()); });
  control("an index", [&] { static_cast<void>(indexBy(*planted.exposeData())); });
  control("a comparison that stops early",
          [&] { static_cast<void>(std::memcmp(planted.exposeData(), "x", 1) == 0 ? std::puts("# equal") : 0); });
  std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace sallyport::vaultd

int main() { return sallyport::vaultd::run(); }
