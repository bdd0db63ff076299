// world.h - one simulated world: hosts, a virtual clock, events, and what must hold. Part of: tests/sim.
// All that happens follows from the seed: the same seed gives the same world, byte by byte.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <vector>

#include "tests/sim/dice.h"
#include "tests/sim/ends.h"
#include "tests/sim/fake_vault.h"

namespace sallyport::sim {

// A host with a vault. `epoch` counts the vault's restarts: a question asked before one is never answered.
struct Host {
  Host(vaultd::SecretArena& arena, vaultd::SharedKeyCache& cache, uint32_t id, const uint64_t& wallSeconds,
       Canary canary)
      : vault(arena, cache, id, wallSeconds, canary) {}
  FakeVault vault;
  uint64_t epoch = 0;
  vaultd::NonceLedger::Image backup{};
  uint64_t backupSeconds = 0;
  uint64_t startsSinceBackup = 0;
};
struct Server : Host {
  using Host::Host;
  netd::CookieKeys keys;
  std::vector<ServerEnd*> halfOpen;  // oldest first
  size_t halfOpenLimit = 1000;
};
struct Client : Host {
  template <typename... Arguments>
  explicit Client(Server& its, Arguments&&... arguments) : Host(arguments...), server(its) {}
  Server& server;
};

// What a run of worlds has come across, to see that the simulator is hostile enough.
struct Tally {
  std::array<uint64_t, wire::DROP_REASON_COUNT> faults{};
  uint64_t connections = 0;
  uint64_t untouched = 0;
  uint64_t messages = 0;
  uint64_t replays = 0;
};

class World {
 public:
  World(uint64_t seed, Canary canary, Tally& tally);

  // Runs until nothing is left to happen. Throws Broken. Returns a fingerprint of all that happened.
  uint64_t run();

  Dice& dice() { return dice_; }
  Canary canary() const { return canary_; }
  netd::MessageCipher& cipher() { return cipher_; }
  netd::BufferBudget& budget() { return budget_; }
  std::span<std::byte, netd::SCRATCH_BYTES> scratch() { return *scratch_; }
  void after(uint64_t ms, std::function<void()> work);
  // Asks a host's vault; `answer` gets the reason if it is lost.
  void ask(Host& host, Wire& wire, std::function<void(std::optional<wire::DropReason>)> answer);

  const Frame* anyFrame(const Wire& except);
  Wire* anyOpenWire(const Wire& except);
  End* anyOpenEnd();

  // --- told by the ends ---
  void onAccepted(ServerEnd& end);
  void onHello(ClientEnd& end);
  void onCookie(const netd::Cookie& cookie);
  void onServerEstablished(ServerEnd& end, const netd::Established& established);
  void onClientEstablished(ClientEnd& end);
  void onSealed(End& end, const Frame& frame);
  void onDelivered(End& end, ByteSpan text);
  void onComplete(End& end);
  void onFault(End& end, wire::DropReason reason);

 private:
  struct Event {
    uint64_t atMs;
    uint64_t number;
    std::function<void()> work;
    bool operator<(const Event& other) const { return std::tie(other.atMs, other.number) < std::tie(atMs, number); }
  };

  void populate();
  void planTroubles(uint64_t spanMs);
  void connectPair(Client& client, Plan plan);
  void attackServer();
  void attackClient();
  void flood();
  void rotateEarly(Server& server);
  void restartVault(Host& host);
  void breakDisk(Host& host);
  void restoreDisk(Host& host);
  void revoke(Client& client);
  Host& anyHost();
  Wire* anyRecording();
  ServerEnd& makeServerEnd(Wire& wire, Server& server);
  ClientEnd& makeClientEnd(Wire& wire, Client& client);
  End* partnerOf(End& end);
  void note(uint64_t what);
  void checkAtEnd();

  Dice dice_;
  Canary canary_;
  Tally& tally_;
  uint64_t nowMs_ = 0;
  uint64_t wallSeconds_ = 0;
  uint64_t fingerprint_ = 0xcbf29ce484222325;
  netd::MessageCipher& cipher_;
  netd::Stats stats_{};
  netd::BufferBudget budget_;
  std::unique_ptr<std::array<std::byte, netd::SCRATCH_BYTES>> scratch_;
  std::unique_ptr<vaultd::SecretArena> arena_;
  std::unique_ptr<vaultd::SharedKeyCache> cache_;
  std::deque<Server> servers_;
  std::deque<Client> clients_;
  std::deque<Wire> wires_;
  std::deque<std::unique_ptr<End>> ends_;
  std::priority_queue<Event> events_;
  uint64_t eventCount_ = 0;
  std::map<PublicKey, ClientEnd*> clientsByKey_;  // ephemeral
  std::map<PublicKey, ServerEnd*> serversByKey_;  // established
  std::map<std::pair<PublicKey, bool>, uint64_t> nextCounter_;
  std::set<std::array<std::byte, wire::LONG_NONCE_BYTES>> minuteNonces_;
};

}  // namespace sallyport::sim
