// Goal: a server's handshake comes to a session by the genuine packets of its own connection alone.
// Method: the input is a script of packets (made by a real client, changed, replayed, or raw) and of what the vault
// answers (the truth, a refusal, or nonsense), over several connections of one server.
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

vaultd::SecretArena& theArena() {
  static auto arena = std::move(*vaultd::SecretArena::create(16384, vaultd::SecretArena::Want::LockedMemory));
  return *arena;
}
vaultd::SharedKeyCache& theCache() {
  static vaultd::SharedKeyCache cache(theArena(), 8);
  return cache;
}

std::vector<std::byte> packetOf(ByteSpan frame) {
  const ByteSpan packet = frame.subspan(wire::FRAME_HEADER_BYTES);
  return {packet.begin(), packet.end()};
}

class Script {
 public:
  Script() {
    server_.allow(client_.publicKey(), "client");
    keys_.rotate(netd::MinuteKey::random());
    begin();
  }

  void play(fuzz::Input& input) {
    switch (input.byte() % 9) {
      case 0: return give(input.block(input.byte()), false);
      case 1: return give(input.block(machine_.expectedPacketBytes()), false);
      case 2: return change(input, hello_, true);
      case 3: return change(input, initiate_, true);
      case 4: return answer();
      case 5: return refuseWith(static_cast<wire::DropReason>(input.byte() % wire::DROP_REASON_COUNT));
      case 6: return lie(input);
      case 7: keys_.rotate(netd::MinuteKey::random()); return;
      case 8: {
        // What was said on an earlier connection, on a new one.
        const auto oldHello = hello_, oldInitiate = initiate_;
        const bool replayHello = input.byte() % 2 != 0;
        begin();
        if (replayHello) give(oldHello, false);
        if (std::holds_alternative<netd::SealCookieRequest>(step_)) answer();
        if (!oldInitiate.empty()) give(oldInitiate, false);
        return;
      }
    }
  }

 private:
  void begin() {
    machine_ = ServerHandshake();
    person_.emplace(server_.publicKey());
    step_ = netd::Drop{};
    over_ = genuine_ = lied_ = false;
    auto first = person_->start();
    hello_ = packetOf(std::get<wire::HelloFrame>(first));
    initiate_.clear();
  }

  void change(fuzz::Input& input, std::vector<std::byte> packet, bool genuine) {
    const bool changed = input.mutate(packet);
    give(packet, genuine && !changed);
  }

  void give(const std::vector<std::byte>& packet, bool genuine) {
    if (over_) return;
    if (!machine_.awaitsVault() && machine_.expectedPacketBytes() == wire::INITIATE_BYTES) genuine_ = genuine;
    perform(machine_.onPacket(packet, keys_));
  }

  void answer() {
    if (auto* hello = std::get_if<netd::SealCookieRequest>(&step_)) {
      auto sealed = server_.sealCookie(*hello);
      perform(machine_.onVault(sealed));
    } else if (auto* vouch = std::get_if<netd::VerifyVouchRequest>(&step_)) {
      perform(machine_.onVault(server_.verifyVouch(*vouch)));
    }
  }

  void refuseWith(wire::DropReason reason) {
    if (std::holds_alternative<netd::SealCookieRequest>(step_))
      perform(machine_.onVault(Result<netd::SealedCookie, wire::DropReason>(refuse(reason))));
    else if (std::holds_alternative<netd::VerifyVouchRequest>(step_))
      perform(machine_.onVault(Result<netd::VerifiedVouch, wire::DropReason>(refuse(reason))));
  }

  // A vault that says yes to everything.
  void lie(fuzz::Input& input) {
    if (std::holds_alternative<netd::SealCookieRequest>(step_)) {
      netd::SealedCookie sealed{};
      input.mutate(sealed.packet.box);
      perform(machine_.onVault(Result<netd::SealedCookie, wire::DropReason>(sealed)));
    } else if (std::holds_alternative<netd::VerifyVouchRequest>(step_)) {
      lied_ = true;
      const auto name = input.take(8);
      netd::VerifiedVouch verdict{std::string(reinterpret_cast<const char*>(name.data()), name.size())};
      perform(machine_.onVault(Result<netd::VerifiedVouch, wire::DropReason>(std::move(verdict))));
    }
  }

  void perform(ServerHandshake::Step step) {
    CHECK(machine_.awaitsVault() == (std::holds_alternative<netd::SealCookieRequest>(step) ||
                                     std::holds_alternative<netd::VerifyVouchRequest>(step)) ||
          std::holds_alternative<netd::Drop>(step));
    if (std::holds_alternative<netd::Drop>(step)) {
      over_ = true;
    } else if (const auto* cookie = std::get_if<wire::CookieFrame>(&step)) {
      CHECK(machine_.expectedPacketBytes() == wire::INITIATE_BYTES);
      // A real client goes on, if it can.
      auto next = person_->onPacket(ByteSpan(*cookie).subspan(wire::FRAME_HEADER_BYTES));
      if (const auto* request = std::get_if<netd::MakeVouchRequest>(&next)) {
        auto vouch = client_.makeVouch(server_.publicKey(), *request);
        auto last = person_->onVault(vouch);
        initiate_ = packetOf(std::get<std::pair<wire::InitiateFrame, netd::Established>>(last).first);
      }
    } else if (const auto* established = std::get_if<netd::Established>(&step)) {
      over_ = true;
      CHECK(genuine_ || lied_);
      CHECK(lied_ || established->peerKey == client_.publicKey());
      CHECK(machine_.expectedPacketBytes() == 0 && !machine_.awaitsVault());
    }
    step_ = std::move(step);
    if (over_) step_ = netd::Drop{};
  }

  sim::FakeVault server_{theArena(), theCache(), 0, WALL_SECONDS, sim::Canary::None};
  sim::FakeVault client_{theArena(), theCache(), 1, WALL_SECONDS, sim::Canary::None};
  netd::CookieKeys keys_;
  ServerHandshake machine_;
  std::optional<ClientHandshake> person_;
  std::vector<std::byte> hello_;
  std::vector<std::byte> initiate_;
  ServerHandshake::Step step_;
  bool over_ = false;
  bool genuine_ = false;  // the Initiate that the server judges is the one made for this connection
  bool lied_ = false;
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
