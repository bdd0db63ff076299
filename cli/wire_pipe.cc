// wire_pipe.cc - see wire_pipe.h.
#include "cli/wire_pipe.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include <kj/io.h>

#include "cli/terminal.h"
#include "common/rpc.h"

namespace sallyport::cli {

namespace {

// Of one direction: what was read and not yet written.
struct Flow {
  int from;
  int to;
  std::array<std::byte, 64 * 1024> buffer;
  size_t start = 0;
  size_t end = 0;
  bool readEnded = false;
  bool over = false;

  bool wantsRead() const { return !readEnded && end == 0; }
  bool wantsWrite() const { return end > 0; }
};

bool isPause(int error) { return error == EAGAIN || error == EINTR; }

// Where a program on this host reaches the entry: a wildcard address is its loopback.
int dial(const Address& address) {
  if (const auto* local = std::get_if<UnixAddress>(&address)) return connectUnix(local->path);
  const auto& tcp = std::get<TcpAddress>(address);
  std::string host = tcp.host;
  if (host == "0.0.0.0" || host == "localhost") host = "127.0.0.1";
  if (host == "::") host = "::1";
  sockaddr_storage storage{};
  auto& v4 = reinterpret_cast<sockaddr_in&>(storage);
  auto& v6 = reinterpret_cast<sockaddr_in6&>(storage);
  socklen_t length = sizeof v4;
  if (inet_pton(AF_INET, host.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(tcp.port);
  } else if (inet_pton(AF_INET6, host.c_str(), &v6.sin6_addr) == 1) {
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(tcp.port);
    length = sizeof v6;
  } else {
    errno = EADDRNOTAVAIL;
    return -1;
  }
  const int fd = socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (connect(fd, reinterpret_cast<const sockaddr*>(&storage), length) == 0) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

// One step of a direction that poll() says is ready. Empty, or what went wrong.
std::string move(Flow& flow, bool readable, bool writable) {
  if (flow.wantsRead() && readable) {
    const ssize_t got = read(flow.from, flow.buffer.data(), flow.buffer.size());
    if (got < 0 && !isPause(errno)) return std::string("reading failed: ") + std::strerror(errno);
    if (got == 0) flow.readEnded = true;
    if (got > 0) flow.end = static_cast<size_t>(got);
  } else if (flow.wantsWrite() && writable) {
    const ssize_t sent = write(flow.to, flow.buffer.data() + flow.start, flow.end - flow.start);
    if (sent < 0 && !isPause(errno)) return std::string("writing failed: ") + std::strerror(errno);
    if (sent > 0) flow.start += static_cast<size_t>(sent);
    if (flow.start == flow.end) flow.start = flow.end = 0;
  }
  if (flow.readEnded && flow.end == 0 && !flow.over) {
    flow.over = true;
    // The other side is to see the end: a socket is half-closed. If it is reset already, reading tells so. A standard
    // output that is no socket is closed by the end of this process, which follows.
    shutdown(flow.to, SHUT_WR);
  }
  return {};
}

std::string copyBothWays(int socketFd) {
  auto up = std::make_unique<Flow>(Flow{.from = STDIN_FILENO, .to = socketFd, .buffer = {}});
  auto down = std::make_unique<Flow>(Flow{.from = socketFd, .to = STDOUT_FILENO, .buffer = {}});
  // The peer's end is the end: without it nobody reads what we would still send.
  while (!down->over) {
    std::array<pollfd, 4> polled = {{{up->wantsRead() ? up->from : -1, POLLIN, 0},
                                     {up->wantsWrite() ? up->to : -1, POLLOUT, 0},
                                     {down->wantsRead() ? down->from : -1, POLLIN, 0},
                                     {down->wantsWrite() ? down->to : -1, POLLOUT, 0}}};
    if (poll(polled.data(), polled.size(), -1) < 0 && errno != EINTR) return std::strerror(errno);
    if (auto problem = move(*up, polled[0].revents != 0, polled[1].revents != 0); !problem.empty()) return problem;
    if (auto problem = move(*down, polled[2].revents != 0, polled[3].revents != 0); !problem.empty()) return problem;
  }
  return {};
}

}  // namespace

int pipeWire(const Config& config, const std::string& name) {
  const ListenEntry* entry = config.findListen(name);
  if (entry == nullptr)
    return fail("there is no [[listen]] entry `" + name + "`", "--wire is for the side that listens");
  int fd = -1;
  std::string problem;
  try {
    fd = dial(entry->address);
    if (fd < 0) problem = std::strerror(errno);
  } catch (const kj::Exception& e) { problem = e.getDescription().cStr(); }
  if (fd < 0) return fail("can't connect to " + toString(entry->address) + ": " + problem, "is netd up?");
  const kj::AutoCloseFd socketFd(fd);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  problem = copyBothWays(socketFd);
  return problem.empty() ? EXIT_DONE : fail("`" + name + "`: " + problem);
}

}  // namespace sallyport::cli
