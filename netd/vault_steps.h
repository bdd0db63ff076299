// vault_steps.h - the steps that the vault is asked for in lists: how a question is written and an answer read. Part
// of: netd-worker, and private to VaultClient (speaks proto/vault.capnp). A field of another length than it has to have
// is a refusal.
#pragma once

#include <cstring>
#include <string>

#include "common/capnp_bytes.h"
#include "netd/vault_client.h"
#include "netd/vault_refusal.h"

namespace sallyport::netd {

template <size_t N>
bool copyExactly(wire::Block<N>& to, capnp::Data::Reader from) {
  if (from.size() != N) return false;
  std::memcpy(to.data(), from.begin(), N);
  return true;
}

// A method of Net that takes a list of questions: how a call of it begins, and how its list is made.
template <auto Begin, auto InitItems>
struct BatchCall {
  static auto begin(proto::Net::Client& net) { return (net.*Begin)(nullptr); }
  template <typename Request>
  static auto items(Request& request, uint count) {
    return (request.*InitItems)(count);
  }
};

struct CookieStep
    : BatchCall<&proto::Net::Client::sealCookiesRequest, &proto::Net::SealCookiesParams::Builder::initHellos> {
  using Request = SealCookieRequest;
  using Answer = SealedCookie;
  static void write(proto::Hello::Builder to, const std::string& entry, const Request& request) {
    to.setEntry(entry);
    to.setClientEphemeral(toData(request.clientEphemeral.span()));
    to.setBox(toData(request.box));
    to.setServerEphemeral(toData(request.serverEphemeral.span()));
    to.setCookie(toData(request.cookie));
  }
  static Result<Answer, wire::DropReason> read(proto::CookieOutcome::Reader outcome) {
    if (!outcome.isSealed()) return refuse(dropReasonOf(outcome.getRefused()));
    auto sealed = outcome.getSealed();
    auto nonce = LongNonceBytes::tryFrom(toBytes(sealed.getNonce()));
    Answer answer;
    if (!nonce || !copyExactly(answer.packet.box, sealed.getBox())) return refuse(wire::DropReason::VaultRefused);
    answer.packet.nonce = *nonce;
    return answer;
  }
};

struct VerifyStep
    : BatchCall<&proto::Net::Client::verifyVouchesRequest, &proto::Net::VerifyVouchesParams::Builder::initVouches> {
  using Request = VerifyVouchRequest;
  using Answer = VerifiedVouch;
  static void write(proto::Vouch::Builder to, const std::string& entry, const Request& request) {
    to.setEntry(entry);
    to.setClient(toData(request.client.span()));
    to.setNonce(toData(request.nonce.span()));
    to.setBox(toData(request.box));
    to.setClientEphemeral(toData(request.clientEphemeral.span()));
  }
  static Result<Answer, wire::DropReason> read(proto::VouchOutcome::Reader outcome) {
    if (outcome.isPeer()) return Answer{std::string(outcome.getPeer())};
    const wire::DropReason reason = dropReasonOf(outcome.getRefused());
    return refuse(reason == wire::DropReason::BadBox ? wire::DropReason::BadVouch : reason);
  }
};

struct MakeStep
    : BatchCall<&proto::Net::Client::makeVouchesRequest, &proto::Net::MakeVouchesParams::Builder::initRequests> {
  using Request = MakeVouchRequest;
  using Answer = MadeVouch;
  static void write(proto::VouchRequest::Builder to, const std::string& entry, const Request& request) {
    to.setEntry(entry);
    to.setClientEphemeral(toData(request.clientEphemeral.span()));
  }
  static Result<Answer, wire::DropReason> read(proto::MadeVouchOutcome::Reader outcome) {
    if (!outcome.isMade()) return refuse(dropReasonOf(outcome.getRefused()));
    auto made = outcome.getMade();
    auto client = PublicKey::tryFrom(toBytes(made.getClient()));
    auto nonce = LongNonceBytes::tryFrom(toBytes(made.getNonce()));
    Answer answer;
    if (!client || !nonce || !copyExactly(answer.box, made.getBox())) return refuse(wire::DropReason::VaultRefused);
    answer.client = *client;
    answer.nonce = *nonce;
    return answer;
  }
};

inline void writePeerEntry(proto::PeerEntry::Builder to, const std::string& entry, bool listen) {
  to.setName(entry);
  to.setListen(listen);
}

inline wire::PeerParty partyOf(proto::PeerParty party) {
  return party == proto::PeerParty::A ? wire::PeerParty::A : wire::PeerParty::B;
}

template <typename Outcome>
Result<PeerSecrets, wire::DropReason> readSecrets(Outcome outcome) {
  const auto send = toBytes(outcome.getSendSecret());
  const auto receive = toBytes(outcome.getReceiveSecret());
  if (send.size() != wire::PEER_SECRET_BYTES || receive.size() != wire::PEER_SECRET_BYTES)
    return refuse(wire::DropReason::VaultRefused);
  return PeerSecrets{peer::SendSecret(send.template first<wire::PEER_SECRET_BYTES>()),
                     peer::ReceiveSecret(receive.template first<wire::PEER_SECRET_BYTES>()), outcome.getVersion()};
}
struct PeerSaltStep
    : BatchCall<&proto::Net::Client::peerSaltsRequest, &proto::Net::PeerSaltsParams::Builder::initEntries> {
  using Request = PeerSaltRequest;
  using Answer = PeerSaltDrawn;
  static void write(proto::PeerEntry::Builder to, const std::string& entry, const Request& request) {
    writePeerEntry(to, entry, request.listen);
  }
  static Result<Answer, wire::DropReason> read(proto::PeerSaltOutcome::Reader outcome) {
    if (!outcome.isDrawn()) return refuse(dropReasonOf(outcome.getRefused()));
    const auto drawn = outcome.getDrawn();
    const auto salt = wire::PeerSalt::tryFrom(toBytes(drawn.getSalt()));
    if (!salt) return refuse(wire::DropReason::VaultRefused);
    return Answer{partyOf(drawn.getParty()), *salt, drawn.getVersion()};
  }
};

struct PeerKeysStep
    : BatchCall<&proto::Net::Client::peerKeysRequest, &proto::Net::PeerKeysParams::Builder::initRequests> {
  using Request = PeerKeysRequest;
  using Answer = PeerSecrets;
  static void write(proto::PeerKeysRequest::Builder to, const std::string& entry, const Request& request) {
    writePeerEntry(to.initEntry(), entry, request.listen);
    to.setOwnSalt(toData(request.ownSalt.span()));
    to.setPeerSalt(toData(request.peerSalt.span()));
  }
  static Result<Answer, wire::DropReason> read(proto::PeerKeysOutcome::Reader outcome) {
    if (!outcome.isDerived()) return refuse(dropReasonOf(outcome.getRefused()));
    return readSecrets(outcome.getDerived());
  }
};

struct PeerAcceptStep
    : BatchCall<&proto::Net::Client::peerAcceptRequest, &proto::Net::PeerAcceptParams::Builder::initRequests> {
  using Request = PeerAcceptRequest;
  using Answer = PeerAccepted;
  static void write(proto::PeerAcceptRequest::Builder to, const std::string& entry, const Request& request) {
    writePeerEntry(to.initEntry(), entry, true);
    to.setPeerSalt(toData(request.peerSalt.span()));
  }
  static Result<Answer, wire::DropReason> read(proto::PeerAcceptOutcome::Reader outcome) {
    if (!outcome.isAccepted()) return refuse(dropReasonOf(outcome.getRefused()));
    const auto accepted = outcome.getAccepted();
    const auto salt = wire::PeerSalt::tryFrom(toBytes(accepted.getOwnSalt()));
    auto secrets = readSecrets(accepted);
    if (!salt || !secrets) return refuse(wire::DropReason::VaultRefused);
    Answer answer{partyOf(accepted.getParty()), *salt, std::move(*secrets), {}};
    for (const auto each : accepted.getOthers()) {
      auto other = readSecrets(each);
      if (!other) return refuse(wire::DropReason::VaultRefused);
      answer.others.push_back(std::move(*other));
    }
    return answer;
  }
};

}  // namespace sallyport::netd
