// worker_under_test.h - a whole netd-worker in the fuzzer's own process, with a monitor that refuses every dial but
// those of "peer-out": there a party answers that does what a program's frames ask for (wire_party.h). Part of:
// tests/fuzz.
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <list>

#include <kj/io.h>

#include "common/config.h"
#include "common/fd_passing.h"
#include "common/rpc.h"
#include "netd/control.h"
#include "netd/memory_file.h"
#include "netd/worker.h"
#include "netd/worker_config.h"
#include "tests/fuzz/socket_peer.h"
#include "tests/fuzz/wire_party.h"

namespace sallyport::fuzz {

class WorkerUnderTest {
 public:
  // `listener`: how the worker gets `socket()`.
  explicit WorkerUnderTest(netd::ControlKind listener)
      : stats_(netd::Stats::map(netd::Stats::create())),
        vault_(
            loop_, vaultSocket_.listener(),
            [](const PeerCredentials&) -> kj::Maybe<capnp::Capability::Client> {
              return capnp::Capability::Client(kj::heap<HardModeVault>());
            },
            LinkLimits{}),
        worker_(loop_, makeControl(), stats_) {
    const auto config = parseConfig(CONFIG, "/etc/sallyport/sallyport.toml");
    CHECK(config.has_value());
    netd::EntryIds ids;
    kj::AutoCloseFd file = netd::writeMemoryFile("worker config", netd::encodeWorkerConfig(*config, ids, 1, 1));
    peerEntry_ = ids.of(false, "peer-out");
    tell({.kind = netd::ControlKind::Config}, file.get());
    tell({.kind = listener}, dup(socket_.listener()));
    tell({.kind = netd::ControlKind::VaultLink}, vaultSocket_.connect());
    for (int i = 0; i < 4; ++i) loop_.turn(0);
  }

  void feed(const Input& input) {
    converse(loop_, socket_, input, [this] { serveOthers(); });
    serveOthers();
    for (const WireParty& party : parties_) {
      opened_ += party.opened();
      sealed_ += party.sealed();
    }
    parties_.clear();  // who lingers waits for them
    for (int i = 0; i < 3; ++i) loop_.turn(0);
    CHECK(stats_.get(netd::Counter::Channels) == 0);
    CHECK(stats_.get(netd::Counter::BufferBytes) == 0);
  }

  const netd::Stats& stats() const { return stats_; }
  // Frames of programs that a peer has opened, and frames for programs that it has sealed.
  size_t framesOut() const { return opened_; }
  size_t framesIn() const { return sealed_; }

 private:
  static constexpr std::string_view CONFIG = R"(
[[listen]]
name = "chat"
address = "127.0.0.1:7001"
key = "server"
allow = ["alice"]
service = "channel"

[[listen]]
name = "peers"
address = "127.0.0.1:7002"
protocol = "peer"
key = "block"
service = "channel"

[[connect]]
name = "peer-out"
address = "127.0.0.1:7002"
protocol = "peer"
key = "block"

[[connect]]
name = "out"
address = "127.0.0.1:7001"
key = "alice"
peer = "server"

[peers]
alice = "D6poTtKIZ7l/Smot7l34zpdOdrcBjj8iocTPJnhXDyA="
server = "UQ1lNB1tiMRWWyJbAxOWA9cr0gnykne8mfVO6F5xJS8="
)";

  int makeControl() {
    std::array<int, 2> ends;
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()) == 0);
    monitor_ = ends[0];
    return ends[1];
  }

  void tell(const netd::ControlRecord& record, int fd) {
    CHECK(sendDatagram(monitor_, std::as_bytes(std::span(&record, 1)), std::span(&fd, 1)));
    loop_.turn(0);
  }

  // The monitor, and whoever was dialled, until nothing moves: vault, wire and program take turns.
  void serveOthers() {
    answerDials();
    static constexpr int ROUNDS = 6;
    for (int round = 0; round < ROUNDS && !parties_.empty(); ++round) {
      for (WireParty& party : parties_) party.step();
      loop_.turn(0);
      answerDials();
    }
  }

  void dialled(const netd::ControlRecord& dial) {
    std::array<int, 2> ends;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()) == 0);
    parties_.emplace_back(ends[0]);
    tell({.kind = netd::ControlKind::Dialed, .request = dial.request}, ends[1]);
    close(ends[1]);
  }

  void answerDials() {
    std::array<std::byte, netd::MAX_CONTROL_BYTES> buffer;
    while (const auto datagram = receiveDatagram(monitor_, buffer)) {
      netd::ControlRecord record;
      CHECK(datagram->bytes >= sizeof record);
      std::memcpy(&record, buffer.data(), sizeof record);
      const bool known = record.kind == netd::ControlKind::Dial || record.kind == netd::ControlKind::ReloadRequest;
      if (!known) continue;
      if (record.kind == netd::ControlKind::Dial && record.target == peerEntry_) {
        dialled(record);
        continue;
      }
      const netd::ControlRecord answer = {.kind = record.kind == netd::ControlKind::Dial
                                                      ? netd::ControlKind::DialFailed
                                                      : netd::ControlKind::ReloadDone,
                                          .request = record.request};
      static_cast<void>(sendDatagram(monitor_, std::as_bytes(std::span(&answer, 1))));
      loop_.turn(0);
    }
  }

  EventLoop loop_;
  AbstractSocket socket_, vaultSocket_;
  int monitor_ = -1;
  uint32_t peerEntry_ = 0;
  std::list<WireParty> parties_;
  size_t opened_ = 0;
  size_t sealed_ = 0;
  netd::Stats& stats_;
  RpcServer vault_;
  netd::Worker worker_;
};

}  // namespace sallyport::fuzz
