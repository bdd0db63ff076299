// cmd_hsm.cc - sallyport hsm probe|init-key|import|seal|status|unlock: keys in tokens, and files that tokens open. Part
// of: cli. docs/hsm.md. Each but `status` and `unlock` runs an hsmd of its own (hsm_session.h), which loads the module.
// What must never happen here: a module loaded in this process, a secret in an argument or left in the page.
#include <sodium.h>

#include <algorithm>
#include <filesystem>

#include "cli/commands.h"
#include "cli/daemon_client.h"
#include "cli/hsm_session.h"
#include "cli/hsm_words.h"
#include "cli/passphrase_prompt.h"
#include "cli/status_view.h"
#include "cli/terminal.h"
#include "common/log.h"

namespace sallyport::cli {
namespace {

using vaultd::KeyKind;
using vaultd::Problem;
using vaultd::SealKind;

constexpr std::string_view KEK_LABEL = "sallyport-kek";

std::optional<KeyKind> kindIn(const Arguments& arguments) {
  if (!arguments.has("--kind")) return KeyKind::X25519;
  const auto kind = vaultd::keyKindOf(arguments.get("--kind"));
  if (!kind) failUsage("`--kind` is x25519 or ed25519, not `" + arguments.get("--kind") + "`", "sallyport hsm --help");
  return kind;
}

// What a new key in a token needs before the token is asked: a key there can't be made undone from here.
struct NewTokenKey {
  std::string name;
  std::string token;
  KeyKind kind;
  KeyFolder folder;
  NewSeal seal;
};
std::optional<NewTokenKey> prepare(const Arguments& arguments) {
  NewTokenKey made{arguments.words[0], arguments.get("--token"), KeyKind::X25519, {}, {}};
  if (checkNewName(made.name) != EXIT_DONE) return std::nullopt;
  if (made.token.empty()) {
    failUsage("--token names the [token.NAME] to keep it in", "sallyport hsm --help");
    return std::nullopt;
  }
  const auto kind = kindIn(arguments);
  auto folder = kind ? keyFolder(arguments) : std::nullopt;
  if (!folder) return std::nullopt;
  made.kind = *kind;
  made.folder = std::move(*folder);
  std::error_code failure;
  const auto path = vaultd::keyPath(made.folder.path, made.name);
  if (std::filesystem::exists(path, failure)) {
    fail(path.string() + ": exists already", "choose another name, or `sallyport key rotate " + made.name + "`");
    return std::nullopt;
  }
  auto seal = sealOfNewFile(arguments, made.name, made.folder);
  if (!seal) {
    failProblem(seal.error());
    return std::nullopt;
  }
  made.seal = std::move(*seal);
  return made;
}

int store(const Arguments& arguments, const NewTokenKey& made, const vaultd::TokenKey& key) {
  vaultd::KeyOptions options;
  options.backupAllowed = arguments.has("--allow-backup");
  const auto stored =
      vaultd::storeTokenKey(made.folder.path, made.name, made.kind, made.token, key, made.seal.sealing, options);
  if (!stored) {
    warn("token " + made.token + " keeps the new key with id " + toHex(key.id) + ": nothing uses it");
    return failProblem(stored.error());
  }
  return announceKey(*stored, made.folder, "made");
}

// --- sealing ---

struct Kek {
  hsm::KeyInfo key;
  vaultd::TokenCipher cipher;
};

std::optional<Kek> kekOf(const hsm::KeyInfo& info) {
  if (info.kind == hsm::KeyKind::Aes && info.gcm) return Kek{info, vaultd::TokenCipher::AesGcm};
  if (info.kind != hsm::KeyKind::Rsa) return std::nullopt;
  if (info.oaepSha256) return Kek{info, vaultd::TokenCipher::OaepSha256};
  if (info.oaepSha1) return Kek{info, vaultd::TokenCipher::OaepSha1};
  return std::nullopt;
}

// Ours of before, the better cipher first; else a new one, as the token can.
Result<Kek, Problem> findOrMakeKek(HsmSession& session, const std::string& token) {
  const auto keys = session.keys();
  if (!keys) return refuse(keys.error());
  std::optional<Kek> best;
  for (const auto& info : *keys) {
    const auto kek = info.label.text() == KEK_LABEL ? kekOf(info) : std::nullopt;
    if (kek && (!best || kek->cipher < best->cipher)) best = kek;
  }
  if (best) return *best;
  std::string refusals;
  for (const auto kind : {hsm::KeyKind::Aes, hsm::KeyKind::Rsa}) {
    std::array<std::byte, 16> id;
    fillRandom(id);
    hsm::Generate generate;
    generate.kind = kind;
    generate.id = *hsm::KeyId::of(id);
    generate.label = hsm::KeyLabel::cut(KEK_LABEL);
    const auto reply = session.answerTo(generate);
    if (!reply) return refuse(reply.error());
    const bool made = reply->status == hsm::Status::Ok;
    const auto kek = made ? kekOf(std::get<hsm::KeyInfo>(reply->answer)) : std::nullopt;
    if (kek) return *kek;
    refusals += std::string(refusals.empty() ? "" : ", ") + (kind == hsm::KeyKind::Aes ? "AES-GCM: " : "RSA-OAEP: ");
    refusals += made              ? "its new key can't wrap by it"
                : reply->ckr != 0 ? hsm::ckrName(reply->ckr)
                                  : std::string(hsm::describe(reply->status));
  }
  return refuse(Problem{"token " + token + " can't wrap a key: " + refusals,
                        "`sallyport hsm probe " + token + "` shows what it can do"});
}

struct WrappedByToken {
  vaultd::TokenWrap wrap;
  vaultd::SecretText secret;
};

// A random secret, wrapped by the token, and proved to come back.
Result<WrappedByToken, Problem> wrapByToken(HsmSession& session, const std::string& token, const std::string& name) {
  const auto kek = findOrMakeKek(session, token);
  if (!kek) return refuse(kek.error());
  const auto secret = vaultd::TokenSecret::random();
  hsm::Wrap wrap;
  wrap.key = kek->key.index;
  wrap.algorithm = *hsm::wrapAlgorithmOf(vaultd::describe(kek->cipher));
  wrap.bound = vaultd::tokenBound(name);
  const auto wrapped = session.ask<hsm::WrapReply>(wrap, secret.expose());
  if (!wrapped) return refuse(wrapped.error());
  hsm::Unwrap unwrap;
  unwrap.key = wrap.key;
  unwrap.algorithm = wrap.algorithm;
  unwrap.bound = wrap.bound;
  unwrap.blob = wrapped->blob;
  HsmSession::SlotCopy back;
  if (auto done = session.ask<hsm::Done>(unwrap, {}, &back); !done) return refuse(done.error());
  if (!equalsConstantTime(back.expose().first(vaultd::TokenSecret::SIZE), secret.expose()))
    return refuse(Problem{"token " + token + ": what it unwraps isn't what it has wrapped", "don't seal with it"});
  const auto id = kek->key.id.span();
  const auto blob = wrapped->blob.span();
  if (id.empty() || id.size() > vaultd::MAX_TOKEN_ID_BYTES || blob.empty() ||
      blob.size() > vaultd::MAX_TOKEN_BLOB_BYTES)
    return refuse(Problem{"token " + token + ": its id or blob is of a size that a key file doesn't take",
                          "don't seal with this module"});
  WrappedByToken made{{kek->cipher, {id.begin(), id.end()}, {blob.begin(), blob.end()}}, {}};
  CHECK(made.secret.append({reinterpret_cast<const char*>(secret.exposeData()), vaultd::TokenSecret::SIZE}));
  return made;
}

// --- probing ---

std::string latencyText(uint32_t microseconds) {
  if (microseconds == 0) return "-";
  if (microseconds < 10'000) return std::to_string(microseconds) + " us";
  return std::to_string(microseconds / 1000) + " ms";
}

struct Found {
  bool derive = false;
  bool seal = false;
};

std::string advice(const Found& found) {
  if (found.derive) return "derive: keys live in the token. `sallyport hsm init-key NAME --token …`";
  if (found.seal) return "seal: the token opens the files of keys. `sallyport hsm seal NAME --token …`";
  return "none: it neither derives by X25519 nor wraps by AES-GCM or RSA-OAEP";
}

// --- a running vault ---

int failVault(const std::string& why) { return fail("the vault " + why, "`sallyport status` tells how it is"); }

struct TokenState {
  std::string state;
  std::string why;
};
// As the running vault has it; none: it has no token of this name.
Result<std::optional<TokenState>, std::string> stateOf(EventLoop& loop, DaemonClient& client,
                                                       const std::string& token) {
  auto answer = answerOf(loop, client.as<proto::Admin>().statusRequest().send());
  if (!answer) return refuse(answer.error());
  for (const auto each : answer->getStatus().getTokens()) {
    if (token == each.getName().cStr())
      return std::optional(TokenState{sanitized(each.getState().cStr()), sanitized(each.getWhy().cStr())});
  }
  return std::optional<TokenState>();
}

int failState(const std::string& token, const TokenState& is, const std::string& hint = {}) {
  return fail("token " + token + (is.state == "no pin" ? " has no PIN" : " is " + is.state) +
                  (is.why.empty() ? "" : ": " + is.why),
              hint.empty() ? nextStep(token, is.state) : hint);
}

// The module's process begins anew with its PIN, and proves its keys: who waits for them wants to know when.
int waitUntilUp(EventLoop& loop, DaemonClient& client, const std::string& token) {
  constexpr int TRIES = 150;
  constexpr int PAUSE_MS = 100;
  TokenState last;
  for (int i = 0; i < TRIES; ++i) {
    const auto is = stateOf(loop, client, token);
    if (!is) return failVault(is.error());
    if (*is && (*is)->state == "up") return EXIT_DONE;
    if (*is) last = **is;
    loop.await(loop.timer().afterDelay(PAUSE_MS * kj::MILLISECONDS));
  }
  return fail("token " + token + " isn't up yet, but " + last.state + ": " + last.why, nextStep(token, last.state));
}

std::unique_ptr<DaemonClient> connectVault(EventLoop& loop, const KeyFolder& folder) {
  if (folder.adminSocket.empty()) {
    fail("no configuration names the vault's admin socket", "name one with -c FILE");
    return nullptr;
  }
  auto client = DaemonClient::connect(loop, folder.adminSocket);
  if (client) return std::move(*client);
  fail("the vault " + client.error().message, client.error().hint);
  return nullptr;
}

}  // namespace

int hsmProbe(const Arguments& arguments) {
  const auto& token = arguments.words[0];
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  auto session = HsmSession::open(arguments, *folder, token, true);
  if (!session) return failProblem(session.error());
  const auto trials = (*session)->trials();
  if (!trials) return failProblem(trials.error());
  const auto& hello = (*session)->hello();
  putLine("token  " + sanitized(hello.label.text()) + ", " + sanitized(hello.manufacturer.text()) + " " +
          sanitized(hello.model.text()) + ", serial " + sanitized(hello.serial.text()));
  putLine("module " + sanitized(hello.module.text()));
  Table table({"WHAT", "RESULT", "WHERE AND WHY", "ONE TAKES"});
  Found found;
  for (const hsm::ProbeReply& line : *trials) {
    const auto what = line.what.text();
    const bool works = line.trial == hsm::Trial::Works;
    found.derive |= works && what.starts_with("x25519");
    found.seal |= works && what.starts_with("seal");
    table.add({what, std::string(hsm::name(line.trial)), whyOf(line), latencyText(line.microseconds)});
  }
  if (!table.empty()) put("\n" + table.render());
  putLine("\nmode   " + advice(found));
  return finishOutput();
}

int hsmInitKey(const Arguments& arguments) {
  const auto made = prepare(arguments);
  if (!made) return EXIT_FAILED;
  auto session = HsmSession::open(arguments, made->folder, made->token, true);
  if (!session) return failProblem(session.error());
  const auto key = makeTokenKey(**session, made->kind, made->name);
  if (!key) return failProblem(key.error());
  return store(arguments, *made, *key);
}

int hsmImport(const Arguments& arguments) {
  const auto made = prepare(arguments);
  if (!made) return EXIT_FAILED;
  if (arguments.get("--pin-fd") == "0")
    return fail("the secret comes from standard input, so the PIN can't", "--pin-fd 3 3< FILE, or --pin-file FILE");
  const auto text = readSecretFromInput("secret of `" + made->name + "` in base64 or hex");
  if (!text) return failProblem(text.error());
  const auto secret = vaultd::parseGivenSecret(text->expose());
  if (!secret) return failProblem(secret.error());
  const PublicKey expected = vaultd::publicKeyOf(*secret, made->kind);
  auto session = HsmSession::open(arguments, made->folder, made->token, true);
  if (!session) return failProblem(session.error());
  std::array<std::byte, 16> id;
  fillRandom(id);
  hsm::Import import;
  import.kind = made->kind == KeyKind::X25519 ? hsm::KeyKind::X25519 : hsm::KeyKind::Ed25519;
  import.id = *hsm::KeyId::of(id);
  import.label = hsm::KeyLabel::cut(made->name);
  const auto info = makeOrTake(**session, import, secret->expose());
  if (!info) return failProblem(info.error());
  const auto key = usableKey(*info, made->kind);
  if (!key) return failProblem(key.error());
  if (key->publicKey != expected)
    return fail("token " + made->token + " took the secret, but its public key is another one", "don't use this token");
  say("the secret is in token " + made->token + "; wipe where it came from");
  return store(arguments, *made, *key);
}

int hsmSeal(const Arguments& arguments) {
  const auto& name = arguments.words[0];
  const auto token = arguments.get("--token");
  if (token.empty()) return failUsage("--token names the [token.NAME] to seal it by", "sallyport hsm seal --help");
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  if (const auto sealed = vaultd::readKeyFile(folder->path, name)) {
    // A second one would open no more than the first, and nobody could tell them apart.
    for (const vaultd::Slot& slot : sealed->header.slots) {
      if (slot.kind != SealKind::Token || slot.token != token) continue;
      const std::string number = std::to_string(slot.number);
      return fail(
          "`" + name + "` is sealed by token " + token + " already, in slot " + number,
          "to seal it anew: `sallyport key slot remove " + name + " " + number + "` first, with another way in");
    }
  }
  // `--token` names the new slot here, not the one to open the file by.
  Arguments opening = arguments;
  opening.options.erase("--token");
  const auto changed = vaultd::changeKey(
      folder->path, name, unlocker(opening, *folder),
      [&](vaultd::EditedKey& key) -> Result<vaultd::Rewrite, Problem> {
        auto session = HsmSession::open(arguments, *folder, token, true);
        if (!session) return refuse(session.error());
        const auto made = wrapByToken(**session, token, name);
        if (!made) return refuse(made.error());
        vaultd::Sealing sealing;
        sealing.kind = SealKind::Token;
        sealing.secret = &made->secret;
        sealing.token = token;
        sealing.tokenWrap = made->wrap;
        return addSlot(key, sealing);
      },
      vaultd::unixNow());
  if (!changed) return failProblem(changed.error());
  say(vaultd::keyPath(folder->path, name).string() + " is now protected as " + vaultd::describeSlots(changed->header));
  if (changed->header.slots.size() == 1) {
    warn("nothing but token " + token + " opens it: if the token is lost, so is the key");
    say("`sallyport key slot add " + name + " recovery` makes a second way in");
  }
  return EXIT_DONE;
}

int hsmStatus(const Arguments& arguments) {
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  EventLoop loop;
  const auto client = connectVault(loop, *folder);
  if (!client) return EXIT_FAILED;
  auto answer = answerOf(loop, client->as<proto::Admin>().statusRequest().send());
  if (!answer) return failVault(answer.error());
  const auto status = answer->getStatus();
  if (status.getTokens().size() == 0) say("the vault was started without a token");
  put(tokensText(status));
  const int written = finishOutput();
  for (const auto token : status.getTokens()) {
    const TokenState is{sanitized(token.getState().cStr()), sanitized(token.getWhy().cStr())};
    if (is.state != "up") return failState(sanitized(token.getName().cStr()), is, sanitized(token.getHint().cStr()));
  }
  for (const auto token : status.getTokens()) {
    for (const auto key : token.getKeys()) {
      if (key.getProblem().size() == 0) continue;
      return fail("key " + sanitized(key.getName().cStr()) + " can't be used: " + sanitized(key.getProblem().cStr()),
                  sanitized(key.getHint().cStr()));
    }
  }
  return written;
}

int hsmUnlock(const Arguments& arguments) {
  const auto& token = arguments.words[0];
  const auto folder = keyFolder(arguments);
  if (!folder) return EXIT_FAILED;
  EventLoop loop;
  const auto client = connectVault(loop, *folder);
  if (!client) return EXIT_FAILED;
  const auto is = stateOf(loop, *client, token);
  if (!is) return failVault(is.error());
  if (!*is)
    return fail("vaultd was not started with a token `" + token + "`",
                "what [token.NAME] says is taken when vaultd starts: `sallyport hsm status`");
  // With its PIN it looks at no other one: nobody is to believe that it was right.
  if ((*is)->state == "up" || (*is)->state == "proving") {
    say("token " + token + " is unlocked already; no PIN was tried");
    return waitUntilUp(loop, *client, token);
  }
  if ((*is)->state == "ended") return failState(token, **is);
  if ((*is)->state == "resting") {
    say("token " + token + " is unlocked already; no PIN was tried");
    return failState(token, **is);
  }
  const auto pin = askPin(arguments, token);
  if (!pin) return failProblem(pin.error());
  auto request = client->as<proto::Admin>().unlockTokenRequest();
  request.setToken(token.c_str());
  request.setForce(arguments.has("--force"));
  auto into = request.initPin(static_cast<unsigned>(pin->size()));
  std::ranges::copy(pin->expose(), into.begin());
  constexpr uint32_t SLOW_TOKEN_MS = 60'000;
  auto answer = answerOf(loop, request.send(), SLOW_TOKEN_MS);
  if (!answer) return failVault(answer.error());
  const auto outcome = answer->getOutcome();
  if (!outcome.isDone())
    return fail(sanitized(outcome.getRefused().getProblem().cStr()),
                "`sallyport hsm status` tells how it is; a PIN that was refused isn't tried again by itself");
  say(sanitized(outcome.getDone().cStr()));
  return waitUntilUp(loop, *client, token);
}

}  // namespace sallyport::cli
