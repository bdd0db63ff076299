// vault_app.cc - see vault_app.h.
#include "cli/vault_app.h"

#include <unistd.h>

#include <algorithm>

#include "cli/load_config.h"
#include "cli/terminal.h"
#include "common/capnp_bytes.h"

namespace sallyport::cli {
namespace {

// Every program's box has a nonce that begins so (docs/protocol.md §8).
constexpr std::string_view NONCE_PREFIX = "SallyBox";
constexpr int MAX_ATTEMPTS = 3;

std::string_view verbName(proto::Verb verb) {
  switch (verb) {
    case proto::Verb::BOX: return "box";
    case proto::Verb::OPEN: return "open";
    case proto::Verb::SIGN: return "sign";
    case proto::Verb::FRESH_NONCE: return "fresh_nonce";
  }
  return "that";
}

// A refusal in words; what only a broken program of ours could cause has none of its own.
Problem describeRefusal(proto::Refusal refusal, const std::string& key, proto::Verb verb) {
  const std::string what(verbName(verb));
  const std::string ticked = "`" + key + "`";
  const std::string check = "sallyport policy check " + what + " " + key + (verb == proto::Verb::SIGN ? "" : " PEER") +
                            " --user " + std::to_string(::geteuid());
  switch (refusal) {
    case proto::Refusal::UNKNOWN_KEY:
      return {"the vault has no key " + ticked,
              "a new key, or one that nothing used before, takes a restart of vaultd"};
    case proto::Refusal::NOT_PERMITTED:
      return {"no [[grant]] gives you `" + what + "` with the key " + ticked + ", or there is no such key", check};
    case proto::Refusal::PEER_NOT_ALLOWED: return {"no [[grant]] gives you `" + what + "` with this peer", check};
    case proto::Refusal::TOO_LONG:
      return {"the [[grant]] allows shorter texts only", "the keys of a boxed file take " +
                                                             std::to_string(file::BOX_TEXT_BYTES) +
                                                             " bytes, a signature less: `max_bytes`"};
    case proto::Refusal::EXPIRED: return {"the [[grant]] was revoked just now", check};
    case proto::Refusal::RATE_LIMITED:
      return {"the vault refuses: too many a second for your [[grant]]", "try again later"};
    case proto::Refusal::LOCKED: return {"the key " + ticked + " is locked", "sallyport unlock " + key};
    case proto::Refusal::WRONG_KIND:
      return {"the key " + ticked + " is of another kind",
              "boxes take an x25519 key, signatures an ed25519 key: `sallyport key new NAME --kind ed25519`"};
    case proto::Refusal::WRONG_VERSION:
      return {"no version of the key " + ticked + " may do that now", "sallyport key show " + key + " --versions"};
    case proto::Refusal::LOW_ORDER_KEY: return {"a recipient's key gives no secrecy", "ask them for it again"};
    case proto::Refusal::BAD_BOX: return {"the box doesn't open: it was changed, or it isn't from whom it names", ""};
    case proto::Refusal::BREAKER_OPEN:
      return {"too many boxes didn't open: the vault refuses to open any for you for a while", "sallyport status"};
    case proto::Refusal::NONCE_UNAVAILABLE:
      return {"the vault can make no fresh nonce", "`sallyport status` tells why: a full disk, most often"};
    case proto::Refusal::NOT_RECORDED:
      return {"the vault can't write its audit log, and does nothing unrecorded", "sallyport status"};
    case proto::Refusal::HSM_UNAVAILABLE:
      return {"the token that " + ticked + " lives in is away or doesn't answer", "sallyport hsm status"};
    default: break;
  }
  return {"the vault refuses `" + what + "` (" + std::to_string(static_cast<int>(refusal)) + ")", "sallyport status"};
}

// The key may live in a token, which takes its time: [token.NAME] deadline_ms, and the wait before it.
constexpr uint32_t USE_TIMEOUT_MS = 30'000;

Problem noAnswer(const std::string& why) { return {"the vault " + why, ""}; }

std::optional<std::filesystem::path> appSocket(const Arguments& arguments, const Config& config) {
  if (!arguments.has("--socket")) return config.vault.socket;
  const auto name = arguments.get("--socket");
  const auto found = std::ranges::find(config.vaultSockets, name, &VaultSocket::name);
  if (found != config.vaultSockets.end()) return found->path;
  if (name == MAIN_SOCKET) return config.vault.socket;
  fail("no [[vault_socket]] `" + name + "` in " + config.file.string(), "without --socket: [vault] socket");
  return std::nullopt;
}

}  // namespace

std::optional<DataCommand> dataCommand(const Arguments& arguments) {
  auto config = loadConfigOrFail(arguments);
  if (!config) return std::nullopt;
  const auto socket = appSocket(arguments, *config);
  if (!socket) return std::nullopt;
  auto input = InputFile::open(arguments.words.size() > 1 ? arguments.words[1] : "-");
  if (!input) return fail(input.error()), std::nullopt;
  return DataCommand{std::move(*config), *socket, arguments.words[0], std::move(*input)};
}

Result<VaultApp, Problem> VaultApp::connect(EventLoop& loop, const std::filesystem::path& socket) {
  auto client = DaemonClient::connect(loop, socket);
  if (!client)
    return refuse(Problem{"the vault " + client.error().message,
                          client.error().hint + (client.error().hint.empty() ? "" : "; --socket NAME another socket")});
  return VaultApp(loop, std::move(*client));
}

Result<VaultKeyFacts, Problem> VaultApp::facts(const std::string& key) {
  auto request = client_->as<proto::App>().publicKeyRequest();
  request.setKey(key.c_str());
  const auto answer = answerOf(*loop_, request.send());
  if (!answer) return refuse(noAnswer(answer.error()));
  const auto outcome = answer->getOutcome();
  if (!outcome.isPublicKey()) return refuse(describeRefusal(outcome.getRefused(), key, proto::Verb::BOX));
  VaultKeyFacts facts;
  if (toBytes(outcome.getPublicKey()).size() != facts.active.size()) return refuse(noAnswer("gave no key"));
  std::ranges::copy(toBytes(outcome.getPublicKey()), facts.active.begin());
  facts.version = outcome.getVersion();
  facts.opening.push_back(facts.active);
  for (const auto each : outcome.getOpening()) {
    if (toBytes(each).size() == facts.active.size())
      std::ranges::copy(toBytes(each), facts.opening.emplace_back().begin());
  }
  return facts;
}

Result<proto::Key::Client, Problem> VaultApp::granted(const std::string& key, proto::Verb verb) {
  auto request = client_->as<proto::App>().keyRequest();
  request.setName(key.c_str());
  request.initVerbs(1).set(0, verb);
  auto answer = answerOf(*loop_, request.send());
  if (!answer) return refuse(noAnswer(answer.error()));
  const auto outcome = answer->getOutcome();
  if (!outcome.isGranted()) return refuse(describeRefusal(outcome.getRefused(), key, verb));
  return outcome.getGranted().getKey();
}

Result<void, Problem> VaultApp::boxHead(const std::string& key, file::BoxHead& head, const file::ContentKey& content,
                                        const std::vector<file::TagKey>& tags) {
  CHECK(tags.size() == head.recipients.size());
  auto capability = granted(key, proto::Verb::BOX);
  if (!capability) return refuse(capability.error());
  // The text names the sender's key, which another may have taken the place of by the time at which it is boxed.
  for (int attempt = 0; attempt < MAX_ATTEMPTS; ++attempt) {
    const auto known = facts(key);
    if (!known) return refuse(known.error());
    head.sender = PublicKey(known->active);
    head.senderVersion = known->version;
    auto request = capability->boxRequest();
    auto items = request.initItems(static_cast<unsigned>(head.recipients.size()));
    for (unsigned i = 0; i < items.size(); ++i) {
      items[i].initPeer().setKey(toData(head.recipients[i].key.span()));
      const auto text = file::boxText(head, content, tags[i]);
      items[i].setText(toData(text.expose()));
    }
    const auto answer = answerOf(*loop_, request.send(), USE_TIMEOUT_MS);
    if (!answer) return refuse(noAnswer(answer.error()));
    const auto outcomes = answer->getOutcomes();
    if (outcomes.size() != items.size()) return refuse(noAnswer("gave another number of boxes"));
    bool sameVersion = true;
    for (unsigned i = 0; i < outcomes.size(); ++i) {
      if (!outcomes[i].isBoxed()) return refuse(describeRefusal(outcomes[i].getRefused(), key, proto::Verb::BOX));
      const auto boxed = outcomes[i].getBoxed();
      const auto box = file::FileBox::tryFrom(toBytes(boxed.getBox()));
      const auto nonce = toBytes(boxed.getNonce());
      if (!box || nonce.size() != NONCE_PREFIX.size() + LongNonceBytes::SIZE) return refuse(noAnswer("gave no box"));
      head.recipients[i].box = *box;
      head.recipients[i].nonce = LongNonceBytes(nonce.subspan(NONCE_PREFIX.size()));
      sameVersion = sameVersion && boxed.getVersion() == known->version;
    }
    if (!sameVersion) continue;
    head.mac = file::headMac(head, content);
    return {};
  }
  return refuse(
      Problem{"the key `" + key + "` changes its version all the time", "sallyport key show " + key + " --versions"});
}

Result<file::FileKeys, Problem> VaultApp::openHead(const std::string& key, const file::BoxHead& head, size_t index,
                                                   const std::string& name) {
  auto capability = granted(key, proto::Verb::OPEN);
  if (!capability) return refuse(capability.error());
  const auto& recipient = head.recipients[index];
  auto request = capability->openRequest();
  auto item = request.initItems(1)[0];
  item.initPeer().setKey(toData(head.sender.span()));
  std::array<std::byte, NONCE_PREFIX.size() + LongNonceBytes::SIZE> nonce;
  std::ranges::copy(recipient.nonce.span(), std::ranges::copy(asBytes(NONCE_PREFIX), nonce.begin()).out);
  item.setNonce(toData(nonce));
  item.setBox(toData(recipient.box.span()));
  const auto answer = answerOf(*loop_, request.send(), USE_TIMEOUT_MS);
  if (!answer) return refuse(noAnswer(answer.error()));
  const auto outcomes = answer->getOutcomes();
  if (outcomes.size() != 1) return refuse(noAnswer("gave no text"));
  if (!outcomes[0].isOpened()) return refuse(describeRefusal(outcomes[0].getRefused(), key, proto::Verb::OPEN));
  auto keys = file::fileKeys(head, toBytes(outcomes[0].getOpened().getText()));
  if (!keys) return refuse(Problem{name + ": " + std::string(file::describe(keys.error())), ""});
  return std::move(*keys);
}

Result<VaultApp::Signed, Problem> VaultApp::sign(const std::string& key, ByteSpan text) {
  auto capability = granted(key, proto::Verb::SIGN);
  if (!capability) return refuse(capability.error());
  auto request = capability->signRequest();
  request.initMessages(1).set(0, toData(text));
  const auto answer = answerOf(*loop_, request.send(), USE_TIMEOUT_MS);
  if (!answer) return refuse(noAnswer(answer.error()));
  const auto outcomes = answer->getOutcomes();
  if (outcomes.size() != 1) return refuse(noAnswer("gave no signature"));
  if (!outcomes[0].isSigned()) return refuse(describeRefusal(outcomes[0].getRefused(), key, proto::Verb::SIGN));
  const auto made = outcomes[0].getSigned();
  const auto signature = file::Signature::tryFrom(toBytes(made.getSignature()));
  if (!signature) return refuse(noAnswer("gave no signature"));
  return Signed{*signature, made.getVersion()};
}

}  // namespace sallyport::cli
