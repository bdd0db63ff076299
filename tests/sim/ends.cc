#include "tests/sim/ends.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "common/match.h"
#include "tests/sim/world.h"

namespace sallyport::sim {

using netd::ClientHandshake;
using netd::Established;
using netd::ReadState;
using netd::ServerHandshake;
using wire::DropReason;

// --- both ------------------------------------------------------------------------------------------------------------

End::End(World& world, Wire& wire, Direction& out, int fd) : world_(world), wire_(wire), out_(out), fd_(fd) {}

End::~End() {
  reader_.clear(world_.budget());
  if (fd_ >= 0) ::close(fd_);
}

void End::armDeadline() {
  world_.after(wire::DEFAULT_HANDSHAKE_TIMEOUT_MS, [this] {
    if (over_ || established()) return;
    fail(awaitsVault() ? DropReason::VaultUnavailable : DropReason::HandshakeTimeout);
  });
}

void End::onReadable() {
  if (over_) return;
  if (session_)
    readFrames();
  else if (!awaitsVault())
    readPacket();
}

// As netd/incoming.cc does it.
void End::readPacket() {
  while (!over_ && !session_) {
    const size_t expected = expectedPacketBytes();
    if (expected == 0 || awaitsVault()) return;
    const ssize_t got = recv(fd_, packet_.data() + have_, wire::FRAME_HEADER_BYTES + expected - have_, MSG_DONTWAIT);
    if (got < 0) return;
    if (got == 0) return fail(DropReason::ClosedInHandshake);
    have_ += static_cast<size_t>(got);
    if (have_ < wire::FRAME_HEADER_BYTES) continue;
    if (wire::readFrameLength(std::span(packet_).first<wire::FRAME_HEADER_BYTES>()) != expected)
      return fail(DropReason::BadLength);
    if (have_ < wire::FRAME_HEADER_BYTES + expected) continue;
    have_ = 0;
    onPacket(ByteSpan(packet_).subspan(wire::FRAME_HEADER_BYTES, expected));
  }
}

void End::readFrames() {
  while (!over_) {
    const size_t frames = world_.dice().between(1, netd::FRAMES_PER_READ);
    auto outcome = reader_.read(fd_, world_.scratch(), frames, true, world_.budget());
    if (auto fault = netd::forEachPacket(outcome.bytes, [this](MutableByteSpan packet) { return openPacket(packet); }))
      return fail(*fault);
    finishIfDone();
    if (over_) return;
    switch (outcome.state) {
      case ReadState::More: continue;
      case ReadState::Drained: return;
      case ReadState::Eof:
        if (gotEnd_) return;
        if (world_.canary() == Canary::LostEnd) {
          gotEnd_ = true;
          return finishIfDone();
        }
        return fail(DropReason::Truncated);
      case ReadState::EofInside: return fail(DropReason::Truncated);
      case ReadState::Failed: return fail(DropReason::TransportError);
    }
  }
}

std::optional<DropReason> End::openPacket(MutableByteSpan packet) {
  if (world_.canary() == Canary::AnyCounter && packet.size() >= wire::MESSAGE_OVERHEAD_BYTES) {
    const uint64_t counter = wire::readBe64(packet.subspan<wire::MAGIC_BYTES, wire::COUNTER_BYTES>());
    const uint64_t next = wire::FIRST_MESSAGE_COUNTER + received_ + (gotEnd_ ? 1 : 0);
    if (counter > next && counter < next + 100) session_->skipToCounters(session_->sealed() + 2, counter);
  }
  auto text = session_->open(world_.cipher(), packet);
  if (!text) return text.error();
  if (gotEnd_) return DropReason::AfterEnd;
  world_.onDelivered(*this, *text);
  if (text->empty())
    gotEnd_ = true;
  else
    ++received_;
  return std::nullopt;
}

void End::begin(netd::Session session) {
  session_.emplace(std::move(session));
  toSend_ = world_.dice().below(8);
  world_.after(world_.dice().below(50), [this] { sendNext(); });
}

void End::sendNext() {
  if (over_ || sentEnd_) return;
  Dice& dice = world_.dice();
  const bool last = sent_.size() == toSend_;
  size_t length = 0;
  if (!last) {
    length = dice.between(1, 200);
    if (dice.oneIn(6)) length = dice.between(900, 6000);
    if (dice.oneIn(24)) length = wire::MAX_MESSAGE_BYTES;
  }
  Frame frame(netd::MESSAGE_TEXT_OFFSET);
  const Frame text = dice.bytes(length);
  frame.insert(frame.end(), text.begin(), text.end());
  if (auto fault = session_->seal(world_.cipher(), frame)) return fail(*fault);
  world_.onSealed(*this, frame);
  if (last)
    sentEnd_ = true;
  else
    sent_.push_back(text);
  out_.send(std::move(frame));
  finishIfDone();
  if (!sentEnd_) world_.after(dice.below(30), [this] { sendNext(); });
}

void End::finishIfDone() {
  if (over_ || !sentEnd_ || !gotEnd_) return;
  complete_ = true;
  world_.onComplete(*this);
  out_.close(false);
  end();
}

void End::fail(DropReason reason) {
  if (over_) return;
  fault_ = reason;
  world_.onFault(*this, reason);
  // A reset takes what was on its way with it, or not.
  out_.close(world_.dice().oneIn(2));
  end();
  if (world_.canary() == Canary::WrongVictim) {
    if (End* neighbour = world_.anyOpenEnd()) neighbour->fail(reason);
  }
}

void End::end() {
  over_ = true;
  leave();
  reader_.clear(world_.budget());
  ::close(fd_);
  fd_ = -1;
}

// --- server ----------------------------------------------------------------------------------------------------------

ServerEnd::ServerEnd(World& world, Wire& wire, int fd, Server& server)
    : End(world, wire, wire.toClient, fd), server_(server) {
  world_.onAccepted(*this);
  armDeadline();
}

void ServerEnd::leave() { std::erase(server_.halfOpen, this); }

void ServerEnd::onPacket(ByteSpan packet) {
  if (expectedPacketBytes() == wire::INITIATE_BYTES) {
    checkForgotten();
    if (world_.canary() == Canary::UnboundCookie) return onInitiateUnbound(packet);
  }
  drawnSecrets.clear();
  auto step = state_.machine.onPacket(packet, server_.keys);
  if (std::holds_alternative<netd::SealCookieRequest>(step)) {
    secrets_ = drawnSecrets;
    CHECK(!secrets_.empty());
    if (world_.canary() == Canary::KeptSecret) state_.kept = secrets_.front();
  }
  perform(std::move(step));
}

// Nothing that was drawn for this connection is in what it keeps.
void ServerEnd::checkForgotten() {
  for (const Drawn& secret : secrets_) {
    require(memmem(&state_, sizeof state_, secret.data(), secret.size()) == nullptr, Invariant::HalfOpen,
            "a half-open connection remembers its ephemeral secret");
  }
}

void ServerEnd::perform(ServerHandshake::Step step) {
  std::visit(Match{
                 [this](netd::Drop& drop) { fail(drop.reason); },
                 [this](netd::SealCookieRequest& request) {
                   clientEphemeral_ = request.clientEphemeral;
                   world_.onCookie(request.cookie);
                   world_.ask(server_, wire_, [this, request](std::optional<DropReason> lost) {
                     if (over_) return;
                     perform(state_.machine.onVault(lost ? Result<netd::SealedCookie, DropReason>(refuse(*lost))
                                                         : server_.vault.sealCookie(request)));
                   });
                 },
                 [this](wire::CookieFrame& frame) {
                   write(frame);
                   checkForgotten();
                   onReadable();
                 },
                 [this](netd::VerifyVouchRequest& request) {
                   world_.ask(server_, wire_, [this, request](std::optional<DropReason> lost) {
                     if (over_) return;
                     if (!server_.vault.allows(request.client)) wire_.excuse(REVOKED);
                     auto answer = lost ? Result<netd::VerifiedVouch, DropReason>(refuse(*lost))
                                        : server_.vault.verifyVouch(request);
                     perform(state_.machine.onVault(std::move(answer)));
                   });
                 },
                 [this](Established& established) { onEstablished(std::move(established)); },
             },
             step);
}

void ServerEnd::onEstablished(Established established) {
  peer_ = established.peerKey;
  world_.onServerEstablished(*this, established);
  leave();
  begin(std::move(established.session));
  onReadable();
}

// curve_tun 1.0 as it was: any cookie that opens is good.
void ServerEnd::onInitiateUnbound(ByteSpan packet) {
  const auto initiate = wire::parseInitiate(packet);
  if (!initiate) return fail(initiate.error());
  const auto cookie = server_.keys.open(initiate->cookie);
  if (!cookie) return fail(DropReason::ExpiredCookie);
  unbound_ = netd::agree(cookie->clientEphemeral, cookie->secret);
  std::array<std::byte, wire::INITIATE_BOX_BYTES - wire::BOX_TAG_BYTES> text;
  if (!unbound_ ||
      !netd::openBox(text, initiate->box, netd::ShortPrefix::ClientInitiate, wire::INITIATE_COUNTER, *unbound_)) {
    return fail(DropReason::BadBox);
  }
  clientEphemeral_ = cookie->clientEphemeral;
  const auto content = wire::parseInitiateContent(text);
  netd::VerifyVouchRequest request{content.client, content.vouchNonce, content.vouch, cookie->clientEphemeral};
  world_.ask(server_, wire_, [this, request](std::optional<DropReason> lost) {
    if (over_) return;
    if (lost) return fail(*lost);
    if (!server_.vault.allows(request.client)) wire_.excuse(REVOKED);
    auto answer = server_.vault.verifyVouch(request);
    if (!answer) return fail(answer.error());
    Established established{netd::Session(netd::Role::Server, *unbound_), request.client, answer->peer};
    unbound_.reset();
    onEstablished(std::move(established));
  });
}

// --- client ----------------------------------------------------------------------------------------------------------

ClientEnd::ClientEnd(World& world, Wire& wire, int fd, Client& client)
    : End(world, wire, wire.toServer, fd), client_(client), machine_(client.server.vault.publicKey()) {}

void ClientEnd::start() {
  armDeadline();
  perform(machine_.start());
}

void ClientEnd::onPacket(ByteSpan packet) { perform(machine_.onPacket(packet)); }

void ClientEnd::perform(ClientHandshake::Step step) {
  std::visit(Match{
                 [this](netd::Drop& drop) { fail(drop.reason); },
                 [this](wire::HelloFrame& frame) {
                   const auto hello = wire::parseHello(ByteSpan(frame).subspan(wire::FRAME_HEADER_BYTES));
                   CHECK(hello.has_value());
                   clientEphemeral_ = hello->clientEphemeral;
                   world_.onHello(*this);
                   write(frame);
                 },
                 [this](netd::MakeVouchRequest& request) {
                   asking_ = true;
                   world_.ask(client_, wire_, [this, request](std::optional<DropReason> lost) {
                     if (over_) return;
                     asking_ = false;
                     auto answer = lost ? Result<netd::MadeVouch, DropReason>(refuse(*lost))
                                        : client_.vault.makeVouch(client_.server.vault.publicKey(), request);
                     vouched_ = answer.has_value();
                     perform(machine_.onVault(answer));
                   });
                 },
                 [this](std::pair<wire::InitiateFrame, Established>& done) {
                   world_.onClientEstablished(*this);
                   write(done.first);
                   begin(std::move(done.second.session));
                   onReadable();
                 },
             },
             step);
}

}  // namespace sallyport::sim
