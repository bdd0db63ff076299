// fd_passing.h - datagrams with file descriptors between the processes of one daemon. Part of: common (netd's monitor
// and workers). One plain sendmsg/recvmsg on a SOCK_SEQPACKET socketpair; descriptors never travel through Cap'n Proto:
// 0.9.2 can send a wrong one.
#pragma once

#include <array>
#include <optional>
#include <span>

#include <kj/io.h>

#include "common/bytes.h"

namespace sallyport {

inline constexpr size_t MAX_PASSED_FDS = 64;

struct ReceivedDatagram {
  size_t bytes = 0;  // 0: the other side is gone
  std::array<kj::AutoCloseFd, MAX_PASSED_FDS> fds;
  size_t fdCount = 0;
  bool truncated =
      false;  // larger than the buffer: don't use it. Lost descriptors (this process has no room) are just missing
};

// False if the socket's queue is full or the other side is gone; the descriptors stay the caller's.
bool sendDatagram(int socket, ByteSpan data, std::span<const int> fds = {});
// Nothing: no datagram is waiting. Descriptors are close-on-exec and closed with the result.
std::optional<ReceivedDatagram> receiveDatagram(int socket, MutableByteSpan buffer);

}  // namespace sallyport
