// box_flow.cc - the vault's boxes, signatures, nonces and audit records: see secret_flow.cc.
#include "tests/timing/flow.h"
#include "tests/unit/vaultd/memory_disk.h"
#include "vaultd/audit_record.h"
#include "vaultd/box.h"
#include "vaultd/signer.h"

namespace sallyport::vaultd::flow {
namespace {

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
    step("box and open by a token", [&] { tokenBoxes(); });
    step("sign", [&] { signatures(); });
    step("fresh nonces", [&] { nonces(); });
    step("shared keys dropped", [&] { cache_.retain([](auto, const auto&) { return false; }); });
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
      NonceBatch batch;
      return box_->sealCookie({key, exactly, server.publicKey, cookie}, nonces, batch, out);
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
      NonceBatch batch;
      const auto nonce = box_->makeVouch(server.publicKey, ephemeral.publicKey, nonces, batch, out, cached);
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

  // What a token has derived is as secret as what we multiply ourselves.
  void tokenBoxes() {
    const Pair peer, own;
    const std::vector<std::byte> text(300);
    TokenResults results;
    LongTermBox box(*arena_, cache_, 2, results, own.publicKey);
    auto nonces = source<BoxRole::Application>();
    TokenResults::Set set;
    set.derived.push_back({2, peer.publicKey, arena_->takeSlot()});
    const auto raw = set.derived[0].raw.exposeMutable<32>();
    CHECK(crypto_scalarmult(uchars(MutableByteSpan(raw)), own.secret.data(), peer.publicKey.data()) == 0);
    makeSecret(raw);
    const TokenResults::Use use(results, set);
    std::vector<std::byte> out(text.size() + wire::BOX_TAG_BYTES);
    NonceBatch batch(1);
    bool cached = false;
    expect(box.sealText(peer.publicKey, text, nonces, batch, out, true, cached).has_value(), "a text is boxed");
    expectSecret(out, "its box");
    std::array<std::byte, 16> random{};
    const Nonce nonce = nonceOf(prefixOf(BoxRole::Application), random);
    const AppNonceBytes nonceBytes(std::as_bytes(std::span(nonce)));
    const auto sealed = boxOf(peer, own.publicKey, nonce, text);
    std::vector<std::byte> opened(text.size());
    expect(box.openText(peer.publicKey, nonceBytes, sealed, opened, true, cached).has_value(), "a box");
    expectSecret(opened, "an opened text");
    expect(!box.openText(peer.publicKey, nonceBytes, forged(sealed), opened, true, cached), "a forged box");
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

}  // namespace

void boxFlows() { Flows().run(); }

}  // namespace sallyport::vaultd::flow
