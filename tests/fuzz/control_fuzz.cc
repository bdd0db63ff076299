// Goal: a worker's datagrams, whatever they hold, reach the monitor as whole records with their bounds, or end the
// channel.
// Method: the input is a script of datagrams (with and without descriptors) into a ControlChannel over a socket pair.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/event_loop.h"
#include "common/fd_passing.h"
#include "netd/control.h"
#include "tests/fuzz/input.h"

using namespace sallyport;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static EventLoop loop;
  static const int spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
  fuzz::Input input(data, size);
  std::array<int, 2> ends;
  CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()) == 0);
  bool gone = false;
  size_t sent = 0, records = 0;
  {
    netd::ControlChannel channel(
        loop, ends[0], 1024,
        [&](netd::ControlChannel::Received& received) {
          CHECK(!gone);
          CHECK(received.payload.size() <= netd::MAX_CONTROL_BYTES - sizeof(netd::ControlRecord));
          CHECK(received.fds.size() <= MAX_PASSED_FDS);
          uint8_t sum = 0;  // every byte of the payload is there
          for (const std::byte b : received.payload) sum ^= static_cast<uint8_t>(b);
          if (sum == 1) channel.send({.kind = netd::ControlKind::Drain}, received.payload);
          ++records;
        },
        [&] { gone = true; });
    while (!input.empty() && !gone) {
      const uint8_t how = input.byte();
      const size_t bytes = (how & 1) != 0 ? input.word() : input.byte();
      const auto datagram = (how & 2) != 0 ? std::vector<std::byte>(bytes) : input.block(bytes);
      if (!datagram.empty()) {
        std::array<int, MAX_PASSED_FDS> fds;
        fds.fill(spare);
        if (sendDatagram(ends[1], datagram, std::span(fds).first((how >> 2) % 4))) ++sent;
      }
      if ((how & 64) != 0) shutdown(ends[1], SHUT_WR);
      loop.turn(0);
    }
    loop.turn(0);
    CHECK(records <= sent);
  }
  close(ends[1]);
  loop.turn(0);
  return 0;
}
