// fd_passing.cc - see fd_passing.h.
#include "common/fd_passing.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

namespace sallyport {

bool sendDatagram(int socket, ByteSpan data, std::span<const int> fds) {
  CHECK(fds.size() <= MAX_PASSED_FDS);
  iovec part{.iov_base = const_cast<std::byte*>(data.data()), .iov_len = data.size()};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * MAX_PASSED_FDS)> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  }
  ssize_t sent;
  do sent = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (sent < 0 && errno == EINTR);
  return sent == static_cast<ssize_t>(data.size());
}

std::optional<ReceivedDatagram> receiveDatagram(int socket, MutableByteSpan buffer) {
  iovec part{.iov_base = buffer.data(), .iov_len = buffer.size()};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * MAX_PASSED_FDS)> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t got;
  do got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got < 0) {
    if (errno == EAGAIN) return std::nullopt;
    return ReceivedDatagram{};  // as good as gone
  }
  ReceivedDatagram result;
  result.bytes = static_cast<size_t>(got);
  result.truncated = (message.msg_flags & MSG_TRUNC) != 0;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count && result.fdCount < MAX_PASSED_FDS; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
      result.fds[result.fdCount++] = kj::AutoCloseFd(fd);
    }
  }
  return result;
}

}  // namespace sallyport
