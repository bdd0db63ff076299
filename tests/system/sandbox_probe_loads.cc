// sandbox_probe_loads.cc - what each kind of daemon must still be able to do when it is locked down. Part of: tests.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <vector>

#include "common/fd_passing.h"
#include "tests/system/sandbox_probe.h"

namespace sallyport::probe {

namespace {

int stateFd = -1;   // a nonce file
int listenFd = -1;  // a TCP listener on loopback
int clientFd = -1;  // connected to it, not yet accepted
int epollFd = -1;
int control[2] = {-1, -1};

std::string failed(const char* what) { return std::string(what) + ": " + std::strerror(errno); }

std::string useMemory() {
  for (size_t bytes : {size_t{100}, size_t{100'000}, size_t{10'000'000}}) {
    std::vector<char> data(bytes, 'x');
    data.resize(bytes * 3);
    if (data[bytes - 1] != 'x') return "memory lost";
  }
  void* grown = std::malloc(1 << 20);
  grown = std::realloc(grown, 64 << 20);  // mremap
  if (grown == nullptr) return failed("realloc");
  std::memset(grown, 1, 1 << 20);
  std::free(grown);
  try {
    throw std::runtime_error("as a daemon may");
  } catch (const std::exception&) {}
  std::array<char, 32> random{};
  if (getrandom(random.data(), random.size(), 0) != 32) return failed("getrandom");
  return {};
}

std::string serveOneClient() {
  epoll_event event{.events = EPOLLIN, .data = {.fd = listenFd}};
  if (epoll_ctl(epollFd, EPOLL_CTL_ADD, listenFd, &event) != 0) return failed("epoll_ctl");
  if (epoll_wait(epollFd, &event, 1, 1000) != 1) return failed("epoll_wait");
  const int fd = accept4(listenFd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return failed("accept4");
  char byte = 'a';
  if (send(clientFd, &byte, 1, MSG_NOSIGNAL) != 1 || read(fd, &byte, 1) != 1) return failed("send and read");
  iovec parts[] = {{&byte, 1}, {&byte, 1}};
  if (writev(clientFd, parts, 2) != 2 || readv(fd, parts, 2) != 2) return failed("writev and readv");
  if (write(clientFd, &byte, 1) != 1 || recv(fd, &byte, 1, MSG_DONTWAIT) != 1) return failed("write and recv");
  if (shutdown(fd, SHUT_WR) != 0) return failed("shutdown");
  close(fd);
  return {};
}

std::string tuneSockets() {
  const int on = 1;
  const linger reset{.l_onoff = 1, .l_linger = 0};
  for (int option : {TCP_NODELAY, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT}) {
    if (setsockopt(clientFd, IPPROTO_TCP, option, &on, sizeof on) != 0) return failed("setsockopt tcp");
  }
  if (setsockopt(clientFd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) != 0) return failed("SO_KEEPALIVE");
  if (setsockopt(clientFd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) != 0) return failed("SO_LINGER");
  int error = 0;
  socklen_t size = sizeof error;
  if (getsockopt(clientFd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return failed("SO_ERROR");
  tcp_info info{};
  size = sizeof info;
  if (getsockopt(clientFd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return failed("TCP_INFO");
  return {};
}

std::string passSocket() {
  const std::array<std::byte, 8> data{};
  const int fds[] = {clientFd};
  if (!sendDatagram(control[0], data, fds)) return failed("sendmsg");
  std::array<std::byte, 64> buffer{};
  const auto received = receiveDatagram(control[1], buffer);
  if (!received || received->bytes != 8 || received->fdCount != 1) return failed("recvmsg");
  return {};
}

std::string runSelf(const char* mode) {
  const std::string program = ownProgram();
  char* const arguments[] = {const_cast<char*>(program.c_str()), const_cast<char*>(mode), nullptr};
  char* const environment[] = {nullptr};
  pid_t child = -1;
  if (const int error = posix_spawn(&child, program.c_str(), nullptr, nullptr, arguments, environment); error != 0) {
    errno = error;
    return failed("posix_spawn");
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child) return failed("waitpid");
  if (status != 0) return std::string(mode) + " " + sandbox::explainExit(status, child);
  return {};
}

std::string firstProblem(std::initializer_list<std::string> problems) {
  for (const std::string& problem : problems) {
    if (!problem.empty()) return problem;
  }
  return {};
}

std::string useStateFile() {
  std::array<char, 4096> slot{};
  if (pwrite(stateFd, slot.data(), slot.size(), 4096) != 4096 || fdatasync(stateFd) != 0)
    return failed("pwrite and fdatasync");
  if (pread(stateFd, slot.data(), slot.size(), 4096) != 4096) return failed("pread");
  return {};
}

}  // namespace

void prepareLoads() {
  char path[] = "/tmp/sandbox-probe-state-XXXXXX";
  stateFd = mkostemp(path, O_CLOEXEC);
  unlink(path);
  listenFd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(listenFd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || listen(listenFd, 16) != 0)
    std::exit(2);
  getsockname(listenFd, reinterpret_cast<sockaddr*>(&address), &size);
  clientFd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(clientFd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) std::exit(2);
  epollFd = epoll_create1(EPOLL_CLOEXEC);
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) != 0) std::exit(2);
}

std::string vaultLoad() { return firstProblem({useMemory(), useStateFile(), serveOneClient()}); }

std::string workerLoad() { return firstProblem({useMemory(), serveOneClient(), tuneSockets(), passSocket()}); }

std::string monitorLoad() {
  if (std::string problem = firstProblem({useMemory(), serveOneClient(), tuneSockets(), passSocket()});
      !problem.empty())
    return problem;
  // A new listener after a reload, and dialling it.
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 || listen(listener, 1) != 0)
    return failed("bind");
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  const int dialled = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(dialled, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return failed("connect");
  const int memory = memfd_create("probe", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (memory < 0 || ftruncate(memory, 4096) != 0) return failed("memfd_create");
  if (fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) return failed("F_ADD_SEALS");
  return firstProblem({runSelf(CHILD_WORKER), runSelf(CHILD_RESOLVER)});
}

std::string resolverLoad() {
  // A name that needs no network; and one that can't be had, which must be an answer and not a kill.
  for (const char* host : {"localhost", "sallyport-probe.invalid"}) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_ADDRCONFIG;
    addrinfo* found = nullptr;
    const int error = getaddrinfo(host, "80", &hints, &found);
    if (found != nullptr) freeaddrinfo(found);
    if (error != 0 && std::string_view(host) == "localhost") return std::string("getaddrinfo: ") + gai_strerror(error);
  }
  return {};
}

}  // namespace sallyport::probe
