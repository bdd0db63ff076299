// Goal: the handshake ends in one session between those who hold the keys; every other input is a drop under its name.
// Method: both machines and a vault on libsodium; then each state with each packet, each byte changed, each refusal.
#include "netd/handshake.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/netd/test_vault.h"

namespace sallyport::netd {
namespace {

using test::Pair;
using test::TestVault;
using R = wire::DropReason;
using Packet = std::vector<std::byte>;

Packet packetOf(ByteSpan frame) { return test::vec(frame.subspan(wire::FRAME_HEADER_BYTES)); }

// Why a step is a drop; nothing if it isn't one.
template <typename Step>
std::optional<R> dropOf(const Step& step) {
  const auto* drop = std::get_if<Drop>(&step);
  return drop == nullptr ? std::nullopt : std::optional(drop->reason);
}

class AHandshake : public testing::Test {
 protected:
  AHandshake() { keys.rotate(MinuteKey::random()); }

  TestVault vault;
  CookieKeys keys;
  ClientHandshake client{vault.server.open};
  ServerHandshake server;

  // The steps of an honest run, each from the one before.
  Packet hello() { return packetOf(std::get<wire::HelloFrame>(client.start())); }
  SealCookieRequest takeHello(ByteSpan packet) { return std::get<SealCookieRequest>(server.onPacket(packet, keys)); }
  Packet cookie(const SealCookieRequest& request) {
    return packetOf(std::get<wire::CookieFrame>(server.onVault(vault.sealCookie(request))));
  }
  MakeVouchRequest takeCookie(ByteSpan packet) { return std::get<MakeVouchRequest>(client.onPacket(packet)); }
  std::pair<Packet, Established> initiate(const MakeVouchRequest& request) {
    auto step = client.onVault(vault.makeVouch(request));
    auto& [frame, established] = std::get<3>(step);
    return {packetOf(frame), std::move(established)};
  }
  VerifyVouchRequest takeInitiate(ByteSpan packet) {
    return std::get<VerifyVouchRequest>(server.onPacket(packet, keys));
  }

  std::pair<Packet, Established> upToInitiate() { return initiate(takeCookie(cookie(takeHello(hello())))); }

  // Whether the server machine's memory holds these bytes.
  bool serverHolds(ByteSpan needle) const {
    const ByteSpan memory{reinterpret_cast<const std::byte*>(&server), sizeof server};
    return std::search(memory.begin(), memory.end(), needle.begin(), needle.end()) != memory.end();
  }
};

TEST_F(AHandshake, EndsInOneSessionOnBothSides) {
  auto [packet, clientSide] = upToInitiate();
  EXPECT_EQ(clientSide.peerKey, vault.server.open);
  EXPECT_EQ(clientSide.peer, "");
  auto step = server.onVault(vault.verifyVouch(takeInitiate(packet)));
  auto& serverSide = std::get<Established>(step);
  EXPECT_EQ(serverSide.peerKey, vault.client.open);
  EXPECT_EQ(serverSide.peer, "alice");

  MessageCipher cipher;
  const auto carry = [&](Session& from, Session& to) {
    Packet frame(MESSAGE_TEXT_OFFSET + 3, std::byte{7});
    EXPECT_EQ(from.seal(cipher, frame), std::nullopt);
    auto text = to.open(cipher, MutableByteSpan(frame).subspan(wire::FRAME_HEADER_BYTES));
    return text && text->size() == 3 && (*text)[0] == std::byte{7};
  };
  EXPECT_TRUE(carry(clientSide.session, serverSide.session));
  EXPECT_TRUE(carry(serverSide.session, clientSide.session));
}

TEST_F(AHandshake, AsksTheVaultForWhatThePacketsHold) {
  const Packet first = hello();
  const SealCookieRequest request = takeHello(first);
  EXPECT_EQ(request.clientEphemeral, wire::parseHello(first)->clientEphemeral);
  EXPECT_EQ(request.box, wire::parseHello(first)->box);
  EXPECT_EQ(keys.open(request.cookie)->clientEphemeral, request.clientEphemeral);
  const MakeVouchRequest make = takeCookie(cookie(request));
  EXPECT_EQ(make.clientEphemeral, request.clientEphemeral);
  const MadeVouch made = *vault.makeVouch(make);
  auto step = client.onVault(made);
  const VerifyVouchRequest verify = takeInitiate(packetOf(std::get<3>(step).first));
  EXPECT_EQ(verify.client, vault.client.open);
  EXPECT_EQ(verify.nonce, made.nonce);
  EXPECT_EQ(verify.box, made.box);
  EXPECT_EQ(verify.clientEphemeral, request.clientEphemeral);
}

TEST_F(AHandshake, HasFreshEphemeralKeysEachTime) {
  ClientHandshake again(vault.server.open);
  const Packet other = packetOf(std::get<wire::HelloFrame>(again.start()));
  const Packet first = hello();
  EXPECT_NE(first, other);
  ServerHandshake second;
  auto step = second.onPacket(first, keys);
  EXPECT_NE(takeHello(first).serverEphemeral, std::get<SealCookieRequest>(step).serverEphemeral);
}

TEST_F(AHandshake, LeavesNoKeyInTheServerBetweenCookieAndInitiate) {
  const SealCookieRequest request = takeHello(hello());
  const CookieContent content = *keys.open(request.cookie);
  for (const bool sent : {false, true}) {
    if (sent) static_cast<void>(cookie(request));
    EXPECT_FALSE(serverHolds(content.secret.expose())) << sent;
    EXPECT_FALSE(serverHolds(request.serverEphemeral.span())) << sent;
    EXPECT_FALSE(serverHolds(request.clientEphemeral.span())) << sent;
    EXPECT_FALSE(serverHolds(ByteSpan(request.cookie).subspan(16))) << sent;
  }
  EXPECT_LE(sizeof(ServerHandshake), 32u + 32 + 8);
}

TEST_F(AHandshake, LeavesNoKeyInTheServerWhenItIsOver) {
  const SealCookieRequest request = takeHello(hello());
  const CookieContent content = *keys.open(request.cookie);
  const SharedKey key = *agree(content.clientEphemeral, content.secret);
  const auto [packet, established] = initiate(takeCookie(cookie(request)));
  const auto verdict = vault.verifyVouch(takeInitiate(packet));
  EXPECT_TRUE(serverHolds(key.expose()));  // so that the next line means something
  auto step = server.onVault(Result<VerifiedVouch, R>(verdict));
  EXPECT_TRUE(std::holds_alternative<Established>(step));
  EXPECT_FALSE(serverHolds(key.expose()));
}

// --- each state with each packet -------------------------------------------------------------------------------------

TEST_F(AHandshake, TakesInEachStateOfTheServerOnePacketOrNone) {
  const Packet h = hello();
  const SealCookieRequest request = takeHello(h);
  const Packet c = cookie(request);
  const auto [i, established] = initiate(takeCookie(c));
  const auto message = [](size_t bytes) {
    Packet packet(bytes);
    std::ranges::copy(test::hex("6d1b39cbf65a11b40000000000000002"), packet.begin());
    return packet;
  };
  const std::vector<Packet> all = {{}, h, c, i, message(33), message(128), message(224), Packet(65535)};

  struct State {
    const char* name;
    size_t expected;
    bool awaitsVault;
    size_t taken;                  // index into `all`, or none
    std::vector<size_t> badMagic;  // of the right length; everything else is a bad length
  };
  static constexpr size_t NONE = 99;
  const State states[] = {{"AwaitHello", 128, false, 1, {5}},
                          {"AwaitCookie", 0, true, NONE, {}},
                          {"AwaitInitiate", 224, false, 3, {6}},
                          {"AwaitVerdict", 0, true, NONE, {}},
                          {"Done", 0, false, NONE, {}}};
  // Brings a fresh machine into a state, by way of this connection's own packets.
  const auto enter = [&](size_t state, ServerHandshake& machine, std::vector<Packet>& packets) {
    ClientHandshake peer(vault.server.open);
    auto first = peer.start();
    packets[1] = packetOf(std::get<wire::HelloFrame>(first));
    if (state == 0) return;
    auto asked = machine.onPacket(packets[1], keys);
    if (state == 1) return;
    auto answered = machine.onVault(vault.sealCookie(std::get<SealCookieRequest>(asked)));
    packets[2] = packetOf(std::get<wire::CookieFrame>(answered));
    auto vouch = peer.onPacket(packets[2]);
    auto last = peer.onVault(vault.makeVouch(std::get<MakeVouchRequest>(vouch)));
    packets[3] = packetOf(std::get<3>(last).first);
    if (state == 2) return;
    auto verify = machine.onPacket(packets[3], keys);
    if (state == 3) return;
    static_cast<void>(machine.onVault(vault.verifyVouch(std::get<VerifyVouchRequest>(verify))));
  };
  for (size_t s = 0; s < std::size(states); ++s) {
    for (size_t p = 0; p < all.size(); ++p) {
      ServerHandshake machine;
      std::vector<Packet> packets = all;
      enter(s, machine, packets);
      EXPECT_EQ(machine.expectedPacketBytes(), states[s].expected) << states[s].name;
      EXPECT_EQ(machine.awaitsVault(), states[s].awaitsVault) << states[s].name;
      const auto reason = dropOf(machine.onPacket(packets[p], keys));
      const bool magic = std::ranges::count(states[s].badMagic, p) > 0;
      EXPECT_EQ(reason, p == states[s].taken ? std::nullopt : std::optional(magic ? R::BadMagic : R::BadLength))
          << states[s].name << " packet " << p;
    }
  }
}

TEST_F(AHandshake, TakesInEachStateOfTheClientOnePacketOrNone) {
  ClientHandshake idle(vault.server.open);
  EXPECT_EQ(idle.expectedPacketBytes(), 0u);
  EXPECT_EQ(dropOf(idle.onPacket(test::vector("cookie"))), R::BadLength);

  const Packet h = hello();
  const Packet c = cookie(takeHello(h));
  EXPECT_EQ(client.expectedPacketBytes(), 168u);
  EXPECT_EQ(dropOf(client.onPacket({})), R::BadLength);
  EXPECT_EQ(dropOf(client.onPacket(h)), R::BadLength);
  EXPECT_EQ(dropOf(client.onPacket(Packet(168))), R::BadMagic);
  EXPECT_EQ(dropOf(client.onPacket(test::vector("cookie"))), R::BadBox);  // genuine, but for another client

  const MakeVouchRequest request = takeCookie(c);
  EXPECT_EQ(client.expectedPacketBytes(), 0u);
  EXPECT_EQ(dropOf(client.onPacket(c)), R::BadLength);
  static_cast<void>(initiate(request));
  EXPECT_EQ(client.expectedPacketBytes(), 0u);
  EXPECT_EQ(dropOf(client.onPacket(c)), R::BadLength);
}

// --- changed and foreign packets -------------------------------------------------------------------------------------

TEST_F(AHandshake, DropsAHelloWithAChangedHead) {
  const Packet good = hello();
  for (size_t at = 0; at < good.size(); ++at) {
    ServerHandshake machine;
    Packet changed = good;
    changed[at] ^= std::byte{1};
    auto step = machine.onPacket(changed, keys);
    if (at < 8) {
      EXPECT_EQ(dropOf(step), R::BadMagic) << at;
    } else if (at >= 40 && at < 48) {
      EXPECT_EQ(dropOf(step), R::BadCounter) << at;
    } else {  // what is inside is for the vault to judge
      auto answer = vault.sealCookie(std::get<SealCookieRequest>(step));
      EXPECT_EQ(dropOf(machine.onVault(answer)), R::BadBox) << at;
    }
  }
}

TEST_F(AHandshake, DropsACookieWithAnyChangedByte) {
  const Packet good = cookie(takeHello(hello()));
  for (size_t at = 0; at < good.size(); ++at) {
    Packet changed = good;
    changed[at] ^= std::byte{0x80};
    EXPECT_EQ(dropOf(client.onPacket(changed)), at < 8 ? R::BadMagic : R::BadBox) << at;
  }
}

TEST_F(AHandshake, DropsACookieOfAnotherServer) {
  TestVault other;
  const auto sealed = other.sealCookieUnchecked(takeHello(hello()));
  EXPECT_EQ(dropOf(client.onPacket(packetOf(wire::writeCookiePacket(sealed->packet)))), R::BadBox);
}

TEST_F(AHandshake, DropsAnInitiateWithAnyChangedByte) {
  const SealCookieRequest request = takeHello(hello());
  const auto [good, established] = initiate(takeCookie(cookie(request)));
  for (size_t at = 0; at < good.size(); ++at) {
    Packet changed = good;
    changed[at] ^= std::byte{4};
    const R reason = at < 8 ? R::BadMagic : at < 104 ? R::UnknownCookie : at < 112 ? R::BadCounter : R::BadBox;
    EXPECT_EQ(dropOf(server.onPacket(changed, keys)), reason) << at;
  }
}

TEST_F(AHandshake, DropsAnInitiateThatWasRecordedOnAnotherConnection) {
  const auto [recorded, established] = upToInitiate();
  static_cast<void>(takeInitiate(recorded));
  ServerHandshake second;
  ClientHandshake peer(vault.server.open);
  auto asked = second.onPacket(packetOf(std::get<wire::HelloFrame>(peer.start())), keys);
  static_cast<void>(second.onVault(vault.sealCookie(std::get<SealCookieRequest>(asked))));
  EXPECT_EQ(dropOf(second.onPacket(recorded, keys)), R::UnknownCookie);
}

TEST_F(AHandshake, DropsARecordedSessionSentAgainFromItsHelloOn) {
  const Packet first = hello();
  const auto [recorded, established] = initiate(takeCookie(cookie(takeHello(first))));
  ServerHandshake second;
  auto asked = second.onPacket(first, keys);
  static_cast<void>(second.onVault(vault.sealCookie(std::get<SealCookieRequest>(asked))));
  EXPECT_EQ(dropOf(second.onPacket(recorded, keys)), R::UnknownCookie);
}

TEST_F(AHandshake, TakesTheInitiateUntilItsMinuteKeyIsGone) {
  const auto [packet, established] = upToInitiate();
  keys.rotate(MinuteKey::random());
  EXPECT_EQ(takeInitiate(packet).client, vault.client.open);
}

TEST_F(AHandshake, DropsAnInitiateWhoseMinuteKeyIsGone) {
  const auto [packet, established] = upToInitiate();
  keys.rotate(MinuteKey::random());
  keys.rotate(MinuteKey::random());
  EXPECT_EQ(dropOf(server.onPacket(packet, keys)), R::ExpiredCookie);
}

// --- low-order keys --------------------------------------------------------------------------------------------------

TEST_F(AHandshake, DoesNotBeginWithALowOrderServer) {
  for (const char* point : test::LOW_ORDER_POINTS) {
    ClientHandshake machine{PublicKey(test::hex(point))};
    EXPECT_EQ(dropOf(machine.start()), R::LowOrderKey) << point;
  }
}

TEST_F(AHandshake, DropsALowOrderClientEvenIfTheVaultDidNot) {
  for (const char* point : test::LOW_ORDER_POINTS) {
    ServerHandshake machine;
    auto asked = machine.onPacket(packetOf(wire::writeHello({PublicKey(test::hex(point)), {}})), keys);
    auto& request = std::get<SealCookieRequest>(asked);
    EXPECT_EQ(vault.sealCookieUnchecked(request).error(), R::LowOrderKey);
    static_cast<void>(machine.onVault(SealedCookie{}));
    EXPECT_EQ(dropOf(machine.onPacket(packetOf(wire::writeInitiate({request.cookie, {}})), keys)), R::LowOrderKey);
  }
}

TEST_F(AHandshake, DropsAServerWithALowOrderEphemeralKey) {
  for (const char* point : test::LOW_ORDER_POINTS) {
    ClientHandshake machine(vault.server.open);
    const auto sent = wire::parseHello(packetOf(std::get<wire::HelloFrame>(machine.start())));
    const SealCookieRequest evil{sent->clientEphemeral, sent->box, PublicKey(test::hex(point)), {}};
    const auto sealed = vault.sealCookieUnchecked(evil);
    EXPECT_EQ(dropOf(machine.onPacket(packetOf(wire::writeCookiePacket(sealed->packet)))), R::LowOrderKey) << point;
  }
}

TEST_F(AHandshake, LeavesALowOrderLongTermKeyToTheVaultsVerdict) {
  for (const char* point : test::LOW_ORDER_POINTS) {
    ServerHandshake machine;
    ClientHandshake peer(vault.server.open);
    auto asked = machine.onPacket(packetOf(std::get<wire::HelloFrame>(peer.start())), keys);
    auto sealed = machine.onVault(vault.sealCookie(std::get<SealCookieRequest>(asked)));
    static_cast<void>(peer.onPacket(packetOf(std::get<wire::CookieFrame>(sealed))));
    auto last = peer.onVault(MadeVouch{PublicKey(test::hex(point)), {}, {}});
    auto verify = machine.onPacket(packetOf(std::get<3>(last).first), keys);
    EXPECT_EQ(std::get<VerifyVouchRequest>(verify).client, PublicKey(test::hex(point)));
    EXPECT_EQ(dropOf(machine.onVault(Result<VerifiedVouch, R>(refuse(R::LowOrderKey)))), R::LowOrderKey);
  }
}

// --- the vault's answers ---------------------------------------------------------------------------------------------

TEST_F(AHandshake, DropsUnderTheVaultsOwnReason) {
  for (size_t i = 0; i < wire::DROP_REASON_COUNT; ++i) {
    const R reason = static_cast<R>(i);
    ServerHandshake first;
    ClientHandshake peer(vault.server.open);
    const Packet h = packetOf(std::get<wire::HelloFrame>(peer.start()));
    static_cast<void>(first.onPacket(h, keys));
    EXPECT_EQ(dropOf(first.onVault(Result<SealedCookie, R>(refuse(reason)))), reason);

    ServerHandshake second;
    auto asked = second.onPacket(h, keys);
    auto sealed = second.onVault(vault.sealCookie(std::get<SealCookieRequest>(asked)));
    auto vouch = peer.onPacket(packetOf(std::get<wire::CookieFrame>(sealed)));
    ClientHandshake refused = std::move(peer);
    EXPECT_EQ(dropOf(refused.onVault(Result<MadeVouch, R>(refuse(reason)))), reason);
    auto last = refused.onVault(vault.makeVouch(std::get<MakeVouchRequest>(vouch)));
    static_cast<void>(second.onPacket(packetOf(std::get<3>(last).first), keys));
    EXPECT_EQ(dropOf(second.onVault(Result<VerifiedVouch, R>(refuse(reason)))), reason);
  }
}

TEST_F(AHandshake, DropsAClientWhoseVouchIsForAnotherEphemeralKey) {
  static_cast<void>(takeCookie(cookie(takeHello(hello()))));
  const auto foreign = vault.makeVouch({makeEphemeralPair().publicKey});
  auto step = client.onVault(foreign);
  const auto verdict = vault.verifyVouch(takeInitiate(packetOf(std::get<3>(step).first)));
  EXPECT_EQ(dropOf(server.onVault(Result<VerifiedVouch, R>(verdict))), R::BadVouch);
}

TEST_F(AHandshake, DropsAClientThatShowsAnothersKey) {
  static_cast<void>(takeCookie(cookie(takeHello(hello()))));
  auto made = *vault.makeVouch({makeEphemeralPair().publicKey});
  made.client = Pair::random().open;
  auto step = client.onVault(made);
  const auto verdict = vault.verifyVouch(takeInitiate(packetOf(std::get<3>(step).first)));
  EXPECT_EQ(dropOf(server.onVault(Result<VerifiedVouch, R>(verdict))), R::BadVouch);
}

TEST_F(AHandshake, DropsAGenuineClientThatIsNotAllowed) {
  const Pair allowed = vault.client;
  vault.client = Pair::random();
  const auto [packet, established] = upToInitiate();
  const VerifyVouchRequest request = takeInitiate(packet);
  vault.client = allowed;
  EXPECT_EQ(dropOf(server.onVault(vault.verifyVouch(request))), R::PeerNotAllowed);
}

using AHandshakeDeathTest = AHandshake;
TEST_F(AHandshakeDeathTest, TakesNoAnswerThatItDidNotAskFor) {
  const auto verdict = [] { return Result<VerifiedVouch, R>(VerifiedVouch{"alice"}); };
  EXPECT_DEATH(static_cast<void>(server.onVault(SealedCookie{})), "invariant broken");
  EXPECT_DEATH(static_cast<void>(server.onVault(verdict())), "invariant broken");
  EXPECT_DEATH(static_cast<void>(client.onVault(MadeVouch{})), "invariant broken");
  static_cast<void>(takeHello(hello()));
  EXPECT_DEATH(static_cast<void>(server.onVault(verdict())), "invariant broken");
  EXPECT_DEATH(static_cast<void>(client.onVault(MadeVouch{})), "invariant broken");
  EXPECT_DEATH(static_cast<void>(client.start()), "invariant broken");
}

TEST_F(AHandshakeDeathTest, IsNotServedWithoutAMinuteKey) {
  EXPECT_DEATH(static_cast<void>(server.onPacket(hello(), CookieKeys())), "invariant broken");
}

}  // namespace
}  // namespace sallyport::netd
