#include "cli/hsm_session.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "cli/hsm_words.h"
#include "cli/passphrase_prompt.h"
#include "cli/terminal.h"
#include "common/log.h"

namespace sallyport::cli {
namespace {

using hsm::Status;
using vaultd::Problem;
using vaultd::SecretText;

// Operators try what a module can do, and a token may take its time to make a key.
constexpr uint64_t ANSWER_MS = 120'000;
// Each step of a start has its own limit, which its keeper keeps: this is for all of them.
constexpr uint64_t START_MS = 600'000;
// The keeper kills a worker at once, but the kernel may hold one in a device's driver.
constexpr uint64_t END_MS = 2000;
constexpr size_t NEW_ID_BYTES = 16;

Problem refusedBy(const std::string& token, const hsm::Reply& reply) {
  return refusalOf(token, reply.status, reply.ckr == 0 ? "" : hsm::ckrName(reply.ckr));
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
        return refuse(Problem{"`--pin-fd` is the number of an open descriptor, not `" + word + "`",
                              "as in `--pin-fd 3 3< FILE`"});
      return readSecretFrom(fd);
    }
    return askSecret("PIN of token `" + token + "`", "give it with --pin-file FILE or --pin-fd N");
  }();
  constexpr const char* WAYS = "its first line is the PIN; else it is asked for at the terminal";
  if (!text) return refuse(Problem{text.error().message, text.error().hint.empty() ? WAYS : text.error().hint});
  if (text->empty() || text->size() > hsm::MAX_PIN_BYTES)
    return refuse(Problem{"a PIN has 1 to " + std::to_string(hsm::MAX_PIN_BYTES) + " bytes", WAYS});
  return text;
}

HsmSession::HsmSession(EventLoop& loop, hsmlink::KeeperEnds ends, const TokenConfig& config)
    : loop_(loop), token_(config.name), stepMs_(std::max(hsm::LEAST_STEP_MS, uint64_t{3} * config.deadlineMs)) {
  link_.emplace(loop, std::move(ends), static_cast<hsmlink::HsmLink::Events&>(*this));
}

HsmSession::OrProblem<std::unique_ptr<HsmSession>> HsmSession::open(const Arguments& arguments, const KeyFolder& folder,
                                                                    const std::string& token, bool asOperator) {
  const auto config = findToken(folder, token);
  if (!config) return refuse(config.error());
  auto ends = hsmlink::startKeeper(hsmlink::startOf(**config, folder.configFile, asOperator));
  if (!ends)
    return refuse(Problem{"token " + token + ": " + ends.error(), "`sallyport check` tells more of the installation"});
  auto loop = std::make_unique<EventLoop>();
  std::unique_ptr<HsmSession> session(new HsmSession(*loop, std::move(*ends), **config));
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
  if (const auto* hung = std::get_if<hsm::TrialHung>(&control))
    warn("token " + token_ + ": the module doesn't come back from a trial: " + sanitized(hung->what.text()) +
         ", ended after " + std::to_string(hung->afterMs / 1000) + " s; the others go on");
  if (const auto* layer = std::get_if<hsm::WorkerLayer>(&control)) layers_.push_back(sanitized(layer->layer.text()));
}

Result<void, Problem> HsmSession::waitForWorker(uint32_t before) {
  const uint64_t until = loop_.nowMs() + START_MS;
  const auto isUp = [&] { return up_ && up_->epoch != before; };
  while (!isUp() && !died_ && !ended_ && loop_.nowMs() < until) loop_.turn(100);
  if (isUp()) return {};
  if (died_) return refuse(refusalOf(token_, died_->status, died_->detail.text()));
  if (ended_) return refuse(Problem{"token " + token_ + ": hsmd has ended", "the lines above tell why"});
  return refuse(unansweredBy(token_, hsmlink::Failure::Late, START_MS));
}

void HsmSession::waitForEnd() {
  const uint64_t until = loop_.nowMs() + END_MS;
  while (!died_ && !ended_ && loop_.nowMs() < until) loop_.turn(100);
}

Result<void, Problem> HsmSession::logIn(const Arguments& arguments) {
  if (up_->login == Status::Ok) return {};
  const Problem why = refusalOf(token_, up_->login, up_->detail.text());
  if (!wantsOperator(up_->login)) return refuse(why);
  const bool force = arguments.has("--force");
  if (up_->login == Status::PinFinalTryRefused && !force) return refuse(why);
  const bool given = arguments.has("--pin-file") || arguments.has("--pin-fd");
  if (!given && !hasTerminal())
    return refuse(Problem{why.message + "; there is no terminal to ask for a PIN", why.hint});
  if (up_->login != Status::NotLoggedIn || up_->detail.length > 0) warn(why.message);
  const auto pin = askPin(arguments, token_);
  if (!pin) return refuse(pin.error());
  const uint32_t locked = up_->epoch;
  const auto done =
      exchange(hsm::Login{0, static_cast<uint16_t>(pin->size()), force}, asBytes(pin->expose()), nullptr, stepMs_);
  if (done && done->status != Status::Ok) return refuse(refusedBy(token_, *done));
  // Who has taken a PIN ends, and the next one finds and proves the keys: its end may be seen before its answer.
  if (!done && done.error() != hsmlink::Failure::WorkerGone) {
    if (done.error() == hsmlink::Failure::Late) waitForEnd();
    auto problem = unansweredBy(token_, done.error(), stepMs_);
    if (done.error() == hsmlink::Failure::Late) problem.message += " to C_Login";
    return refuse(std::move(problem));
  }
  if (auto came = waitForWorker(locked); !came) return came;
  if (up_->login != Status::Ok) return refuse(refusalOf(token_, up_->login, up_->detail.text()));
  return {};
}

hsmlink::Outcome HsmSession::exchange(hsm::Ask ask, ByteSpan in, SlotCopy* out, uint64_t deadlineMs) {
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
  link_->send(ask, slot, deadlineMs, [&](const hsmlink::Outcome& outcome) {
    if (slot && out != nullptr && outcome) std::ranges::copy(link_->page().slot(*slot), out->exposeMutable().begin());
    answer = outcome;
  });
  while (!answer) loop_.turn(100);
  return std::move(*answer);
}

HsmSession::OrProblem<hsm::Reply> HsmSession::answerTo(hsm::Ask ask, ByteSpan in, SlotCopy* out) {
  auto reply = exchange(std::move(ask), in, out, ANSWER_MS);
  // Its end tells more than that no answer came.
  if (!reply && reply.error() == hsmlink::Failure::WorkerGone && died_)
    return refuse(refusalOf(token_, died_->status, died_->detail.text()));
  if (!reply && reply.error() == hsmlink::Failure::Late) waitForEnd();
  if (!reply) return refuse(unansweredBy(token_, reply.error(), ANSWER_MS));
  return std::move(*reply);
}

HsmSession::OrProblem<hsm::Reply> HsmSession::send(hsm::Ask ask, ByteSpan in, SlotCopy* out) {
  auto reply = answerTo(std::move(ask), in, out);
  if (reply && reply->status != Status::Ok) return refuse(refusedBy(token_, *reply));
  return reply;
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

HsmSession::OrProblem<std::vector<hsm::ProbeReply>> HsmSession::trials() {
  std::vector<hsm::ProbeReply> found;
  for (uint16_t index = 0, count = 1; index < count; ++index) {
    const auto line = ask<hsm::ProbeReply>(hsm::Probe{index});
    if (!line) return refuse(line.error());
    count = line->count;
    found.push_back(*line);
  }
  return found;
}

Result<vaultd::TokenKey, Problem> usableKey(const hsm::KeyInfo& info, vaultd::KeyKind kind) {
  const bool x25519 = kind == vaultd::KeyKind::X25519;
  if (info.kind != (x25519 ? hsm::KeyKind::X25519 : hsm::KeyKind::Ed25519))
    return refuse(Problem{"the token made a key of another kind", "don't use this module"});
  if (x25519 && info.proof != Status::Ok) {
    return refuse(
        Problem{"the token made the key, but it gave no right answer: " + std::string(hsm::describe(info.proof)),
                "use the token to seal keys of files instead: `sallyport hsm seal`"});
  }
  const auto id = info.id.span();
  if (id.empty() || id.size() > vaultd::MAX_TOKEN_ID_BYTES)
    return refuse(Problem{"the token gave the key no id that a file can keep", "don't use this module"});
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
  const auto info = makeOrTake(session, generate);
  if (!info) return refuse(info.error());
  return usableKey(*info, kind);
}

Result<hsm::KeyInfo, Problem> makeOrTake(HsmSession& session, const hsm::Ask& ask, ByteSpan in) {
  const auto* generate = std::get_if<hsm::Generate>(&ask);
  const hsm::KeyKind kind = generate != nullptr ? generate->kind : std::get<hsm::Import>(ask).kind;
  const auto reply = session.answerTo(ask, in);
  if (!reply) return refuse(reply.error());
  if (reply->status == Status::Ok) return std::get<hsm::KeyInfo>(reply->answer);
  if (reply->status != Status::Unsupported) return refuse(refusedBy(session.token(), *reply));
  const auto trials = session.trials();
  if (!trials) return refuse(refusedBy(session.token(), *reply));
  return refuse(cannotMake(session.token(), kind, generate != nullptr ? "generate" : "import", *trials));
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
    return refuse(Problem{"token " + slot.token + " doesn't have the key that wraps what opens `" + header.name + "`",
                          "another slot may open it: `sallyport key slot list " + header.name + "`"});
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
