// peer_fixture.h - worker_fixture.h, and a party of the peer protocol at the other end of the wire. Part of:
// tests/unit/netd. The test is party A of the block, the worker is B.
#pragma once

#include "peer/block_keys.h"
#include "tests/unit/netd/worker_fixture.h"

namespace sallyport::netd::test {

using wire::PEER_CODE_CONTROL;
using wire::PEER_OPEN_TEXT;

class PeerWorkerTest : public WorkerTest {
 protected:
  struct Party {
    kj::AutoCloseFd socket;
    wire::PeerSalt salt;
    std::optional<peer::FrameSealer> sealer;
    std::optional<peer::FrameOpener> opener;
  };

  Party dialParty(uint32_t entry) { return partyAt(kj::AutoCloseFd(connectUnix(address(entry)))); }
  static Party partyAt(kj::AutoCloseFd socket) {
    Party party{kj::mv(socket), {}, {}, {}};
    randombytes_buf(party.salt.data(), wire::PeerSalt::SIZE);
    return party;
  }
  void writeTo(const Party& party, ByteSpan bytes) { write(Peer{kj::AutoCloseFd(dup(party.socket)), {}, {}}, bytes); }
  void sendPreamble(Party& party, wire::PeerParty own = wire::PeerParty::A) {
    writeTo(party, wire::writePeerPreamble(own, party.salt));
  }
  // Both preambles: from here on the keys are known.
  [[nodiscard]] bool exchange(Party& party, uint32_t rotateFrames = 65536) {
    sendPreamble(party);
    const auto bytes = read(party.socket, wire::PEER_PREAMBLE_BYTES);
    if (bytes.size() != wire::PEER_PREAMBLE_BYTES) return false;
    return keysFrom(party, bytes, rotateFrames);
  }
  // The worker's preamble came.
  bool keysFrom(Party& party, ByteSpan bytes, uint32_t rotateFrames = 65536) {
    wire::PeerPreambleBytes preamble;
    std::ranges::copy(bytes, preamble.begin());
    const auto theirs = wire::parsePeerPreamble(preamble, wire::PeerParty::A);
    if (!theirs) return false;
    using wire::PeerParty;
    party.sealer = peer::hardSealer(peer::hardSendSecret(vault.block, PeerParty::A, party.salt, *theirs), PeerParty::A,
                                    rotateFrames);
    party.opener = peer::hardOpener(peer::hardReceiveSecret(vault.block, PeerParty::A, party.salt, *theirs),
                                    PeerParty::A, 16 << 20, rotateFrames);
    return true;
  }
  std::vector<std::byte> frame(Party& party, std::string_view text, uint32_t code = 0) {
    std::vector<std::byte> frame(wire::PEER_OVERHEAD_BYTES + text.size());
    std::memcpy(frame.data() + wire::PEER_HEADER_BYTES, text.data(), text.size());
    EXPECT_EQ(party.sealer->seal(frameCipher, frame, code), std::nullopt);
    return frame;
  }
  void say(Party& party, std::string_view text, uint32_t code = 0) { writeTo(party, frame(party, text, code)); }
  // "CODE:text", or "!" if there is no frame.
  std::string hear(Party& party) {
    const auto head = read(party.socket, wire::PEER_HEADER_BYTES);
    if (head.size() != wire::PEER_HEADER_BYTES) return "!";
    const auto header = party.opener->openHeader(frameCipher, std::span(head).first<wire::PEER_HEADER_BYTES>());
    if (!header) return "!" + std::string(name(header.error()));
    auto body = read(party.socket, header->length + wire::PEER_TAG_BYTES);
    if (body.size() != header->length + wire::PEER_TAG_BYTES) return "!";
    if (auto fault = party.opener->openBody(frameCipher, body)) return "!" + std::string(name(*fault));
    return std::to_string(header->code) + ":" + test::text(ByteSpan(body).first(header->length));
  }
  // Base mode: nothing is exchanged before the first frame.
  Party baseParty(uint32_t entry) { return baseParty(kj::AutoCloseFd(connectUnix(address(entry)))); }
  Party baseParty(kj::AutoCloseFd socket) {
    Party party = partyAt(kj::mv(socket));
    party.sealer = peer::baseSealer(vault.block, wire::PeerParty::A);
    party.opener = peer::baseOpener(vault.block, wire::PeerParty::A, 16 << 20);
    return party;
  }
  Party connectedParty(uint32_t entry, uint32_t rotateFrames = 65536) {
    Party party = dialParty(entry);
    EXPECT_TRUE(exchange(party, rotateFrames));
    say(party, PEER_OPEN_TEXT, PEER_CODE_CONTROL);
    EXPECT_TRUE(until([&] { return stats.get(Counter::HalfOpen) == 0; }));
    return party;
  }

  peer::FrameCipher frameCipher;
};

inline const std::string END = std::to_string(PEER_CODE_CONTROL) + ":";

}  // namespace sallyport::netd::test
