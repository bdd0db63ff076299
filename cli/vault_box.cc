#include "cli/vault_box.h"

#include <unistd.h>

#include "common/capnp_bytes.h"

namespace sallyport::cli {

using vaultd::Problem;

namespace {

std::string grantFor(const std::string& key, const std::string& peer) {
  return "add to both hosts' files, and reload: [[grant]] with name = \"pair\", users = [\"" +
         std::to_string(::geteuid()) + "\"], keys = [\"" + key + "\"], verbs = [\"box\", \"open\"], peers = [\"" +
         peer + "\"]";
}

}  // namespace

Problem VaultBox::refused(proto::Refusal refusal, std::string_view verb) const {
  switch (refusal) {
    case proto::Refusal::BAD_BOX:
      return {"`" + peer_ + "` didn't make this box for our key `" + keyName_ + "`, or it was changed",
              "are both public keys right, and is it the right peer?"};
    case proto::Refusal::NOT_PERMITTED:
    case proto::Refusal::PEER_NOT_ALLOWED:
    case proto::Refusal::TOO_LONG:
    case proto::Refusal::EXPIRED:
      return {"the vault doesn't let this user " + std::string(verb) + " with `" + keyName_ + "` and `" + peer_ + "`",
              grantFor(keyName_, peer_)};
    case proto::Refusal::LOCKED: return {"`" + keyName_ + "` is locked", "sallyport unlock " + keyName_};
    case proto::Refusal::WRONG_KIND: return {"`" + keyName_ + "` is no x25519 key", "use the key of the tunnels"};
    default: break;
  }
  return {"the vault refused to " + std::string(verb) + " with `" + keyName_ + "`, code " +
              std::to_string(static_cast<unsigned>(refusal)),
          "sallyport status"};
}

Result<VaultBox, Problem> VaultBox::open(EventLoop& loop, const std::filesystem::path& socket, std::string key,
                                         std::string peer, const PublicKey& peerKey) {
  VaultBox box(loop, std::move(key), std::move(peer), peerKey);
  auto client = DaemonClient::connect(loop, socket);
  if (!client) return refuse(Problem{"vaultd " + client.error().message, client.error().hint});
  box.client_ = std::move(*client);
  auto app = box.client_->as<proto::App>();
  auto own = app.publicKeyRequest();
  own.setKey(box.keyName_.c_str());
  auto ownAnswer = answerOf(loop, own.send());
  if (!ownAnswer) return refuse(Problem{"vaultd " + ownAnswer.error(), {}});
  const auto outcome = ownAnswer->getOutcome();
  const auto bytes = outcome.isPublicKey() ? PublicKey::tryFrom(toBytes(outcome.getPublicKey())) : std::nullopt;
  if (!bytes) {
    return refuse(
        outcome.isRefused() && outcome.getRefused() == proto::Refusal::UNKNOWN_KEY
            ? Problem{"the vault has no key `" + box.keyName_ + "`", "name it in an entry or a grant, and restart"}
            : box.refused(outcome.isRefused() ? outcome.getRefused() : proto::Refusal::WRONG_KIND, "box"));
  }
  box.ownKey_ = *bytes;
  auto request = app.keyRequest();
  request.setName(box.keyName_.c_str());
  auto verbs = request.initVerbs(2);
  verbs.set(0, proto::Verb::BOX);
  verbs.set(1, proto::Verb::OPEN);
  auto answer = answerOf(loop, request.send());
  if (!answer) return refuse(Problem{"vaultd " + answer.error(), {}});
  if (answer->getOutcome().isRefused()) return refuse(box.refused(answer->getOutcome().getRefused(), "box and open"));
  box.key_ = answer->getOutcome().getGranted().getKey();
  return box;
}

Result<SealedText, Problem> VaultBox::seal(std::string_view text) {
  auto request = key_.boxRequest();
  auto item = request.initItems(1)[0];
  item.initPeer().setName(peer_.c_str());
  item.setText(toData(asBytes(text)));
  auto answer = answerOf(*loop_, request.send());
  if (!answer) return refuse(Problem{"vaultd " + answer.error(), {}});
  const auto outcome = answer->getOutcomes()[0];
  if (outcome.isRefused()) return refuse(refused(outcome.getRefused(), "box"));
  SealedText sealed;
  sealed.from = ownKey_;
  sealed.to = peerKey_;
  const auto nonce = toBytes(outcome.getBoxed().getNonce());
  CHECK(nonce.size() == sealed.nonce.size());
  std::ranges::copy(nonce, sealed.nonce.begin());
  const auto box = toBytes(outcome.getBoxed().getBox());
  sealed.box.assign(box.begin(), box.end());
  return sealed;
}

Result<vaultd::SecretText, Problem> VaultBox::openFrom(const SealedText& sealed) {
  if (sealed.from != peerKey_) {
    return refuse(Problem{"it comes from another key than that of `" + peer_ + "`: " + toBase64(sealed.from.span()),
                          "name the peer that it comes from"});
  }
  if (sealed.to != ownKey_) {
    return refuse(Problem{"it is sealed to another key than our `" + keyName_ + "`: " + toBase64(sealed.to.span()),
                          "the other host has to seal it to " + toBase64(ownKey_.span())});
  }
  auto request = key_.openRequest();
  auto item = request.initItems(1)[0];
  item.initPeer().setName(peer_.c_str());
  item.setNonce(toData(sealed.nonce));
  item.setBox(toData(sealed.box));
  auto answer = answerOf(*loop_, request.send());
  if (!answer) return refuse(Problem{"vaultd " + answer.error(), {}});
  const auto outcome = answer->getOutcomes()[0];
  if (outcome.isRefused()) return refuse(refused(outcome.getRefused(), "open"));
  const auto text = outcome.getOpened().getText();
  vaultd::SecretText opened;
  if (!opened.append({reinterpret_cast<const char*>(text.begin()), text.size()}))
    return refuse(Problem{"what the peer sent is too long", {}});
  return opened;
}

}  // namespace sallyport::cli
