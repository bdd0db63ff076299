// Goal: a client's handshake takes the genuine Cookie of its own server alone.
// Method: the input is a script of packets (made by a real server, changed, of another connection, or raw) and of what
// the vault answers.
#include <optional>

#include "netd/handshake.h"
#include "tests/fuzz/input.h"
#include "tests/sim/dice.h"
#include "tests/sim/fake_vault.h"

using namespace sallyport;
using netd::ClientHandshake;
using netd::ServerHandshake;

namespace {

constexpr uint64_t WALL_SECONDS = 1800000000;
using Done = std::pair<wire::InitiateFrame, netd::Established>;

vaultd::SecretArena& theArena() {
  static auto arena = std::move(*vaultd::SecretArena::create(16384, vaultd::SecretArena::Want::LockedMemory));
  return *arena;
}
vaultd::SharedKeyCache& theCache() {
  static vaultd::SharedKeyCache cache(theArena(), 8);
  return cache;
}

class Script {
 public:
  Script() {
    server_.allow(client_.publicKey(), "client");
    keys_.rotate(netd::MinuteKey::random());
    begin();
  }

  void play(fuzz::Input& input) {
    switch (input.byte() % 7) {
      case 0: return give(input.block(input.byte()), false);
      case 1: return give(input.block(machine_->expectedPacketBytes()), false);
      case 2: {
        auto packet = cookie_;
        const bool changed = input.mutate(packet);
        return give(packet, !changed);
      }
      case 3:
        if (const auto* request = std::get_if<netd::MakeVouchRequest>(&step_))
          perform(machine_->onVault(client_.makeVouch(server_.publicKey(), *request)));
        return;
      case 4: {
        const auto reason = static_cast<wire::DropReason>(input.byte() % wire::DROP_REASON_COUNT);
        if (std::holds_alternative<netd::MakeVouchRequest>(step_))
          perform(machine_->onVault(Result<netd::MadeVouch, wire::DropReason>(refuse(reason))));
        return;
      }
      case 5: {
        netd::MadeVouch made{};
        input.mutate(made.box);
        if (std::holds_alternative<netd::MakeVouchRequest>(step_)) {
          lied_ = true;
          perform(machine_->onVault(Result<netd::MadeVouch, wire::DropReason>(made)));
        }
        return;
      }
      case 6: {
        const auto old = cookie_;
        begin();
        return give(old, false);
      }
    }
  }

 private:
  void begin() {
    machine_.emplace(server_.publicKey());
    other_ = ServerHandshake();
    over_ = lied_ = genuine_ = false;
    step_ = netd::Drop{};
    auto first = machine_->start();
    const auto& hello = std::get<wire::HelloFrame>(first);
    auto asked = other_.onPacket(ByteSpan(hello).subspan(wire::FRAME_HEADER_BYTES), keys_);
    auto sealed = server_.sealCookie(std::get<netd::SealCookieRequest>(asked));
    auto answer = other_.onVault(sealed);
    const auto frame = ByteSpan(std::get<wire::CookieFrame>(answer)).subspan(wire::FRAME_HEADER_BYTES);
    cookie_.assign(frame.begin(), frame.end());
  }

  void give(const std::vector<std::byte>& packet, bool genuine) {
    if (over_) return;
    genuine_ = genuine && machine_->expectedPacketBytes() != 0;
    perform(machine_->onPacket(packet));
  }

  void perform(ClientHandshake::Step step) {
    if (std::holds_alternative<netd::Drop>(step)) over_ = true;
    if (std::holds_alternative<netd::MakeVouchRequest>(step)) CHECK(genuine_ && machine_->expectedPacketBytes() == 0);
    if (const auto* done = std::get_if<Done>(&step)) {
      over_ = true;
      // The server agrees, whatever came before.
      auto verdict = other_.onPacket(ByteSpan(done->first).subspan(wire::FRAME_HEADER_BYTES), keys_);
      auto* vouch = std::get_if<netd::VerifyVouchRequest>(&verdict);
      CHECK(vouch != nullptr && server_.verifyVouch(*vouch).has_value() == !lied_);
    }
    step_ = std::move(step);
  }

  sim::FakeVault server_{theArena(), theCache(), 0, WALL_SECONDS, sim::Canary::None};
  sim::FakeVault client_{theArena(), theCache(), 1, WALL_SECONDS, sim::Canary::None};
  netd::CookieKeys keys_;
  std::optional<ClientHandshake> machine_;
  ServerHandshake other_;
  std::vector<std::byte> cookie_;
  ClientHandshake::Step step_;
  bool over_ = false;
  bool lied_ = false;
  bool genuine_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  sim::installDice();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  sim::sodiumDice = sim::Dice(1);
  sim::drawnSecrets.clear();
  fuzz::Input input(data, size);
  Script script;
  for (int steps = 0; !input.empty() && steps < 64; ++steps) script.play(input);
  return 0;
}
