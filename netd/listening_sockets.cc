// listening_sockets.cc - see listening_sockets.h.
#include "netd/listening_sockets.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <kj/debug.h>

#include "common/rpc.h"
#include "netd/numeric_address.h"

namespace sallyport::netd {

std::optional<NumericAddress> parseNumeric(const std::string& host, uint16_t port) {
  NumericAddress address;
  auto& v4 = reinterpret_cast<sockaddr_in&>(address.storage);
  auto& v6 = reinterpret_cast<sockaddr_in6&>(address.storage);
  if (inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    address.length = sizeof v4;
    return address;
  }
  if (inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1) {
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    address.length = sizeof v6;
    return address;
  }
  return std::nullopt;
}

namespace {

constexpr int BACKLOG = 4096;

ConfigError bindError(const std::string& address, int error, unsigned line) {
  ConfigError problem{.message = "can't listen on " + address + ": " + std::strerror(error), .line = line, .hint = {}};
  if (error == EADDRINUSE) problem.hint = "another program listens there: stop it, or choose another port";
  if (error == EACCES) problem.hint = "ports below 1024 need root at start, and a restart rather than a reload";
  if (error == EADDRNOTAVAIL) problem.hint = "no interface of this host has that address";
  return problem;
}

// -1 and errno on failure.
int tcpListener(const NumericAddress& address, bool shared) {
  const int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  kj::AutoCloseFd owned(fd);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (shared) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  if (bind(fd, address.get(), address.length) != 0) {
    const int error = errno;
    owned = nullptr;
    errno = error;
    return -1;
  }
  return owned.release();
}

}  // namespace

Result<std::vector<kj::AutoCloseFd>, ConfigError> bindListeners(const Address& address, mode_t unixMode,
                                                                unsigned workers, unsigned line) {
  std::vector<kj::AutoCloseFd> sockets;
  const std::string text = toString(address);
  if (const auto* local = std::get_if<UnixAddress>(&address)) {
    try {
      sockets.emplace_back(listenUnix(local->path, unixMode, BACKLOG));
    } catch (const kj::Exception& e) {
      return refuse(ConfigError{
          .message = "can't listen on " + text + ": " + e.getDescription().cStr(), .line = line, .hint = {}});
    }
    return sockets;
  }
  const auto& tcp = std::get<TcpAddress>(address);
  const auto numeric = parseNumeric(tcp.host == "localhost" ? "127.0.0.1" : tcp.host, tcp.port);
  if (!numeric) {
    return refuse(ConfigError{
        .message = "can't listen on " + text + ": a listening address is an address of this host, not a name",
        .line = line,
        .hint = "write it as numbers, e.g. \"127.0.0.1:7001\" or \"[::]:7001\""});
  }
  // SO_REUSEPORT would let a second netd share the port in silence: the first bind is without it, and must succeed.
  const int probe = tcpListener(*numeric, false);
  if (probe < 0) return refuse(bindError(text, errno, line));
  NumericAddress bound = *numeric;
  getsockname(probe, reinterpret_cast<sockaddr*>(&bound.storage), &bound.length);  // port 0 becomes the port chosen
  close(probe);
  for (unsigned i = 0; i < workers; ++i) {
    const int fd = tcpListener(bound, true);
    if (fd < 0) return refuse(bindError(text, errno, line));
    sockets.emplace_back(fd);
    if (listen(fd, BACKLOG) != 0) return refuse(bindError(text, errno, line));
  }
  return sockets;
}

}  // namespace sallyport::netd
