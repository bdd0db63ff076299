// service.cc - see service.h. Part of: hsmd (worker).
#include "hsmd/service.h"

#include <sodium.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "common/match.h"
#include "hsmd/prober.h"

namespace sallyport::hsmd {

using hsm::KeyInfo;
using hsm::KeyKind;
using hsm::WrapAlgorithm;

namespace {

struct ResultTag;
struct NewTag;
using Result32 = SecretBytes<ResultTag, 32>;
using Secret32 = SecretBytes<NewTag, 32>;

template <size_t N>
hsm::Bounded<N> bounded(const std::string& text) {
  return hsm::Bounded<N>::cut(text);
}

void put(std::span<std::byte, hsm::SLOT_BYTES> slot, std::span<const std::byte, 32> bytes) {
  std::ranges::copy(bytes, slot.begin());
}

// "VmRSS:     1234 kB" of /proc/self/status.
uint64_t fieldOf(const char* text, const char* name) {
  const char* at = std::strstr(text, name);
  return at == nullptr ? 0 : std::strtoull(at + std::strlen(name), nullptr, 10);
}

bool allows(const KeyInfo& key, WrapAlgorithm algorithm) {
  switch (algorithm) {
    case WrapAlgorithm::Gcm: return key.gcm;
    case WrapAlgorithm::OaepSha256: return key.oaepSha256;
    case WrapAlgorithm::OaepSha1: return key.oaepSha1;
  }
  return false;
}

KeyKind kindOf(WrapAlgorithm algorithm) { return algorithm == WrapAlgorithm::Gcm ? KeyKind::Aes : KeyKind::Rsa; }

}  // namespace

Service::Service(Token& token, ClientPage& page, PinRecord& pin, const Board& board, Facts facts)
    : token_(token), page_(page), pin_(pin), board_(board), facts_(facts) {}

Service::Handled Service::handle(const hsm::Request& request, Line& line) {
  Handled handled{.reply = {.epoch = facts_.epoch, .id = request.id}};
  hsm::Reply& reply = handled.reply;
  if (request.epoch != facts_.epoch) {
    reply.status = Status::StaleEpoch;
    return handled;
  }
  ++calls_;
  auto result = std::visit([&](const auto& ask) { return answer(ask, line); }, request.ask);
  if (result) {
    reply.answer = std::move(*result);
  } else {
    reply.status = result.error().status;
    reply.ckr = static_cast<uint32_t>(result.error().rv);
  }
  if (ending_ || token_.lost() != Status::Ok) handled.after = After::End;
  return handled;
}

Outcome<const KeyInfo*> Service::usable(uint16_t key, KeyKind kind) {
  if (facts_.login != Status::Ok) return failed(facts_.login);
  if (key >= token_.keys().size()) return failed(Status::NoKey);
  const KeyInfo& info = token_.keys()[key].info;
  if (info.kind != kind) return failed(Status::Unsupported);
  if (info.proof != Status::Ok) return failed(info.proof);
  return &info;
}

// --- what is answered in any state -----------------------------------------------------------------------------------

Service::Result Service::answer(const hsm::Hello&, Line&) {
  const TokenFacts& facts = token_.facts();
  hsm::HelloReply hello{.login = facts_.login,
                        .tokenFlags = static_cast<uint32_t>(facts.flags),
                        .keyCount = static_cast<uint16_t>(token_.keys().size()),
                        .sessions = facts_.sessions,
                        .module = bounded<64>(token_.module().describe()),
                        .label = bounded<32>(facts.label),
                        .manufacturer = bounded<32>(facts.manufacturer),
                        .model = bounded<32>(facts.model),
                        .serial = bounded<32>(facts.serial)};
  if (const auto now = tokenFacts(token_.module(), facts.slot)) hello.tokenFlags = static_cast<uint32_t>(now->flags);
  return hsm::Answer(hello);
}

Service::Result Service::answer(const hsm::List& list, Line&) {
  if (list.index >= token_.keys().size()) return failed(Status::NoKey);
  return hsm::Answer(token_.keys()[list.index].info);
}

Service::Result Service::answer(const hsm::Probe& probe, Line&) {
  if (!facts_.operatorMode) return failed(Status::Unsupported);
  const auto trials = capabilityTrials(board_);
  if (probe.index >= trials.size()) return failed(Status::BadRequest);
  const Board::Seen& seen = trials[probe.index];
  return hsm::Answer(hsm::ProbeReply{.index = probe.index,
                                     .count = static_cast<uint16_t>(trials.size()),
                                     .what = hsm::Bounded<48>::cut(seen.name),
                                     .trial = seen.trial,
                                     .ckr = seen.ckr,
                                     .microseconds = seen.microseconds,
                                     .call = hsm::Bounded<24>::cut(seen.call)});
}

Service::Result Service::answer(const hsm::Ping&, Line& line) {
  if (facts_.login == Status::Ok) {
    const auto& keys = token_.keys();
    const auto proved = std::ranges::find_if(keys, [](const TokenKey& key) { return key.info.proof == Status::Ok; });
    std::optional<size_t> index;
    if (proved != keys.end()) index = static_cast<size_t>(proved - keys.begin());
    auto done = token_.run(line, index, [&](const Session& session, const TokenKey& key) -> Outcome<void> {
      if (!index) {
        const auto facts = tokenFacts(session.module, session.slot);
        return facts ? Outcome<void>() : Outcome<void>(refuse(facts.error()));
      }
      if (key.info.kind == KeyKind::X25519)
        return proveDerive(session, key.use, key.info.form, std::span<const std::byte, 32>(key.info.publicKey));
      if (key.info.kind == KeyKind::Ed25519)
        return proveSign(session, key.use, std::span<const std::byte, 32>(key.info.publicKey));
      const auto algorithm = key.info.gcm          ? WrapAlgorithm::Gcm
                             : key.info.oaepSha256 ? WrapAlgorithm::OaepSha256
                                                   : WrapAlgorithm::OaepSha1;
      return proveWrap(session, key.wrapHandle(), key.use, algorithm, key.modulusBytes());
    });
    if (!done) return refuse(done.error());
  }
  hsm::PingReply ping{.calls = calls_, .recoveries = token_.recoveries()};
  std::array<char, 4096> text{};
  if (facts_.statusFd >= 0 && pread(facts_.statusFd, text.data(), text.size() - 1, 0) > 0) {
    ping.rssKiB = fieldOf(text.data(), "VmRSS:");
    ping.threads = static_cast<uint32_t>(fieldOf(text.data(), "Threads:"));
  }
  return hsm::Answer(ping);
}

// --- operations with a key -------------------------------------------------------------------------------------------

Service::Result Service::answer(const hsm::Derive& ask, Line& line) {
  if (!ClientPage::isSlot(ask.slot)) return failed(Status::BadRequest);
  if (const auto key = usable(ask.key, KeyKind::X25519); !key) return refuse(key.error());
  Result32 secret;
  auto done = token_.run(line, ask.key, [&](const Session& session, const TokenKey& key) {
    return derive(session, key.use, key.info.form, ask.peer, secret.exposeMutable());
  });
  if (!done) return refuse(done.error());
  put(page_.slot(ask.slot), secret.expose());
  return hsm::Answer(hsm::Done{});
}

Service::Result Service::answer(const hsm::Sign& ask, Line& line) {
  if (ask.messageBytes > hsm::MESSAGE_BYTES) return failed(Status::BadRequest);
  if (const auto key = usable(ask.key, KeyKind::Ed25519); !key) return refuse(key.error());
  const ByteSpan shared = page_.message(ask.messageBytes);
  // EdDSA reads its message twice; it has to be the same both times.
  const std::vector<std::byte> message(shared.begin(), shared.end());
  hsm::SignReply reply;
  auto done = token_.run(line, ask.key, [&](const Session& session, const TokenKey& key) {
    return sign(session, key.use, message, reply.signature);
  });
  if (!done) return refuse(done.error());
  return hsm::Answer(reply);
}

Service::Result Service::answer(const hsm::Wrap& ask, Line& line) {
  if (!ClientPage::isSlot(ask.slot)) return failed(Status::BadRequest);
  const auto secret = page_.take<Secret32>(ask.slot);
  const auto key = usable(ask.key, kindOf(ask.algorithm));
  if (!key) return refuse(key.error());
  if (!allows(**key, ask.algorithm)) return failed(Status::Unsupported);
  hsm::WrapReply reply;
  auto done = token_.run(line, ask.key, [&](const Session& session, const TokenKey& one) -> Outcome<void> {
    auto blob = wrap(session, one.wrapHandle(), ask.algorithm, one.modulusBytes(), ask.bound, secret.expose());
    if (!blob) return refuse(blob.error());
    reply.blob = *blob;
    return {};
  });
  if (!done) return refuse(done.error());
  return hsm::Answer(reply);
}

Service::Result Service::answer(const hsm::Unwrap& ask, Line& line) {
  if (!ClientPage::isSlot(ask.slot)) return failed(Status::BadRequest);
  const auto key = usable(ask.key, kindOf(ask.algorithm));
  if (!key) return refuse(key.error());
  if (!allows(**key, ask.algorithm)) return failed(Status::Unsupported);
  Result32 secret;
  auto done = token_.run(line, ask.key, [&](const Session& session, const TokenKey& one) {
    return unwrap(session, one.use, ask.algorithm, ask.bound, ask.blob.span(), secret.exposeMutable());
  });
  if (!done) {
    // One answer for all that can be wrong with a blob: modules tell padding from length, and so would we.
    if (needsRecovery(done.error().rv) || token_.lost() != Status::Ok || done.error().status == Status::SessionLimit)
      return refuse(done.error());
    return failed(Status::BlobRejected);
  }
  put(page_.slot(ask.slot), secret.expose());
  return hsm::Answer(hsm::Done{});
}

Service::Result Service::answer(const hsm::Random& ask, Line& line) {
  if (!ClientPage::isSlot(ask.slot) || ask.bytes == 0 || ask.bytes > hsm::SLOT_BYTES) return failed(Status::BadRequest);
  if (facts_.login != Status::Ok) return failed(facts_.login);
  struct RandomTag;
  SecretBytes<RandomTag, hsm::SLOT_BYTES> random;
  auto done = token_.run(line, std::nullopt, [&](const Session& session, const TokenKey&) -> Outcome<void> {
    const CK_RV rv = session.module->C_GenerateRandom(session.handle, random.exposeData(), ask.bytes);
    if (rv != CKR_OK) return failed(rv);
    return {};
  });
  if (!done) return refuse(done.error());
  // Sixteen bytes that are all the same come from no generator.
  const auto bytes = ByteSpan(random.expose()).first(ask.bytes);
  if (ask.bytes >= 16 && std::ranges::all_of(bytes, [&](std::byte byte) { return byte == bytes[0]; }))
    return failed(Status::BadResult);
  std::ranges::copy(bytes, page_.slot(ask.slot).begin());
  return hsm::Answer(hsm::Done{});
}

// --- operators -------------------------------------------------------------------------------------------------------

Service::Result Service::answer(const hsm::Login& ask, Line&) {
  if (!ClientPage::isSlot(ask.slot)) return failed(Status::BadRequest);
  struct PinTag;
  const auto pin = page_.take<SecretBytes<PinTag, hsm::MAX_PIN_BYTES>>(ask.slot);
  if (ask.pinBytes == 0 || ask.pinBytes > hsm::MAX_PIN_BYTES) return failed(Status::BadRequest);
  const std::lock_guard lock(single_);
  if (facts_.login == Status::Ok || ending_) return hsm::Answer(hsm::Done{});
  pin_.give(ByteSpan(pin.expose()).first(ask.pinBytes));
  auto done = token_.open(ask.force ? LoginMode::Forced : LoginMode::Operator);
  if (!done) {
    // Not tried at all: it must not be taken for one of its source's, to be tried at the next start.
    if (pin_.state == PinState::Untried) pin_.forget(PinState::Missing);
    return refuse(done.error());
  }
  ending_ = true;  // its keys are found and proved from the start, in a process of its own
  return hsm::Answer(hsm::Done{});
}

Service::Result Service::answer(const hsm::Logout&, Line&) {
  const std::lock_guard lock(single_);
  token_.logOut();
  ending_ = true;
  return hsm::Answer(hsm::Done{});
}

Outcome<void> Service::checkNew(KeyKind kind, const hsm::KeyId& id, const hsm::KeyLabel& label) {
  if (!facts_.operatorMode || kind == KeyKind::Other) return failed(Status::Unsupported);
  if (facts_.login != Status::Ok) return failed(facts_.login);
  if (id.length == 0 || label.length == 0) return failed(Status::BadRequest);
  if (token_.keys().size() >= hsm::MAX_KEYS) return failed(Status::Unsupported);
  for (const TokenKey& key : token_.keys()) {
    if (key.info.id == id || key.info.label == label) return failed(Status::KeyExists);
  }
  return {};
}

Service::Result Service::makeKey(Line& line, const hsm::KeyId& id, const hsm::KeyLabel& label, const Maker& make) {
  const std::string text = label.text();
  std::optional<TokenKey> made;
  auto done = token_.run(line, std::nullopt, [&](const Session& session, const TokenKey&) -> Outcome<void> {
    const auto pair = make(session, {.stays = true, .id = id.span(), .label = text});
    if (!pair) return refuse(pair.error());
    auto key = readKey(session, pair->secret, pair->open);
    auto proved = key ? proveNew(session, *key) : Outcome<void>(failed(Status::BadResult));
    if (!proved) {
      // What can't be used isn't left behind.
      destroy(session, *pair);
      return proved;
    }
    made = std::move(*key);
    return {};
  });
  if (!done) return refuse(done.error());
  return hsm::Answer(token_.add(std::move(*made)).info);
}

Service::Result Service::answer(const hsm::Generate& ask, Line& line) {
  const std::lock_guard lock(single_);
  if (auto fine = checkNew(ask.kind, ask.id, ask.label); !fine) return refuse(fine.error());
  switch (ask.kind) {
    case KeyKind::X25519: {
      const SpellingRow* row = provedRow(board_, "generate");
      if (row == nullptr) return failed(Status::Unsupported);
      return makeKey(line, ask.id, ask.label,
                     [&](const Session& session, const NewKey& key) { return generateX25519(session, *row, key); });
    }
    case KeyKind::Ed25519:
      return makeKey(line, ask.id, ask.label, [](const Session& session, const NewKey& key) {
        auto pair = generateEd25519(session, ed25519Spellings()[0].parameters, key);
        return pair ? std::move(pair) : generateEd25519(session, ed25519Spellings()[1].parameters, key);
      });
    case KeyKind::Aes: return makeKey(line, ask.id, ask.label, generateAes);
    case KeyKind::Rsa:
      return makeKey(line, ask.id, ask.label,
                     [](const Session& session, const NewKey& key) { return generateRsa(session, 3072, key); });
    case KeyKind::Other: break;
  }
  return failed(Status::Unsupported);
}

Service::Result Service::answer(const hsm::Import& ask, Line& line) {
  if (!ClientPage::isSlot(ask.slot)) return failed(Status::BadRequest);
  const auto secret = page_.take<Secret32>(ask.slot);
  const std::lock_guard lock(single_);
  if (auto fine = checkNew(ask.kind, ask.id, ask.label); !fine) return refuse(fine.error());
  switch (ask.kind) {
    case KeyKind::X25519: {
      const SpellingRow* row = provedRow(board_, "import");
      if (row == nullptr) return failed(Status::Unsupported);
      return makeKey(line, ask.id, ask.label, [&](const Session& session, const NewKey& key) {
        return importX25519(session, *row, key, secret.expose());
      });
    }
    case KeyKind::Ed25519:
      return makeKey(line, ask.id, ask.label, [&](const Session& session, const NewKey& key) {
        auto pair = importEd25519(session, ed25519Spellings()[0].parameters, key, secret.expose());
        return pair ? std::move(pair) : importEd25519(session, ed25519Spellings()[1].parameters, key, secret.expose());
      });
    case KeyKind::Aes:
      return makeKey(line, ask.id, ask.label, [&](const Session& session, const NewKey& key) {
        return importAes(session, key, secret.expose());
      });
    case KeyKind::Rsa:
    case KeyKind::Other: break;
  }
  return failed(Status::Unsupported);
}

}  // namespace sallyport::hsmd
