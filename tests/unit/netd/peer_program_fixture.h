// peer_program_fixture.h - a program of [net] socket with a channel of the peer protocol, and the party at its other
// end, in each mode: a test's parameter says which. Part of: tests/unit/netd.
#pragma once

#include "tests/unit/netd/peer_fixture.h"
#include "tests/unit/netd/program_fixture.h"

namespace sallyport::netd::test {

using proto::NetRefusal;
using wire::PeerMode;
using Status = proto::PeerReceived::Status::Which;

// What one receive() came to.
struct Got {
  std::string data;
  uint32_t code = 0;
  Status status{};
  std::string reason;
  uint32_t needed = 0;
};

// Serves the entry of the mode when a test says so.
class PeerProgramTest : public WithProgram<PeerWorkerTest>, public testing::WithParamInterface<PeerMode> {
 protected:
  ~PeerProgramTest() noexcept override { channel.reset(); }

  bool base() const { return GetParam() == PeerMode::Base; }
  uint32_t entry() const { return base() ? BASE_CHANNEL_ENTRY : PEER_CHANNEL_ENTRY; }
  void serve(const Options& options = {}) { serveProgram(base() ? "base-chat" : "peer-chat", options); }
  // A peer that has proved that it holds the block: in hard mode by an *open*, which no program sees; in base mode by
  // its first frame, which is the program's.
  Party provenParty() {
    if (!base()) return connectedParty(entry());
    Party proven = baseParty(entry());
    say(proven, FIRST);
    return proven;
  }
  void acceptChannel() {
    channel.emplace(answer(listener->acceptPeerRequest().send())->getOutcome().getAccepted().getChannel());
    if (base()) { EXPECT_EQ(receive(FIRST.size()).data, FIRST); }
  }
  void connectBoth() {
    party = provenParty();
    acceptChannel();
  }

  auto sendRequest(std::string_view data, uint32_t code = 0) {
    auto request = channel->sendRequest();
    request.setData(toData(asBytes(data)));
    request.setCode(code);
    return request;
  }
  auto receiveRequest(uint64_t maxBytes, uint32_t timeoutMs = 20000, bool continued = false) {
    auto request = channel->receiveRequest();
    request.setMaxBytes(maxBytes);
    request.setTimeoutMs(timeoutMs);
    request.setContinued(continued);
    return request;
  }
  static Got gotFrom(proto::PeerReceived::Reader received) {
    Got got;
    got.data = text(toBytes(received.getData()));
    got.code = received.getCode();
    got.status = received.getStatus().which();
    if (got.status == Status::BROKEN) got.reason = received.getStatus().getBroken();
    if (got.status == Status::TOO_BIG) got.needed = received.getStatus().getTooBig();
    return got;
  }
  Got receiveOnce(uint64_t maxBytes, uint32_t timeoutMs = 20000, bool continued = false) {
    return gotFrom(answer(receiveRequest(maxBytes, timeoutMs, continued).send())->getReceived());
  }
  // As the schema tells clients to: asks again, `continued`, until it isn't `more`.
  Got receive(uint64_t maxBytes, uint32_t timeoutMs = 20000) {
    return receiveTheRest(receiveOnce(maxBytes, timeoutMs), maxBytes, timeoutMs);
  }
  Got receiveTheRest(Got all, uint64_t maxBytes, uint32_t timeoutMs = 20000) {
    while (all.status == Status::MORE) {
      const Got more = receiveOnce(maxBytes - all.data.size(), timeoutMs, true);
      all.data += more.data;
      all.status = more.status;
      all.reason = more.reason;
    }
    return all;
  }
  // Frames of `code` until there are so many bytes.
  std::string hearAll(size_t bytes, uint32_t code = 0) {
    const std::string head = std::to_string(code) + ":";
    std::string heard;
    while (heard.size() < bytes) {
      const std::string frame = hear(party);
      if (!frame.starts_with(head)) {
        ADD_FAILURE() << frame.substr(0, 20);
        break;
      }
      heard += frame.substr(head.size());
      ++framesHeard;
      longestHeard = std::max(longestHeard, frame.size() - head.size());
    }
    return heard;
  }
  // What the party hears of the end of our direction. Base mode has none of its own: the wire's half is closed.
  std::string endHeard() const { return base() ? "!" : END; }
  static std::string many(size_t size, char first) {
    std::string bytes(size, '\0');
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(first + static_cast<char>(i % 23));
    return bytes;
  }

  static constexpr std::string_view FIRST = "first of all";
  Party party;
  std::optional<proto::PeerChannel::Client> channel;
  size_t framesHeard = 0;
  size_t longestHeard = 0;
};

inline std::string modeName(const testing::TestParamInfo<PeerMode>& mode) {
  return mode.param == PeerMode::Base ? "Base" : "Hard";
}

}  // namespace sallyport::netd::test
