// prober.cc - see prober.h. Part of: hsmd (probe; operator's worker).
#include "hsmd/prober.h"

#include <algorithm>
#include <chrono>
#include <functional>

namespace sallyport::hsmd {

using hsm::KeyKind;
using hsm::PointForm;
using hsm::Trial;
using hsm::WrapAlgorithm;

namespace {

constexpr std::string_view KEY_PREFIX = "key ";

// A session for one trial: what a failure leaves behind ends with it.
class TrialSession {
 public:
  TrialSession(const Module& module, const TokenFacts& token, bool writable) : session_{module, token.slot, 0} {
    const CK_FLAGS flags = CKF_SERIAL_SESSION | (writable ? CKF_RW_SESSION : 0);
    rv_ = module->C_OpenSession(token.slot, flags, nullptr, nullptr, &session_.handle);
  }
  TrialSession(const TrialSession&) = delete;
  ~TrialSession() {
    if (rv_ == CKR_OK) session_.module->C_CloseSession(session_.handle);
  }
  CK_RV rv() const { return rv_; }
  const Session& operator*() const { return session_; }

 private:
  Session session_;
  CK_RV rv_;
};

using Clock = std::chrono::steady_clock;
// Gives back how long the operation that counts has taken.
using Try = std::function<Outcome<Clock::duration>(const Session&)>;

class Prober {
 public:
  Prober(const Module& module, const TokenFacts& token, Board& board, bool writable)
      : module_(module), token_(token), board_(board), writable_(writable) {}

  // True if it works, now or by an earlier probe.
  bool tryOnce(const std::string& name, const Try& what, Board::Pace pace = Board::Pace::Quick) {
    if (lost_ || !board_.begin(name, pace)) return board_.works(name);
    const TrialSession session(module_, token_, writable_);
    auto done = session.rv() == CKR_OK ? what(*session) : Outcome<Clock::duration>(failed(session.rv()));
    if (done) {
      const auto microseconds = std::chrono::duration_cast<std::chrono::microseconds>(*done).count();
      board_.end(name, Trial::Works, 0, static_cast<uint32_t>(microseconds));
      return true;
    }
    // Such a code may mean this key or the whole token; another probe will try it again.
    const bool passing = needsRecovery(done.error().rv);
    if (done.error().status == Status::SessionLimit) lost_ = done.error();
    if (const auto there = tokenFacts(module_, token_.slot); passing && !there) lost_ = there.error();
    if (lost_ || passing) {
      board_.end(name, Trial::Untried, static_cast<uint32_t>(done.error().rv), 0);
      return false;
    }
    const bool wrong = done.error().status == Status::BadResult;
    board_.end(name, wrong ? Trial::Wrong : Trial::Refused, static_cast<uint32_t>(done.error().rv), 0);
    return false;
  }

  // What hung once does so in its other spellings as well, and each costs its time.
  bool hasHung(std::string_view prefix) const { return board_.hasHung(prefix); }
  // The token went away meanwhile; nothing more is tried.
  Outcome<void> outcome() const { return lost_ ? Outcome<void>(refuse(*lost_)) : Outcome<void>(); }

 private:
  const Module& module_;
  const TokenFacts& token_;
  Board& board_;
  bool writable_;
  std::optional<Failure> lost_;
};

Outcome<Clock::duration> timed(const std::function<Outcome<void>()>& operation) {
  const auto begin = Clock::now();
  if (auto done = operation(); !done) return refuse(done.error());
  return Clock::now() - begin;
}

// Makes a key for the session, proves it, destroys it; the time is that of the proof.
Try withNewKey(std::function<Outcome<KeyPair>(const Session&)> make,
               std::function<Outcome<void>(const Session&, TokenKey&)> use) {
  return [make = std::move(make), use = std::move(use)](const Session& session) -> Outcome<Clock::duration> {
    const auto pair = make(session);
    if (!pair) return refuse(pair.error());
    auto key = readKey(session, pair->secret, pair->open);
    auto took = key ? timed([&] { return use(session, *key); }) : Outcome<Clock::duration>(failed(Status::BadResult));
    destroy(session, *pair);
    return took;
  };
}

const NewKey SESSION_KEY{.stays = false, .id = asBytes("sallyport-probe"), .label = "sallyport probe"};

struct ProbeTag;
using ProbeSecret = SecretBytes<ProbeTag, 32>;

void probeX25519(Prober& prober) {
  for (const std::string what : {"generate", "import"}) {
    for (const SpellingRow& row : spellings()) {
      bool works = false;
      for (const PointForm form : {PointForm::Raw, PointForm::Octets}) {
        const auto make = [&row, generate = what == "generate"](const Session& session) {
          if (generate) return generateX25519(session, row, SESSION_KEY);
          const ProbeSecret secret = ProbeSecret::random();
          return importX25519(session, row, SESSION_KEY, secret.expose());
        };
        const auto use = [form](const Session& session, TokenKey& key) -> Outcome<void> {
          // Never touched if the module made something else of it: see spelling.h.
          if (key.info.kind != KeyKind::X25519) return failed(Status::BadResult);
          return prove(session, key, {.name = {}, .kind = KeyKind::X25519, .form = form});
        };
        const std::string name =
            "x25519 " + what + ": " + std::string(hsm::name(row.spelling)) + ", " + std::string(hsm::name(form));
        works = prober.tryOnce(name, withNewKey(make, use));
        if (prober.hasHung("x25519 ")) return;
        if (works) break;
      }
      if (works) break;  // the first that yields a proved derive
    }
  }
}

void probeWraps(Prober& prober) {
  const auto proof = [](WrapAlgorithm algorithm) {
    return [algorithm](const Session& session, TokenKey& key) -> Outcome<void> {
      if (key.info.kind != KeyKind::Aes && key.info.kind != KeyKind::Rsa) return failed(Status::BadResult);
      return proveWrap(session, key.wrapHandle(), key.use, algorithm, key.modulusBytes());
    };
  };
  prober.tryOnce("seal: aes-gcm", withNewKey([](const Session& session) { return generateAes(session, SESSION_KEY); },
                                             proof(WrapAlgorithm::Gcm)));
  for (const WrapAlgorithm algorithm : {WrapAlgorithm::OaepSha256, WrapAlgorithm::OaepSha1}) {
    if (prober.hasHung("seal: rsa")) return;
    prober.tryOnce(
        "seal: " + std::string(hsm::name(algorithm)),
        withNewKey([](const Session& session) { return generateRsa(session, 2048, SESSION_KEY); }, proof(algorithm)),
        Board::Pace::Slow);
  }
}

}  // namespace

Outcome<void> probeKeys(const Module& module, const TokenFacts& token, Board& board, bool patient) {
  std::vector<TokenKey> keys;
  {
    const TrialSession session(module, token, false);
    if (session.rv() != CKR_OK) return failed(session.rv());
    auto found = findKeys(*session, false);
    if (!found) return refuse(found.error());
    keys = std::move(*found);
  }
  Prober prober(module, token, board, false);
  const auto hangs = [&](KeyKind kind) {
    if (kind == KeyKind::X25519 && board.hasHung("x25519 ")) return true;
    return std::ranges::any_of(keys, [&](const TokenKey& key) {
      const auto trials = trialsOf(key);
      return key.info.kind == kind &&
             std::ranges::any_of(trials, [&](const KeyTrial& trial) { return board.hasHung(trial.name); });
    });
  };
  for (TokenKey& key : keys) {
    if (!patient && hangs(key.info.kind)) continue;
    for (const KeyTrial& trial : trialsOf(key)) {
      const bool works = prober.tryOnce(
          trial.name, [&](const Session& session) { return timed([&] { return prove(session, key, trial); }); });
      if (works && key.info.kind == KeyKind::X25519) break;  // one form of the point is enough
    }
  }
  return prober.outcome();
}

Outcome<void> probeCapabilities(const Module& module, const TokenFacts& token, Board& board) {
  Prober prober(module, token, board, true);
  probeX25519(prober);
  for (const auto& spelling : ed25519Spellings()) {
    if (prober.hasHung("ed25519 ")) break;
    const std::string name = spelling.parameters.front() == 0x06 ? "ed25519 generate: oid" : "ed25519 generate: name";
    prober.tryOnce(
        name,
        withNewKey([&](const Session& session) { return generateEd25519(session, spelling.parameters, SESSION_KEY); },
                   [](const Session& session, TokenKey& key) {
                     return prove(session, key, {.name = {}, .kind = KeyKind::Ed25519});
                   }));
  }
  probeWraps(prober);
  prober.tryOnce("random", [](const Session& session) {
    return timed([&]() -> Outcome<void> {
      ProbeSecret random;
      const CK_RV rv = session.module->C_GenerateRandom(session.handle, random.exposeData(), ProbeSecret::SIZE);
      if (rv != CKR_OK) return failed(rv);
      return {};
    });
  });
  return prober.outcome();
}

std::vector<Board::Seen> capabilityTrials(const Board& board) {
  std::vector<Board::Seen> trials;
  for (size_t i = 0; i < board.size(); ++i) {
    auto seen = board.at(i);
    if (!seen.name.starts_with(KEY_PREFIX)) trials.push_back(std::move(seen));
  }
  return trials;
}

const SpellingRow* provedRow(const Board& board, std::string_view what) {
  for (const SpellingRow& row : spellings()) {
    for (const PointForm form : {PointForm::Raw, PointForm::Octets}) {
      const std::string name = "x25519 " + std::string(what) + ": " + std::string(hsm::name(row.spelling)) + ", " +
                               std::string(hsm::name(form));
      if (board.works(name)) return &row;
    }
  }
  return nullptr;
}

Outcome<void> proveNew(const Session& session, TokenKey& key) {
  Outcome<void> last = failed(Status::Unsupported);
  bool any = false;
  const auto trials = trialsOf(key);
  key.info.gcm = key.info.oaepSha256 = key.info.oaepSha1 = false;
  for (const KeyTrial& trial : trials) {
    auto proved = prove(session, key, trial);
    if (!proved) {
      if (!any) last = std::move(proved);
      continue;
    }
    any = true;
    key.info.proof = Status::Ok;
    key.info.form = trial.form;
    if (key.info.kind == KeyKind::Aes) key.info.gcm = true;
    if (key.info.kind == KeyKind::Rsa)
      (trial.algorithm == WrapAlgorithm::OaepSha256 ? key.info.oaepSha256 : key.info.oaepSha1) = true;
    if (key.info.kind == KeyKind::X25519) break;
  }
  return any ? Outcome<void>() : last;
}

}  // namespace sallyport::hsmd
