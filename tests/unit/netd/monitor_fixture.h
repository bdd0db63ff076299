// monitor_fixture.h - a whole netd monitor in the test's own loop, whose workers are puppets of the test
// (puppet_worker.cc): the test says what a worker says, and sees what it is handed. Part of: tests.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include <kj/io.h>

#include "common/fd_passing.h"
#include "common/rpc.h"
#include "netd/control.h"
#include "netd/monitor.h"
#include "netd/sandbox_report.h"
#include "tests/unit/temporary_folder.h"

namespace sallyport::netd::test {

namespace fs = std::filesystem;

struct Told {
  ControlRecord record;
  std::vector<kj::AutoCloseFd> fds;
};

// A worker process, held by its control socket.
struct Puppet {
  pid_t pid = 0;
  kj::AutoCloseFd control;

  // False when the monitor can't be told any more, or doesn't take more now.
  bool say(const ControlRecord& record, ByteSpan payload = {}, kj::AutoCloseFd fd = {}) const {
    std::vector<std::byte> bytes(sizeof record + payload.size());
    std::memcpy(bytes.data(), &record, sizeof record);
    std::ranges::copy(payload, bytes.begin() + sizeof record);
    const int passed = fd;
    return sendDatagram(control, bytes, std::span(&passed, passed < 0 ? 0 : 1));
  }
  // What it was told since the last call.
  std::vector<Told> hear() const {
    std::vector<Told> all;
    std::array<std::byte, MAX_CONTROL_BYTES> buffer;
    while (auto datagram = receiveDatagram(control, buffer)) {
      if (datagram->bytes < sizeof(ControlRecord)) break;
      Told told;
      std::memcpy(&told.record, buffer.data(), sizeof told.record);
      for (size_t i = 0; i < datagram->fdCount; ++i) told.fds.push_back(kj::mv(datagram->fds[i]));
      all.push_back(kj::mv(told));
    }
    return all;
  }
};

inline size_t openDescriptors() {
  return static_cast<size_t>(std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator()));
}

inline bool accepts(int socket) {
  int on = 0;
  socklen_t length = sizeof on;
  if (getsockopt(socket, SOL_SOCKET, SO_ACCEPTCONN, &on, &length) != 0 || on == 0) return false;
  pollfd end{.fd = socket, .events = POLLRDHUP, .revents = 0};
  return poll(&end, 1, 0) == 0;
}

class MonitorTest : public testing::Test {
 protected:
  MonitorTest() {
    setpgid(0, 0);  // a monitor that signals its whole group would take meson and the rest with it
    const std::string name = "sallyport-puppets-" + std::to_string(getpid());
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path + 1, name.data(), name.size());
    strings = kj::AutoCloseFd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    EXPECT_EQ(bind(strings, reinterpret_cast<const sockaddr*>(&address),
                   static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size())),
              0);
    EXPECT_EQ(listen(strings, 16), 0);
  }
  ~MonitorTest() noexcept override {
    monitor.reset();
    while (waitpid(-1, nullptr, 0) > 0) {}
  }

  // With a listen entry to a service, a connect entry to `host` with a plain side, [net] socket and a metrics page.
  void start(unsigned workers = 1, const std::string& host = "127.0.0.1") {
    vault = kj::AutoCloseFd(listenUnix(folder / "vault-net.sock", 0600));
    const std::string text = "[vault]\nsocket = \"" + (folder / "vault.sock").string() + "\"\n[net]\nsocket = \"" +
                             (folder / "net.sock").string() +
                             "\"\nmetrics = \"unix:" + (folder / "metrics.sock").string() +
                             "\"\nworkers = " + std::to_string(workers) + R"(
[[listen]]
name = "db"
address = "127.0.0.1:)" + std::to_string(freePort()) +
                             R"("
key = "server"
allow = ["alice"]
service = "tcp:127.0.0.1:9"

[[connect]]
name = "out"
listen = "unix:)" + (folder / "out.sock").string() +
                             R"("
address = ")" + host + R"(:9"
key = "alice"
peer = "server"

[peers]
alice = "D6poTtKIZ7l/Smot7l34zpdOdrcBjj8iocTPJnhXDyA="
server = "UQ1lNB1tiMRWWyJbAxOWA9cr0gnykne8mfVO6F5xJS8="
)";
    std::ofstream(folder / "sallyport.toml") << text;
    auto config = parseConfig(text, folder / "sallyport.toml");
    ASSERT_TRUE(config.has_value()) << config.error().message;
    monitor.emplace(loop, std::move(*config));
    auto opened = monitor->openListeners();
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
    monitor->start({});
  }
  // The next worker that the monitor starts.
  Puppet nextWorker() {
    Puppet puppet;
    kj::AutoCloseFd held;
    EXPECT_TRUE(until([&] {
      if (held.get() < 0) held = kj::AutoCloseFd(accept4(strings, nullptr, nullptr, SOCK_CLOEXEC));
      if (held.get() < 0) return false;
      puppet.pid = peerCredentials(held).pid;
      std::array<std::byte, 16> buffer;
      auto datagram = receiveDatagram(held, buffer);
      if (datagram && datagram->fdCount == 1) puppet.control = kj::mv(datagram->fds[0]);
      return puppet.control.get() >= 0;
    })) << "no worker was started";
    return puppet;
  }
  // Started, and equipped: what it was handed.
  std::vector<Told> equip(const Puppet& puppet) {
    EXPECT_TRUE(puppet.say({.kind = ControlKind::Ready}, asBytes("none\n")));
    turns();
    return puppet.hear();
  }
  // It has ended and nobody has taken note yet.
  [[nodiscard]] bool hasEnded(const Puppet& puppet) const {
    siginfo_t info{};
    return waitid(P_PID, static_cast<id_t>(puppet.pid), &info, WEXITED | WNOWAIT | WNOHANG) == 0 &&
           info.si_pid == puppet.pid;
  }
  [[nodiscard]] bool ends(const Puppet& puppet) {
    return until([&] { return hasEnded(puppet); });
  }
  // Without a turn of the loop: what it said before is not read yet.
  void endNow(const Puppet& puppet) {
    kill(puppet.pid, SIGKILL);
    siginfo_t info{};
    EXPECT_EQ(waitid(P_PID, static_cast<id_t>(puppet.pid), &info, WEXITED | WNOWAIT), 0);
  }

  void turns(int count = 10) {
    for (int i = 0; i < count; ++i) loop.turn(1);
  }
  template <typename Condition>
  [[nodiscard]] bool until(Condition&& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      loop.turn(5);
    }
    return true;
  }

  EventLoop loop;
  sallyport::test::TemporaryFolder temporary;
  const fs::path& folder = temporary.path();
  kj::AutoCloseFd strings;
  kj::AutoCloseFd vault;
  std::optional<Monitor> monitor;

 private:
  static int freePort() {
    const kj::AutoCloseFd probe(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    EXPECT_EQ(bind(probe, reinterpret_cast<const sockaddr*>(&address), length), 0);
    EXPECT_EQ(getsockname(probe, reinterpret_cast<sockaddr*>(&address), &length), 0);
    return ntohs(address.sin_port);
  }
};

}  // namespace sallyport::netd::test
