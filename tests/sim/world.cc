#include "tests/sim/world.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "tests/sim/expectation.h"

namespace sallyport::sim {

using wire::DropReason;

namespace {

constexpr uint64_t WALL_BASE_SECONDS = 1800000000;  // 2027

std::array<int, 2> socketPair() {
  std::array<int, 2> ends;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()) != 0)
    throw std::system_error(errno, std::generic_category(), "socketpair");
  return ends;
}

netd::MessageCipher& theCipher() {
  static netd::MessageCipher cipher;
  return cipher;
}

}  // namespace

World::World(uint64_t seed, Canary canary, Tally& tally)
    : dice_(seed * 2),
      canary_(canary),
      tally_(tally),
      wallSeconds_(WALL_BASE_SECONDS),
      cipher_(theCipher()),
      budget_(stats_),
      scratch_(std::make_unique<std::array<std::byte, netd::SCRATCH_BYTES>>()) {
  sodiumDice = Dice(seed * 2 + 1);
  auto arena = vaultd::SecretArena::create(16 * 1024, vaultd::SecretArena::Want::LockedMemory);
  CHECK(arena.has_value());
  arena_ = std::move(*arena);
  cache_ = std::make_unique<vaultd::SharedKeyCache>(*arena_, 8);
  populate();
}

void World::after(uint64_t ms, std::function<void()> work) {
  events_.push({nowMs_ + ms, eventCount_++, std::move(work)});
}

uint64_t World::run() {
  while (!events_.empty()) {
    Event event = events_.top();
    events_.pop();
    nowMs_ = event.atMs;
    wallSeconds_ = WALL_BASE_SECONDS + nowMs_ / 1000;
    event.work();
  }
  checkAtEnd();
  return fingerprint_;
}

void World::note(uint64_t what) { fingerprint_ = (fingerprint_ ^ what ^ (nowMs_ << 16)) * 0x100000001b3; }

void World::ask(Host& host, Wire& wire, std::function<void(std::optional<DropReason>)> answer) {
  after(dice_.below(20), [this, &host, &wire, answer = std::move(answer), epoch = host.epoch] {
    const bool lost = host.epoch != epoch;
    if (lost || !host.vault.ready()) wire.excuse(VAULT);
    answer(lost ? std::optional(DropReason::VaultUnavailable) : std::nullopt);
  });
}

// --- what the network may take from elsewhere ------------------------------------------------------------------------

const Frame* World::anyFrame(const Wire& except) {
  const Wire& wire = wires_[dice_.below(wires_.size())];
  const auto& frames = dice_.oneIn(2) ? wire.toServer.frames() : wire.toClient.frames();
  return &wire == &except || frames.empty() ? nullptr : &frames[dice_.below(frames.size())];
}

Wire* World::anyOpenWire(const Wire& except) {
  const size_t first = dice_.below(ends_.size());
  for (size_t i = 0; i < ends_.size(); ++i) {
    End& end = *ends_[(first + i) % ends_.size()];
    if (!end.over() && &end.wire() != &except && (end.wire().excuses() & ATTACKED) == 0) return &end.wire();
  }
  return nullptr;
}

End* World::anyOpenEnd() {
  for (auto& end : ends_) {
    if (!end->over()) return end.get();
  }
  return nullptr;
}

Wire* World::anyRecording() {
  Wire& wire = wires_[dice_.below(wires_.size())];
  return wire.toServer.frames().size() >= 2 && !wire.replayed ? &wire : nullptr;
}

// --- what must hold --------------------------------------------------------------------------------------------------

void World::onAccepted(ServerEnd& end) {
  auto& halfOpen = end.server().halfOpen;
  if (halfOpen.size() >= end.server().halfOpenLimit) {
    ServerEnd* oldest = halfOpen.front();
    oldest->wire().excuse(CROWDED);
    oldest->fail(DropReason::HalfOpenLimit);
  }
  halfOpen.push_back(&end);
  require(halfOpen.size() <= end.server().halfOpenLimit, Invariant::HalfOpen,
          "more half-open connections than allowed");
}

void World::onHello(ClientEnd& end) {
  require(clientsByKey_.emplace(end.clientEphemeral(), &end).second, Invariant::Nonce, "an ephemeral key came twice");
}

void World::onCookie(const netd::Cookie& cookie) {
  std::array<std::byte, wire::LONG_NONCE_BYTES> nonce;
  std::copy_n(cookie.begin(), nonce.size(), nonce.begin());
  require(minuteNonces_.insert(nonce).second, Invariant::Nonce, "a cookie's nonce came twice");
}

void World::onServerEstablished(ServerEnd& end, const netd::Established& established) {
  note(end.wire().id);
  const std::string where = end.wire().describe();
  require(!end.wire().replayed, Invariant::Replay, "a recording became a session: " + where);
  const auto found = clientsByKey_.find(end.clientEphemeral());
  require(found != clientsByKey_.end(), Invariant::Replay, "a session with a client that there isn't: " + where);
  ClientEnd& client = *found->second;
  require(client.vouched() && &client.client().server == &end.server(), Invariant::Replay,
          "a session with a client that never asked for it: " + where);
  require(client.client().vault.publicKey() == established.peerKey, Invariant::Replay,
          "a session under another's name: " + where);
  require(end.server().vault.allows(established.peerKey), Invariant::Replay, "a session of a revoked peer: " + where);
  require(serversByKey_.emplace(end.clientEphemeral(), &end).second, Invariant::Replay,
          "two sessions of one client connection: " + where);
}

void World::onClientEstablished(ClientEnd& end) {
  note(end.wire().id + 1000);
  require(end.client().server.vault.answered(end.clientEphemeral()), Invariant::Replay,
          "a client took a Cookie that its server never made: " + end.wire().describe());
}

void World::onSealed(End& end, const Frame& frame) {
  const auto key = std::pair(end.clientEphemeral(), end.isServer());
  const uint64_t counter =
      wire::readBe64(ByteSpan(frame).subspan<wire::FRAME_HEADER_BYTES + wire::MAGIC_BYTES, wire::COUNTER_BYTES>());
  auto [next, first] = nextCounter_.emplace(key, wire::FIRST_MESSAGE_COUNTER);
  require(counter == next->second++, Invariant::Nonce, "a message's counter isn't the next one");
}

End* World::partnerOf(End& end) {
  if (end.isServer()) {
    const auto found = clientsByKey_.find(end.clientEphemeral());
    return found == clientsByKey_.end() ? nullptr : found->second;
  }
  const auto found = serversByKey_.find(end.clientEphemeral());
  return found == serversByKey_.end() ? nullptr : found->second;
}

void World::onDelivered(End& end, ByteSpan text) {
  ++tally_.messages;
  const End* partner = partnerOf(end);
  const std::string where = end.wire().describe();
  require(partner != nullptr, Invariant::Delivery, "a message from nobody: " + where);
  const size_t index = end.receivedCount();
  if (text.empty()) {
    require(partner->sentEnd() && index == partner->sent().size(), Invariant::Delivery, "an end too early: " + where);
    return;
  }
  require(index < partner->sent().size() && std::ranges::equal(text, partner->sent()[index]), Invariant::Delivery,
          "message " + std::to_string(index) + " is not the one that was sent: " + where);
}

void World::onComplete(End& end) {
  note(end.wire().id + 2000);
  const End* partner = partnerOf(end);
  require(partner != nullptr && partner->sentEnd() && partner->sent().size() == end.receivedCount(),
          Invariant::Delivery, "a cut connection looks finished: " + end.wire().describe());
}

void World::onFault(End& end, DropReason reason) {
  note(end.wire().id * 64 + static_cast<uint64_t>(reason));
  ++tally_.faults[static_cast<size_t>(reason)];
  require(mayFail(end.wire(), end.isServer(), reason), Invariant::OneFault,
          "the " + std::string(end.isServer() ? "server" : "client") + " of " + end.wire().describe() +
              " failed with " + std::string(wire::name(reason)));
}

void World::checkAtEnd() {
  for (const auto& end : ends_) {
    const std::string where = end->wire().describe();
    require(end->over(), Invariant::OneFault, "an end without a reason to its end: " + where);
    require(end->complete() != end->fault().has_value(), Invariant::OneFault, "neither complete nor failed: " + where);
    if (end->wire().excuses() == 0) require(end->complete(), Invariant::Completion, where);
  }
  for (const Wire& wire : wires_) {
    ++tally_.connections;
    if (wire.excuses() == 0) ++tally_.untouched;
    if (wire.replayed) ++tally_.replays;
  }
  for (const Server& server : servers_)
    require(server.halfOpen.empty(), Invariant::HalfOpen, "a half-open connection that never ended");
  require(stats_.get(netd::Counter::BufferBytes) == 0, Invariant::Memory, "bytes are held when all is over");
}

// --- how ends are made -----------------------------------------------------------------------------------------------

ServerEnd& World::makeServerEnd(Wire& wire, Server& server) {
  const auto ends = socketPair();
  auto end = std::make_unique<ServerEnd>(*this, wire, ends[0], server);
  ServerEnd& result = *end;
  wire.toServer.connect(&result, ends[1]);
  ends_.push_back(std::move(end));
  return result;
}

ClientEnd& World::makeClientEnd(Wire& wire, Client& client) {
  const auto ends = socketPair();
  auto end = std::make_unique<ClientEnd>(*this, wire, ends[0], client);
  ClientEnd& result = *end;
  wire.toClient.connect(&result, ends[1]);
  ends_.push_back(std::move(end));
  return result;
}

void World::connectPair(Client& client, Plan plan) {
  Wire& wire = wires_.emplace_back(*this, wires_.size(), plan);
  ClientEnd& end = makeClientEnd(wire, client);
  makeServerEnd(wire, client.server);
  end.start();
}

}  // namespace sallyport::sim
