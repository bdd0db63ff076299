// worker_under_test.h - a whole netd-worker in the fuzzer's own process, with a monitor that refuses every dial.
// Part of: tests/fuzz.
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <kj/io.h>

#include "common/config.h"
#include "common/fd_passing.h"
#include "netd/control.h"
#include "netd/memory_file.h"
#include "netd/worker.h"
#include "netd/worker_config.h"
#include "tests/fuzz/socket_peer.h"

namespace sallyport::fuzz {

class WorkerUnderTest {
 public:
  // `listener`: how the worker gets `socket()`.
  explicit WorkerUnderTest(netd::ControlKind listener)
      : stats_(netd::Stats::map(netd::Stats::create())), worker_(loop_, makeControl(), stats_) {
    const auto config = parseConfig(CONFIG, "/etc/sallyport/sallyport.toml");
    CHECK(config.has_value());
    netd::EntryIds ids;
    kj::AutoCloseFd file = netd::writeMemoryFile("worker config", netd::encodeWorkerConfig(*config, ids, 1, 1));
    tell({.kind = netd::ControlKind::Config}, file.get());
    tell({.kind = listener}, dup(socket_.listener()));
    for (int i = 0; i < 4; ++i) loop_.turn(0);
  }

  void feed(const Input& input) {
    converse(loop_, socket_, input, [this] { answerDials(); });
    CHECK(stats_.get(netd::Counter::BufferBytes) == 0);
  }

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

  void answerDials() {
    std::array<std::byte, netd::MAX_CONTROL_BYTES> buffer;
    while (const auto datagram = receiveDatagram(monitor_, buffer)) {
      netd::ControlRecord record;
      CHECK(datagram->bytes >= sizeof record);
      std::memcpy(&record, buffer.data(), sizeof record);
      const bool known = record.kind == netd::ControlKind::Dial || record.kind == netd::ControlKind::ReloadRequest;
      if (!known) continue;
      const netd::ControlRecord answer = {.kind = record.kind == netd::ControlKind::Dial
                                                      ? netd::ControlKind::DialFailed
                                                      : netd::ControlKind::ReloadDone,
                                          .request = record.request};
      static_cast<void>(sendDatagram(monitor_, std::as_bytes(std::span(&answer, 1))));
      loop_.turn(0);
    }
  }

  EventLoop loop_;
  AbstractSocket socket_;
  int monitor_ = -1;
  netd::Stats& stats_;
  netd::Worker worker_;
};

}  // namespace sallyport::fuzz
