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

// With the remedy at a start.
struct BindFailure {
  ConfigError problem;
  int error = 0;  // errno, or 0
};

BindFailure bindFailure(const std::string& address, const std::string& why, int error, unsigned line) {
  return {{.message = "can't listen on " + address + ": " + why, .line = line, .hint = {}}, error};
}

BindFailure tcpFailure(const std::string& address, int error, unsigned line) {
  BindFailure failure = bindFailure(address, std::strerror(error), error, line);
  std::string& hint = failure.problem.hint;
  if (error == EADDRINUSE) hint = "another program listens there: stop it, or choose another port";
  if (error == EACCES) hint = "ports below 1024 need root at start";
  if (error == EADDRNOTAVAIL) hint = "no interface of this host has that address";
  return failure;
}

BindFailure unixFailure(const UnixAddress& address, const ListenFailure& from, unsigned line) {
  BindFailure failure = bindFailure(toString(Address(address)), from.why, from.error, line);
  std::string& hint = failure.problem.hint;
  const std::string folder = address.path.parent_path().string();
  if (from.error == EADDRINUSE) hint = "stop the other program, remove what is in the way, or choose another path";
  if (from.error == EACCES) hint = "let the user who starts netd make files in " + folder + ", or choose another path";
  if (from.error == ENOENT) hint = "make the folder " + folder + " first";
  return failure;
}

// -1 and errno on failure.
int tcpListener(const NumericAddress& address, bool shared) {
  const int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  kj::AutoCloseFd owned(fd);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (shared) setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
  // Whatever the host's default is: [::] takes IPv4 too, as the check of a configuration says.
  const int off = 0;
  if (address.storage.ss_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  if (bind(fd, address.get(), address.length) != 0) {
    const int error = errno;
    owned = nullptr;
    errno = error;
    return -1;
  }
  return owned.release();
}

// What to do when netd has started already; empty: no more than at a start.
std::string adviceAfterStart(const Config& inForce, const Address& address, int error) {
  static constexpr const char* RESTART = "`systemctl restart sallyport-netd`, or `sallyport up` anew";
  if (error == EACCES || error == EPERM || error == EROFS)
    return std::string("what netd may bind was settled at its start: ") + RESTART;
  if (error != EADDRINUSE) return {};
  std::string owner;
  for (const ListenEntry& entry : inForce.listens) {
    if (collide(entry.address, address)) owner = "[[listen]] `" + entry.name + "`";
  }
  for (const ConnectEntry& entry : inForce.connects) {
    if (entry.listen && collide(*entry.listen, address)) owner = "[[connect]] `" + entry.name + "`";
  }
  if (owner.empty()) return {};
  return "netd itself listens there for " + owner + " until it is restarted: " + RESTART;
}

Result<std::vector<kj::AutoCloseFd>, BindFailure> bindAll(const Address& address, mode_t unixMode, unsigned workers,
                                                          unsigned line) {
  std::vector<kj::AutoCloseFd> sockets;
  const std::string text = toString(address);
  if (const auto* local = std::get_if<UnixAddress>(&address)) {
    const auto fd = tryListenUnix(local->path, unixMode, BACKLOG);
    if (!fd) return refuse(unixFailure(*local, fd.error(), line));
    sockets.emplace_back(*fd);
    return sockets;
  }
  const auto& tcp = std::get<TcpAddress>(address);
  const auto numeric = parseNumeric(tcp.host == "localhost" ? "127.0.0.1" : tcp.host, tcp.port);
  if (!numeric) {
    BindFailure failure = bindFailure(text, "a listening address is an address of this host, not a name", 0, line);
    failure.problem.hint = "write it as numbers, e.g. \"127.0.0.1:7001\" or \"[::]:7001\"";
    return refuse(std::move(failure));
  }
  // SO_REUSEPORT would let a second netd share the port in silence: the first bind is without it, and must succeed.
  const int probe = tcpListener(*numeric, false);
  if (probe < 0) return refuse(tcpFailure(text, errno, line));
  NumericAddress bound = *numeric;
  getsockname(probe, reinterpret_cast<sockaddr*>(&bound.storage), &bound.length);  // port 0 becomes the port chosen
  close(probe);
  for (unsigned i = 0; i < workers; ++i) {
    const int fd = tcpListener(bound, true);
    if (fd < 0) return refuse(tcpFailure(text, errno, line));
    sockets.emplace_back(fd);
    if (listen(fd, BACKLOG) != 0) return refuse(tcpFailure(text, errno, line));
  }
  return sockets;
}

}  // namespace

Result<std::vector<kj::AutoCloseFd>, ConfigError> bindListeners(const Address& address, mode_t unixMode,
                                                                unsigned workers, unsigned line,
                                                                const Config* inForce) {
  auto sockets = bindAll(address, unixMode, workers, line);
  if (sockets) return std::move(*sockets);
  ConfigError problem = sockets.error().problem;
  if (inForce != nullptr) {
    if (auto advice = adviceAfterStart(*inForce, address, sockets.error().error); !advice.empty())
      problem.hint = std::move(advice);
  }
  return refuse(std::move(problem));
}

}  // namespace sallyport::netd
