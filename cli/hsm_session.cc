#include "cli/hsm_session.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "cli/passphrase_prompt.h"
#include "cli/terminal.h"
#include "common/log.h"

namespace sallyport::cli {
namespace {

using hsm::Status;
using vaultd::Problem;
using vaultd::SecretText;

// Operators try what a module can do, and a token may take its time to make a key.
constexpr uint64_t START_MS = 120'000;
constexpr uint64_t ANSWER_MS = 120'000;
constexpr size_t NEW_ID_BYTES = 16;

std::string codeText(uint32_t ckr) {
  char code[24];
  std::snprintf(code, sizeof code, " (CKR 0x%x)", ckr);
  return ckr == 0 ? "" : code;
}

Problem refused(const std::string& token, Status status, uint32_t ckr) {
  std::string hint;
  if (status == Status::PinFinalTryRefused) hint = "--force tries it all the same: a wrong one locks the token";
  if (status == Status::NoModule) hint = "`module` in [token." + token + "] is the PKCS#11 module's absolute path";
  if (status == Status::NoToken || status == Status::AmbiguousToken)
    hint = "`uri` in [token." + token + "] must fit exactly one token";
  return {"token " + token + ": " + std::string(hsm::describe(status)) + codeText(ckr), hint};
}

Problem unanswered(const std::string& token, hsmlink::Failure failure) {
  return {"token " + token + ": " + std::string(hsmlink::describe(failure)), {}};
}

bool wantsOperator(Status login) {
  return login == Status::NotLoggedIn || login == Status::PinLowRefused || login == Status::PinFinalTryRefused ||
         login == Status::PinWrong;
}

}  // namespace

Result<const TokenConfig*, Problem> findToken(const KeyFolder& folder, const std::string& name) {
  const auto found = folder.tokens.find(name);
  if (found != folder.tokens.end()) return &found->second;
  if (folder.configFile.empty())
    return refuse(Problem{"no configuration names the token `" + name + "`", "name one with -c FILE"});
  return refuse(Problem{folder.configFile.string() + ": there is no [token." + name + "]",
                        "sallyport.toml(5) tells what such a section needs"});
}

Result<SecretText, Problem> askPin(const Arguments& arguments, const std::string& token) {
  auto text = [&]() -> Result<SecretText, Problem> {
    if (arguments.has("--pin-file")) return readPassphraseFile(arguments.get("--pin-file"));
    if (arguments.has("--pin-fd")) {
      const std::string word = arguments.get("--pin-fd");
      int fd = -1;
      const auto [end, fault] = std::from_chars(word.data(), word.data() + word.size(), fd);
      if (fault != std::errc() || end != word.data() + word.size() || fd < 0)
        return refuse(Problem{"`--pin-fd` is the number of an open descriptor, not `" + word + "`", {}});
      return readSecretFrom(fd);
    }
    return askSecret("PIN of token `" + token + "`", "give it with --pin-file FILE or --pin-fd N");
  }();
  if (!text) return text;
  if (text->empty() || text->size() > hsm::MAX_PIN_BYTES)
    return refuse(Problem{"a PIN has 1 to " + std::to_string(hsm::MAX_PIN_BYTES) + " bytes", {}});
  return text;
}

HsmSession::HsmSession(EventLoop& loop, hsmlink::KeeperEnds ends, std::string token)
    : loop_(loop), token_(std::move(token)) {
  link_.emplace(loop, std::move(ends), static_cast<hsmlink::HsmLink::Events&>(*this));
}

HsmSession::OrProblem<std::unique_ptr<HsmSession>> HsmSession::open(const Arguments& arguments, const KeyFolder& folder,
                                                                    const std::string& token, bool asOperator) {
  const auto config = findToken(folder, token);
  if (!config) return refuse(config.error());
  auto ends = hsmlink::startKeeper(hsmlink::startOf(**config, folder.configFile, asOperator));
  if (!ends) return refuse(Problem{"token " + token + ": " + ends.error(), {}});
  auto loop = std::make_unique<EventLoop>();
  std::unique_ptr<HsmSession> session(new HsmSession(*loop, std::move(*ends), token));
  session->ownLoop_ = std::move(loop);
  if (auto came = session->waitForWorker(0); !came) return refuse(came.error());
  if (auto in = session->logIn(arguments); !in) return refuse(in.error());
  auto hello = session->ask<hsm::HelloReply>(hsm::Hello{});
  if (!hello) return refuse(hello.error());
  session->hello_ = *hello;
  return session;
}

void HsmSession::onControl(const hsm::Control& control) {
  if (const auto* up = std::get_if<hsm::WorkerUp>(&control)) up_ = *up;
  if (const auto* died = std::get_if<hsm::WorkerDied>(&control)) {
    up_.reset();
    // Ok: it was to end, and another one follows.
    if (died->status != Status::Ok) died_ = *died;
  }
  if (const auto* layer = std::get_if<hsm::WorkerLayer>(&control)) layers_.push_back(sanitized(layer->layer.text()));
}

Result<void, Problem> HsmSession::waitForWorker(uint32_t before) {
  const uint64_t until = loop_.nowMs() + START_MS;
  const auto isUp = [&] { return up_ && up_->epoch != before; };
  while (!isUp() && !died_ && !ended_ && loop_.nowMs() < until) loop_.turn(100);
  if (isUp()) return {};
  if (died_ && died_->status != Status::Starting) return refuse(refused(token_, died_->status, 0));
  if (died_)
    return refuse(Problem{"token " + token_ + ": its module's process ended while it started",
                          "a module that crashes or exits: its own log may tell more"});
  if (ended_) return refuse(Problem{"token " + token_ + ": hsmd has ended", "the lines above tell why"});
  return refuse(Problem{"token " + token_ + ": its module wasn't ready in time", {}});
}

Result<void, Problem> HsmSession::logIn(const Arguments& arguments) {
  if (up_->login == Status::Ok) return {};
  if (!wantsOperator(up_->login)) return refuse(refused(token_, up_->login, 0));
  if (up_->login != Status::NotLoggedIn) warn("token " + token_ + ": " + std::string(hsm::describe(up_->login)));
  const bool force = arguments.has("--force");
  if (up_->login == Status::PinFinalTryRefused && !force) return refuse(refused(token_, up_->login, 0));
  const auto pin = askPin(arguments, token_);
  if (!pin) return refuse(pin.error());
  const uint32_t locked = up_->epoch;
  const auto done = exchange(hsm::Login{0, static_cast<uint16_t>(pin->size()), force}, asBytes(pin->expose()), nullptr);
  if (done && done->status != Status::Ok) return refuse(refused(token_, done->status, done->ckr));
  // Who has taken a PIN ends, and the next one finds and proves the keys: its end may be seen before its answer.
  if (!done && done.error() != hsmlink::Failure::WorkerGone) return refuse(unanswered(token_, done.error()));
  if (auto came = waitForWorker(locked); !came) return came;
  if (up_->login != Status::Ok) return refuse(refused(token_, up_->login, 0));
  return {};
}

hsmlink::Outcome HsmSession::exchange(hsm::Ask ask, ByteSpan in, SlotCopy* out) {
  std::optional<uint16_t> slot;
  if (!in.empty() || out != nullptr) {
    slot = link_->takeSlot();
    CHECK(slot.has_value() && in.size() <= hsm::SLOT_BYTES);
    std::visit(
        [&](auto& body) {
          if constexpr (requires { body.slot; }) body.slot = *slot;
        },
        ask);
    std::ranges::copy(in, link_->page().slot(*slot).begin());
  }
  std::optional<hsmlink::Outcome> answer;
  link_->send(ask, slot, ANSWER_MS, [&](const hsmlink::Outcome& outcome) {
    if (slot && out != nullptr && outcome) std::ranges::copy(link_->page().slot(*slot), out->exposeMutable().begin());
    answer = outcome;
  });
  while (!answer) loop_.turn(100);
  return std::move(*answer);
}

HsmSession::OrProblem<hsm::Reply> HsmSession::send(hsm::Ask ask, ByteSpan in, SlotCopy* out) {
  auto reply = exchange(std::move(ask), in, out);
  if (!reply) return refuse(unanswered(token_, reply.error()));
  if (reply->status != Status::Ok) return refuse(refused(token_, reply->status, reply->ckr));
  return std::move(*reply);
}

HsmSession::OrProblem<std::vector<hsm::KeyInfo>> HsmSession::keys() {
  std::vector<hsm::KeyInfo> found;
  const auto hello = ask<hsm::HelloReply>(hsm::Hello{});
  if (!hello) return refuse(hello.error());
  for (uint16_t index = 0; index < hello->keyCount && index < hsm::MAX_KEYS; ++index) {
    auto info = ask<hsm::KeyInfo>(hsm::List{index});
    if (!info) return refuse(info.error());
    found.push_back(*info);
  }
  return found;
}

Result<vaultd::TokenKey, Problem> usableKey(const hsm::KeyInfo& info, vaultd::KeyKind kind) {
  const bool x25519 = kind == vaultd::KeyKind::X25519;
  if (info.kind != (x25519 ? hsm::KeyKind::X25519 : hsm::KeyKind::Ed25519))
    return refuse(Problem{"the token made a key of another kind", {}});
  if (x25519 && info.proof != Status::Ok) {
    return refuse(
        Problem{"the token made the key, but it gave no right answer: " + std::string(hsm::describe(info.proof)),
                "use the token to seal keys of files instead: `sallyport hsm seal`"});
  }
  const auto id = info.id.span();
  if (id.empty() || id.size() > vaultd::MAX_TOKEN_ID_BYTES)
    return refuse(Problem{"the token gave the key no id that a file can keep", {}});
  if (info.extractable || !info.sensitive)
    warn("the token says that this key can be taken out of it again: extractable, or not sensitive");
  return vaultd::TokenKey{PublicKey(info.publicKey), {id.begin(), id.end()}, std::string(hsm::name(info.spelling))};
}

Result<vaultd::TokenKey, Problem> makeTokenKey(HsmSession& session, vaultd::KeyKind kind, const std::string& label) {
  std::array<std::byte, NEW_ID_BYTES> id;
  fillRandom(id);
  hsm::Generate generate;
  generate.kind = kind == vaultd::KeyKind::X25519 ? hsm::KeyKind::X25519 : hsm::KeyKind::Ed25519;
  generate.id = *hsm::KeyId::of(id);
  generate.label = hsm::KeyLabel::cut(label);
  const auto info = session.ask<hsm::KeyInfo>(generate);
  if (!info) return refuse(info.error());
  return usableKey(*info, kind);
}

namespace {

const hsm::KeyInfo* wrappingKey(const std::vector<hsm::KeyInfo>& keys, const vaultd::TokenWrap& wrap) {
  const auto kind = wrap.cipher == vaultd::TokenCipher::AesGcm ? hsm::KeyKind::Aes : hsm::KeyKind::Rsa;
  const auto found = std::ranges::find_if(keys, [&](const hsm::KeyInfo& info) {
    return info.kind == kind && std::ranges::equal(info.id.span(), wrap.keyId);
  });
  return found == keys.end() ? nullptr : &*found;
}

Result<vaultd::SlotSecret, Problem> unwrapSlot(const Arguments& arguments, const KeyFolder& folder,
                                               const vaultd::KeyHeader& header, const vaultd::Slot& slot) {
  auto session = HsmSession::open(arguments, folder, slot.token, false);
  if (!session) return refuse(session.error());
  const auto keys = (*session)->keys();
  if (!keys) return refuse(keys.error());
  const auto* key = wrappingKey(*keys, slot.tokenWrap);
  const auto blob = hsm::Blob::of(slot.tokenWrap.blob);
  if (key == nullptr || !blob)
    return refuse(
        Problem{"token " + slot.token + " doesn't have the key that wraps what opens `" + header.name + "`", {}});
  hsm::Unwrap unwrap;
  unwrap.key = key->index;
  unwrap.algorithm = *hsm::wrapAlgorithmOf(vaultd::describe(slot.tokenWrap.cipher));
  unwrap.bound = vaultd::tokenBound(header.name);
  unwrap.blob = *blob;
  HsmSession::SlotCopy secret;
  if (auto done = (*session)->ask<hsm::Done>(unwrap, {}, &secret); !done) return refuse(done.error());
  vaultd::SlotSecret result{vaultd::SealKind::Token, {}, {}};
  CHECK(result.text.append({reinterpret_cast<const char*>(secret.exposeData()), vaultd::TokenSecret::SIZE}));
  result.slot = slot.number;
  return result;
}

}  // namespace

Result<vaultd::SlotSecret, Problem> unwrapByToken(const Arguments& arguments, const KeyFolder& folder,
                                                  const vaultd::KeyHeader& header) {
  std::optional<Problem> last;
  for (const auto& slot : header.slots) {
    if (slot.kind != vaultd::SealKind::Token) continue;
    if (arguments.has("--token") && arguments.get("--token") != slot.token) continue;
    auto secret = unwrapSlot(arguments, folder, header, slot);
    if (secret) return secret;
    last = secret.error();
  }
  if (last) return refuse(std::move(*last));
  return refuse(Problem{"`" + header.name + "` has no slot of this token",
                        "`sallyport key slot list " + header.name + "` tells what opens it"});
}

}  // namespace sallyport::cli
