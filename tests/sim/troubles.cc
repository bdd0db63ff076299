// troubles.cc - who lives in a simulated world, and what happens to them. Part of: tests/sim.
#include "tests/sim/world.h"

namespace sallyport::sim {

using wire::DropReason;

namespace {
constexpr uint64_t GIVE_UP_MS = 9000;  // what an attacker leaves open is closed after this
constexpr uint64_t REPAIR_MS = 1500;
}  // namespace

void World::populate() {
  const size_t servers = dice_.between(1, 2);
  const size_t clients = dice_.between(2, 4);
  uint32_t id = 0;
  for (size_t i = 0; i < servers; ++i) {
    Server& server = servers_.emplace_back(*arena_, *cache_, id++, wallSeconds_, canary_);
    server.keys.rotate(netd::MinuteKey::random());
  }
  for (size_t i = 0; i < clients; ++i) {
    Server& server = servers_[dice_.below(servers)];
    Client& client = clients_.emplace_back(server, *arena_, *cache_, id++, wallSeconds_, canary_);
    server.vault.allow(client.vault.publicKey(), "client " + std::to_string(i));
  }
  // Most worlds are short and busy; some last for minutes, so that keys turn and recordings grow old.
  const uint64_t spanMs = dice_.oneIn(3) ? 240000 : 12000;
  const size_t connections = dice_.between(10, 24);
  for (size_t i = 0; i < connections; ++i) {
    Plan plan;
    if (dice_.oneIn(2)) {
      plan.deed = static_cast<Deed>(dice_.between(1, DEED_COUNT - 1));
      plan.toServer = dice_.oneIn(2);
      plan.frame = dice_.below(6);
    }
    Client& client = clients_[dice_.below(clients_.size())];
    after(dice_.below(spanMs), [this, &client, plan] {
      if (!client.server.vault.allows(client.vault.publicKey())) return;
      connectPair(client, plan);
    });
  }
  for (Server& server : servers_) {
    for (uint64_t at = wire::COOKIE_KEY_PERIOD_MS; at < spanMs + GIVE_UP_MS; at += wire::COOKIE_KEY_PERIOD_MS)
      after(at, [&server] { server.keys.rotate(netd::MinuteKey::random()); });
  }
  planTroubles(spanMs);
}

void World::planTroubles(uint64_t spanMs) {
  const auto times = [&](uint64_t least, uint64_t most, auto work) {
    const uint64_t count = dice_.between(least, most);
    for (uint64_t i = 0; i < count; ++i) after(dice_.below(spanMs), work);
  };
  times(2, 6, [this] { attackServer(); });
  times(0, 3, [this] { attackClient(); });
  times(0, 3, [this] { restartVault(anyHost()); });
  if (dice_.oneIn(4)) times(1, 2, [this] { rotateEarly(servers_[dice_.below(servers_.size())]); });
  if (dice_.oneIn(4)) times(1, 2, [this] { breakDisk(anyHost()); });
  if (dice_.oneIn(3)) times(1, 2, [this] { restoreDisk(anyHost()); });
  if (dice_.oneIn(3)) times(1, 1, [this] { revoke(clients_[dice_.below(clients_.size())]); });
  if (dice_.oneIn(3)) {
    for (Server& server : servers_) server.halfOpenLimit = dice_.between(2, 6);
    times(1, 3, [this] { flood(); });
  }
}

Host& World::anyHost() {
  const size_t i = dice_.below(servers_.size() + clients_.size());
  if (i < servers_.size()) return servers_[i];
  return clients_[i - servers_.size()];
}

// A recording is sent again, to its server or another one, whole or in part.
void World::attackServer() {
  if (wires_.empty()) return;
  Wire* recording = anyRecording();
  if (recording == nullptr) return;
  const std::vector<Frame> frames = recording->toServer.frames();
  const size_t count = dice_.oneIn(3) ? dice_.between(1, frames.size()) : frames.size();
  Wire& wire = wires_.emplace_back(*this, wires_.size(), Plan{});
  wire.excuse(ATTACKED);
  wire.replayed = true;
  makeServerEnd(wire, servers_[dice_.below(servers_.size())]);
  for (size_t i = 0; i < count; ++i) wire.toServer.send(frames[i]);
  after(GIVE_UP_MS, [&wire] { wire.cut(); });
}

// A client comes to someone who plays it a recording of its server.
void World::attackClient() {
  if (wires_.empty()) return;
  Wire* recording = anyRecording();
  if (recording == nullptr) return;
  const std::vector<Frame> frames = recording->toClient.frames();
  Wire& wire = wires_.emplace_back(*this, wires_.size(), Plan{});
  wire.excuse(ATTACKED);
  makeClientEnd(wire, clients_[dice_.below(clients_.size())]).start();
  for (const Frame& frame : frames) wire.toClient.send(frame);
  after(GIVE_UP_MS, [&wire] { wire.cut(); });
}

// Connections that say nothing, or nothing sensible.
void World::flood() {
  Server& server = servers_[dice_.below(servers_.size())];
  const size_t count = dice_.between(3, 10);
  for (size_t i = 0; i < count; ++i) {
    Wire& wire = wires_.emplace_back(*this, wires_.size(), Plan{});
    wire.excuse(ATTACKED);
    makeServerEnd(wire, server);
    if (dice_.oneIn(3)) wire.toServer.send(dice_.bytes(dice_.between(1, 400)));
    if (dice_.oneIn(3)) {
      const auto hello = sallyport::wire::writeHello({PublicKey{}, {}});  // a key of low order
      wire.toServer.send(Frame(hello.begin(), hello.end()));
    }
    after(GIVE_UP_MS, [&wire] { wire.cut(); });
  }
}

// Two turns at once: every cookie under way is too old.
void World::rotateEarly(Server& server) {
  for (int i = 0; i < 2; ++i) server.keys.rotate(netd::MinuteKey::random());
  for (ServerEnd* end : server.halfOpen) end->wire().excuse(ROTATED);
}

void World::restartVault(Host& host) {
  ++host.epoch;
  ++host.startsSinceBackup;
  host.vault.restart();
}

void World::breakDisk(Host& host) {
  host.vault.failDisk(true);
  restartVault(host);
  after(REPAIR_MS, [this, &host] {
    host.vault.failDisk(false);
    restartVault(host);
  });
}

// The first time a backup is made, the next time it comes back. Each start costs the counters of a second (protocol
// §6): the clock must have gone on for longer, or the backup is not old enough to be told from the present.
void World::restoreDisk(Host& host) {
  if (host.backupSeconds == 0) {
    host.backup = host.vault.backup();
    host.backupSeconds = wallSeconds_;
    host.startsSinceBackup = 0;
  } else if (wallSeconds_ - host.backupSeconds > host.startsSinceBackup + 1) {
    ++host.epoch;
    ++host.startsSinceBackup;
    host.vault.restore(host.backup);
  }
}

void World::revoke(Client& client) {
  const PublicKey peer = client.vault.publicKey();
  client.server.vault.revoke(peer);
  for (auto& end : ends_) {
    auto* server = dynamic_cast<ServerEnd*>(end.get());
    if (server == nullptr || server->over() || !server->established() || server->peer() != peer) continue;
    server->wire().excuse(REVOKED);
    server->fail(DropReason::PeerRevoked);
  }
}

}  // namespace sallyport::sim
