// socket_peer.h - a listening socket for a server under test, and a client that sends it a fuzzer's bytes in pieces.
// Part of: tests/fuzz.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "common/event_loop.h"
#include "tests/fuzz/input.h"

namespace sallyport::fuzz {

// A socket without a file: its name is chosen by the kernel.
class AbstractSocket {
 public:
  AbstractSocket() {
    listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    sockaddr_un any{};
    any.sun_family = AF_UNIX;
    CHECK(listener_ >= 0 && bind(listener_, reinterpret_cast<sockaddr*>(&any), sizeof any.sun_family) == 0);
    CHECK(listen(listener_, 64) == 0);
    length_ = sizeof address_;
    CHECK(getsockname(listener_, reinterpret_cast<sockaddr*>(&address_), &length_) == 0);
  }
  int listener() const { return listener_; }
  int connect() const {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && ::connect(fd, reinterpret_cast<const sockaddr*>(&address_), length_) == 0);
    return fd;
  }

 private:
  int listener_ = -1;
  sockaddr_un address_{};
  socklen_t length_ = 0;
};

// The first byte says how: the size of pieces, whether answers are read, whether the end is told before it comes. With
// 16 in its upper half a moment passes before the end, in which short times run out. `between` runs after each piece.
template <typename Between>
void converse(EventLoop& loop, const AbstractSocket& socket, Input input, Between&& between) {
  const uint8_t mode = input.byte();
  const size_t piece = std::array<size_t, 4>{11, 100, 1500, 1000000}[mode % 4];
  const int fd = socket.connect();
  loop.turn(0);
  std::array<char, 65536> sink;
  while (!input.empty()) {
    const ByteSpan bytes = input.take(piece);
    if (send(fd, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) break;
    loop.turn(0);
    between();
    if ((mode & 4) == 0) static_cast<void>(recv(fd, sink.data(), sink.size(), MSG_DONTWAIT));
  }
  for (int i = 0; i < 3; ++i) loop.turn(0);
  between();
  if ((mode & 0xf0) == 16) {
    usleep(2000);
    for (int i = 0; i < 3; ++i) loop.turn(0);
  }
  if ((mode & 8) != 0) {
    shutdown(fd, SHUT_WR);
    for (int i = 0; i < 3; ++i) loop.turn(0);
  }
  close(fd);
  for (int i = 0; i < 3; ++i) loop.turn(0);
  between();
}

}  // namespace sallyport::fuzz
