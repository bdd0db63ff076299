// key_service.h - a key as a capability: what one program may do with one key. Process: vaultd alone. See
// proto/vault.capnp and docs/protocol.md §8.
// The object holds no secret and no grant: the verbs it was given, its lease, and the key's name. Each call looks the
// grants up again. Texts are opened straight into the answer's message, which is wiped when it dies.
#pragma once

#include <memory>
#include <string>

#include "common/link.h"
#include "proto/vault.capnp.h"
#include "vaultd/batch.h"
#include "vaultd/token_batch.h"
#include "vaultd/vault_state.h"

namespace sallyport::vaultd {

// One connected program.
struct AppSession {
  // Keys that can be used; those that were closed count as objects until the program releases them.
  static constexpr size_t MAX_LIVE_KEYS = 64;
  static constexpr size_t MAX_OBJECTS = 1024;
  // Of all connections of one user, and of all users.
  static constexpr size_t MAX_OBJECTS_OF_USER = 2048;
  static constexpr size_t MAX_OBJECTS_OF_ALL = 4096;
  static constexpr size_t OBJECT_BYTES = 768;  // measured: with what the RPC system keeps of it

  Caller caller;
  pid_t pid = 0;
  size_t liveKeys = 0;
  size_t objects = 0;
  std::shared_ptr<LinkCharge> charge = std::make_shared<LinkCharge>();  // what they cost
};

VerbSet verbsFrom(capnp::List<proto::Verb>::Reader verbs);  // those that this build knows
std::vector<proto::Verb> toProto(VerbSet verbs);

class KeyService final : public proto::Key::Server {
 public:
  KeyService(VaultState& state, std::shared_ptr<AppSession> session, std::string name, VerbSet verbs, uint64_t leaseMs);
  ~KeyService() noexcept;

 protected:
  kj::Promise<void> box(BoxContext context) override;
  kj::Promise<void> open(OpenContext context) override;
  kj::Promise<void> openSealed(OpenSealedContext context) override;
  kj::Promise<void> sign(SignContext context) override;
  kj::Promise<void> freshNonces(FreshNoncesContext context) override;
  kj::Promise<void> renew(RenewContext context) override;
  kj::Promise<void> close(CloseContext context) override;

 private:
  class Timed;
  // What holds for a whole call.
  struct Call {
    Verb verb;
    VaultKey* key = nullptr;
    std::vector<const Grant*> grants;
    std::optional<Refusal> refused;  // of all its items
  };
  Call begin(Verb verb) const;
  Call begin(Verb verb, KeyKind wanted) const;

  // What was made for one item: taken back if it can't be recorded.
  struct Made {
    uint32_t version;
    MutableByteSpan bytes;
  };
  // Carries out one item: `step(record)` gives Result<Made, Refusal> and fills in the record as far as it comes.
  template <typename Step>
  Result<void, Refusal> use(const Call& call, size_t bytes, Step&& step);
  struct Peer {
    PublicKey key;
    std::string_view name;  // empty: not in [peers]
  };
  template <typename PeerReader>
  Result<Peer, Refusal> peerOf(PeerReader reader) const;
  Result<void, Refusal> permit(const Call& call, const Use& use, uint32_t uses = 1);

  // The first look at the items of a call, if its key is in a token: `look(call, item, batch)` says what it may not do,
  // and asks for what it needs.
  template <typename Items, typename Look>
  std::unique_ptr<TokenBatch> lookAt(Verb verb, KeyKind wanted, Items items, Look&& look);

  // `admitted`: what the first look said of it; it has paid its rate then.
  struct Admitted {
    const Admissions& admissions;
    unsigned place;
    uint32_t uses() const { return admissions.paid(place) ? 0 : 1; }
    std::optional<Refusal> refused() const { return admissions.refused(place); }
  };
  Result<void, Refusal> boxOne(const Call& call, Admitted admitted, proto::BoxItem::Reader item,
                               proto::BoxOutcome::Builder outcome, AnswerRoom& room, NonceBatch& batch);
  Result<void, Refusal> openOne(const Call& call, Admitted admitted, proto::OpenItem::Reader item,
                                proto::OpenOutcome::Builder outcome, AnswerRoom& room);
  Result<void, Refusal> openSealedOne(const Call& call, Admitted admitted, ByteSpan box,
                                      proto::OpenOutcome::Builder outcome, AnswerRoom& room);
  Result<void, Refusal> signOne(const Call& call, Admitted admitted, ByteSpan message,
                                proto::SignOutcome::Builder outcome);
  Result<void, Refusal> drawNonces(const Call& call, std::string_view domain, uint32_t count,
                                   proto::NoncesOutcome::Builder outcome);
  // The calls themselves, when what they need of a token has come.
  kj::Promise<void> boxAll(BoxContext context, const Admissions& admissions);
  kj::Promise<void> openAll(OpenContext context, const Admissions& admissions);
  kj::Promise<void> openSealedAll(OpenSealedContext context, const Admissions& admissions);
  kj::Promise<void> signAll(SignContext context, const Admissions& admissions);
  void beginLease(uint64_t leaseMs);
  bool ended() const;
  void countRefusal(std::optional<Refusal> refused);

  VaultState& state_;
  std::shared_ptr<AppSession> session_;
  std::string name_;
  VerbSet verbs_;
  uint64_t endsMs_ = 0;  // 0: no end
  bool closed_ = false;
};

// The lease that policy gives to who asks for `wantedMs` (0: the longest): 0 is no end.
uint64_t leaseMsFor(const std::vector<const Grant*>& grants, VerbSet verbs, uint64_t wantedMs);

}  // namespace sallyport::vaultd
