// token.h - one hardware token as the vault sees it: its hsmd watched, its keys proved, what is asked of it bounded.
// Process: vaultd alone. docs/protocol.md §12, docs/hsm.md, docs/decisions/0031-keys-in-tokens.md.
//
//   Starting --up--> Proving --all keys tried--> Up --proof failed--> Resting --pause over--> Proving
//   any      --the worker died, or is to--> Down --up--> Proving        any --hsmd ended--> Ended
//   any      --the same, as planned--> Starting
//   Proving  --no PIN, or not this one--> NoPin --login--> Proving
//
// Only in Up is anything asked for callers: everything else refuses at once, and nothing waits for a token that may
// never come back. A key is used only after this worker has given its known answer (a wrong one bars the key until
// another worker). Calls that fail don't rest a token, since strangers choose what is derived with: after some of them
// the keys are proved again, and only that decides. What must never happen here: a result taken from another call's
// slot, a PIN kept, an answer believed because the module said so.
#pragma once

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/config.h"
#include "hsmlink/hsm_link.h"
#include "vaultd/key_format.h"

namespace sallyport::vaultd {

enum class TokenState : uint8_t { Starting, Proving, Up, NoPin, Resting, Down, Ended };
std::string_view describe(TokenState state);  // "starting", "proving", "up", "no pin", "resting", "down", "ended"
// What an operator can do about it; empty for Up. `cause`: of NoPin and Down.
std::string hintFor(TokenState state, hsm::Status cause, std::string_view token);

// Bytes on the heap that are wiped when they go.
class WipedBytes {
 public:
  WipedBytes() = default;
  explicit WipedBytes(ByteSpan bytes) : bytes_(bytes.begin(), bytes.end()) {}
  WipedBytes(WipedBytes&&) = default;
  WipedBytes& operator=(WipedBytes&&) = delete;
  ~WipedBytes() { wipe(bytes_); }
  ByteSpan span() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

class Token final : private hsmlink::HsmLink::Events {
 public:
  static constexpr size_t MAX_WAITING = 1024;           // calls that no worker has yet
  static constexpr size_t MAX_SIGNS_WAITING = 64;       // they hold their messages
  static constexpr unsigned FAILURES_BEFORE_PROOF = 8;  // one after the other
  static constexpr uint64_t REST_MS = 1000, MAX_REST_MS = 60'000;

  struct Times {
    uint64_t lostAfterMs = 10'000;  // not up for so long: as good as removed
    uint64_t healthMs = 10'000;     // how often its worker is looked at, and presence considered
  };

  // What the vault does about it. Called from the loop.
  class Observer {
   public:
    virtual void onTokenUp(Token& token) = 0;    // after each proof
    virtual void onTokenLost(Token& token) = 0;  // removed, ended, or away for lostAfterMs; once until it is up again
    // For the log of the audit: "token_up", "token_down", "token_key_bad", ...
    virtual void onTokenEvent(const Token& token, std::string verb, std::string outcome, std::string note) = 0;

   protected:
    ~Observer() = default;
  };

  // `ends`: from startKeeper; else the reason why there is none. `observer` must outlive this.
  Token(EventLoop& loop, const TokenConfig& config, Result<hsmlink::KeeperEnds, std::string> ends, Observer& observer,
        Times times);
  Token(EventLoop& loop, const TokenConfig& config, Result<hsmlink::KeeperEnds, std::string> ends, Observer& observer)
      : Token(loop, config, std::move(ends), observer, Times()) {}
  ~Token() noexcept(false) {}

  const std::string& name() const { return name_; }
  TokenState state() const { return state_; }
  bool up() const { return state_ == TokenState::Up; }
  bool settled() const { return state_ != TokenState::Starting && state_ != TokenState::Proving; }
  bool presenceAlways() const { return presenceAlways_; }
  bool lost() const { return lost_; }  // onTokenLost() was the last word
  // Why it isn't up, and what an operator can do; empty if it is.
  const std::string& why() const { return why_; }
  std::string hint() const;
  // "token hsm is down: the token was removed"
  std::string describe() const;

  // --- keys ---

  // A version of a key that lives here: to be proved, now and after each restart.
  void want(KeyKind kind, const KeyVersion& version);
  // Why the key can't be used now; empty if it can.
  std::string problemOf(const PublicKey& key) const;
  // It is up, and has no such key: it was deleted there, or this is another token.
  bool lacks(const PublicKey& key) const;
  // The slots of one key's file (`bound` is of its name) that this token opens, instead of those that it had before:
  // unwrapped again when presence is proved.
  void wantSeals(const hsm::Block32& bound, std::vector<TokenWrap> wraps);

  // --- calls: `done` is called exactly once, perhaps before the call returns; null: refused ---

  using Derived = std::function<void(const std::span<const std::byte, 32>*)>;
  void derive(const PublicKey& own, const PublicKey& peer, Derived done);
  using Signature = std::array<std::byte, 64>;
  using Signed = std::function<void(const Signature*)>;
  void sign(const PublicKey& own, ByteSpan message, Signed done);
  // Also while it isn't Up, but has its PIN.
  using Unwrapped = std::function<void(const std::span<const std::byte, 32>*)>;
  void unwrap(const TokenWrap& wrap, const hsm::Block32& bound, Unwrapped done);

  // --- operators ---

  // The PIN of an operator. `done` gets Ok, or why not. Without a worker, one is started for it at once.
  void login(ByteSpan pin, bool force, std::function<void(hsm::Status)> done);
  // Everything that is on its way is refused and wiped, and the PIN forgotten: by this worker, or if it dies before it
  // has said so, by the next.
  void panic();

  struct Facts {
    uint32_t epoch = 0, pid = 0;
    uint64_t restarts = 0;
    uint64_t denials = 0;
    std::string lastDenied;
    uint64_t rssKiB = 0;
    uint64_t derived = 0, signedTexts = 0, refused = 0, late = 0, stale = 0, garbage = 0, badResults = 0;
    std::string module, token;        // what it says it is
    std::string page;                 // where secrets pass
    std::vector<std::string> layers;  // of the worker's sandbox: "seccomp active: ..."
  };
  Facts facts() const;

 private:
  using Answered = std::function<void(const hsmlink::Outcome& outcome, ByteSpan slot)>;
  enum class Needs : uint8_t { Nothing, Slot, Message };
  struct Wish {
    hsm::Ask ask;
    Needs needs = Needs::Nothing;
    WipedBytes content;  // into the slot, or the message area
    uint64_t untilMs = 0;
    Answered done;
  };
  struct Key {
    KeyKind kind;
    std::vector<std::byte> id;
    std::optional<uint16_t> index;  // in this epoch
    bool proved = false;
    bool wrong = false;                               // gave a wrong answer: of no use in this epoch
    SecretBytes<struct KnownAnswerTag, 32> expected;  // of the proof under way
    std::array<std::byte, 32> text{};                 // what it signs in it
    std::string problem = "not looked for yet";
  };
  void onControl(const hsm::Control& control) override;
  void onKill(hsm::KillReason reason) override;
  void onEnd() override;

  void enter(TokenState state, std::string why, hsm::Status cause = hsm::Status::Ok);
  void onWorkerDied(const hsm::WorkerDied& died);
  void refuseWaiting();
  void askLogin(Wish wish);
  void dropHeldLogin();
  void forgetPin();
  void pump();
  void ask(Wish wish);  // past the queue
  void enqueue(Wish wish, bool first = false);
  void noteOutcome(const hsmlink::Outcome& outcome);

  void sayHello();
  void listKeys(uint16_t index);
  void noteKey(const hsm::KeyInfo& info);
  void proveAll();
  void prove(const PublicKey& own, Key& key);
  void proved(const PublicKey& own, const hsmlink::Outcome& outcome, ByteSpan slot);
  void bar(const PublicKey& own, std::string problem);
  void proofsDone();
  void proveSeals();
  void rest(std::string why);
  void onHealth();
  void onPing(const hsm::PingReply& reply);
  void lose(std::string_view why);
  const hsm::KeyInfo* wrappingKey(const TokenWrap& wrap) const;

  EventLoop& loop_;
  Observer& observer_;
  const std::string name_;
  const uint64_t deadlineMs_;
  const uint64_t memoryKiB_;
  const bool presenceAlways_;
  const uint64_t recheckMs_;
  const Times times_;
  std::optional<int> pinFd_;  // where hsmd reads its PIN before it starts anything
  TokenState state_ = TokenState::Starting;
  std::string why_ = "its process is starting";
  hsm::Status cause_ = hsm::Status::Ok;  // of NoPin and Down
  std::optional<hsmlink::HsmLink> link_;
  std::map<PublicKey, Key> keys_;
  std::map<hsm::Block32, std::vector<TokenWrap>> seals_;  // by what they are bound to
  std::vector<hsm::KeyInfo> listed_;                      // of this epoch
  std::deque<Wish> waiting_, signsWaiting_;
  size_t callsUnderWay_ = 0;
  size_t mostUnderWay_ = 8;
  bool loggingOut_ = false;        // this worker is on its way out,
  bool loggingIn_ = false;         // or will be, when it has taken its PIN
  std::string planned_;            // this worker is ended though nothing is wrong: "to ..."; empty: it isn't
  bool pinToForget_ = false;       // no worker has said yet that it has forgotten it
  std::optional<Wish> heldLogin_;  // for the worker to come
  unsigned failuresInARow_ = 0;
  unsigned proofsUnderWay_ = 0;
  uint64_t restMs_ = REST_MS;
  uint64_t provedAtMs_ = 0;
  bool lost_ = false;
  Facts facts_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>();
  hsmlink::AlarmClock health_{loop_, [this] { onHealth(); }};
  hsmlink::AlarmClock resting_{loop_, [this] { sayHello(); }};
  hsmlink::AlarmClock losing_{loop_, [this] { lose(why_); }};
};

}  // namespace sallyport::vaultd
