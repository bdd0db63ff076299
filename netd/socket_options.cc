// socket_options.cc - see socket_options.h. Failures are ignored on purpose: a Unix socket refuses TCP options, and no
// option is vital.
#include "netd/socket_options.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

namespace sallyport::netd {

namespace {
void setOption(int fd, int level, int option, int value) { setsockopt(fd, level, option, &value, sizeof value); }
}  // namespace

void setNoDelay(int fd) { setOption(fd, IPPROTO_TCP, TCP_NODELAY, 1); }

void setLiveness(int fd, const WorkerLimits& limits) {
  if (limits.keepaliveS != 0) {
    setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    setOption(fd, IPPROTO_TCP, TCP_KEEPIDLE, static_cast<int>(limits.keepaliveS));
    setOption(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10);
    setOption(fd, IPPROTO_TCP, TCP_KEEPCNT, 6);
  }
}

Hearing hearingOf(int fd) {
  tcp_info info{};
  socklen_t length = sizeof info;
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return {};
  return {.asked = info.tcpi_retransmits > 0 || info.tcpi_probes > 0, .silentMs = info.tcpi_last_ack_recv};
}

void setForAccepted(int listener, bool wire, const WorkerLimits& limits) {
  setNoDelay(listener);
  setOption(listener, SOL_SOCKET, SO_KEEPALIVE, 0);  // of a configuration before this one, perhaps of another entry
  if (wire) setLiveness(listener, limits);
}

void setAbruptClose(int fd) {
  const linger now{.l_onoff = 1, .l_linger = 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

void setGentleClose(int fd) {
  const linger off{.l_onoff = 0, .l_linger = 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &off, sizeof off);
}

void closeWithReset(int fd) {
  setAbruptClose(fd);
  close(fd);
}

}  // namespace sallyport::netd
