// Goal: whatever a hostile network, a restarting vault and an operator do, the product's own handshakes and sessions
// deliver nothing but what was sent, and each fault ends its own connection alone.
// Method: worlds made from seeds: the real machines and readers, a virtual clock, a network that tampers, replays and
// splices. Invariants are in invariants.h. `--canary NAME` puts a mistake in and fails unless it is noticed.
//
// SALLYPORT_SIM_SEED=N runs that world alone; SALLYPORT_SIM_SEEDS=N runs worlds 1..N (default: argument).
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "tests/sim/world.h"

using namespace sallyport;
using namespace sallyport::sim;

namespace {

struct NamedCanary {
  const char* name;
  Canary canary;
  Invariant breaks;
};
constexpr NamedCanary CANARIES[] = {
    {"any-counter", Canary::AnyCounter, Invariant::Delivery},
    {"unbound-cookie", Canary::UnboundCookie, Invariant::Replay},
    {"stale-nonces", Canary::StaleNonces, Invariant::Nonce},
    {"wrong-victim", Canary::WrongVictim, Invariant::OneFault},
    {"kept-secret", Canary::KeptSecret, Invariant::HalfOpen},
    {"lost-end", Canary::LostEnd, Invariant::Delivery},
};

// A run of many worlds must have met all of these, or it proves little.
constexpr wire::DropReason EXPECTED[] = {
    wire::DropReason::BadLength,        wire::DropReason::BadMagic,         wire::DropReason::BadCounter,
    wire::DropReason::BadBox,           wire::DropReason::UnknownCookie,    wire::DropReason::ExpiredCookie,
    wire::DropReason::PeerRevoked,      wire::DropReason::HandshakeTimeout, wire::DropReason::ClosedInHandshake,
    wire::DropReason::VaultUnavailable, wire::DropReason::NonceUnavailable, wire::DropReason::HalfOpenLimit,
    wire::DropReason::Truncated,        wire::DropReason::BadVouch,         wire::DropReason::LowOrderKey,
    wire::DropReason::PeerNotAllowed,
};
constexpr uint64_t ENOUGH_SEEDS = 300;

uint64_t numberFrom(const char* variable, uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

uint64_t runWorld(uint64_t seed, Canary canary, Tally& tally) { return World(seed, canary, tally).run(); }

int searchFor(const NamedCanary& canary, uint64_t seeds) {
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    Tally tally;
    try {
      runWorld(seed, canary.canary, tally);
    } catch (const Broken& broken) {
      std::printf("seed %lu: %s\n", seed, broken.what());
      return broken.invariant() == canary.breaks ? 0 : 1;
    }
  }
  std::printf("canary %s was not noticed in %lu worlds\n", canary.name, seeds);
  return 1;
}

int runWorlds(uint64_t first, uint64_t last) {
  Tally tally;
  for (uint64_t seed = first; seed <= last; ++seed) {
    try {
      const uint64_t fingerprint = runWorld(seed, Canary::None, tally);
      // What can't be repeated can't be debugged.
      if (seed % 64 == 1 && runWorld(seed, Canary::None, tally) != fingerprint) {
        std::printf("SALLYPORT_SIM_SEED=%lu: the same seed gave another world\n", seed);
        return 1;
      }
    } catch (const Broken& broken) {
      std::printf("SALLYPORT_SIM_SEED=%lu: %s\n", seed, broken.what());
      return 1;
    }
  }
  std::printf("%lu worlds, %lu connections (%lu untouched, %lu replays), %lu messages delivered\n", last - first + 1,
              tally.connections, tally.untouched, tally.replays, tally.messages);
  for (size_t i = 0; i < wire::DROP_REASON_COUNT; ++i) {
    const auto name = wire::name(static_cast<wire::DropReason>(i));
    if (tally.faults[i] > 0)
      std::printf("  %-20.*s %lu\n", static_cast<int>(name.size()), name.data(), tally.faults[i]);
  }
  if (last - first + 1 < ENOUGH_SEEDS) return 0;
  for (const auto reason : EXPECTED) {
    if (tally.faults[static_cast<size_t>(reason)] > 0) continue;
    std::printf("no world came to %s: the network is not hostile enough\n", std::string(wire::name(reason)).c_str());
    return 1;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  installDice();
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const uint64_t seeds = numberFrom("SALLYPORT_SIM_SEEDS", argc == 2 ? std::strtoull(argv[1], nullptr, 10) : 300);
  if (argc == 3 && std::strcmp(argv[1], "--canary") == 0) {
    for (const NamedCanary& canary : CANARIES) {
      if (std::strcmp(argv[2], canary.name) == 0) return searchFor(canary, seeds);
    }
  } else if (argc <= 2) {
    const uint64_t seed = numberFrom("SALLYPORT_SIM_SEED", 0);
    return seed != 0 ? runWorlds(seed, seed) : runWorlds(1, seeds);
  }
  std::fprintf(stderr, "usage: sim [SEEDS] | --canary NAME\n");
  return 2;
}
