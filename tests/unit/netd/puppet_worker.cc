// puppet_worker.cc - a worker whose strings the test holds: it hands over its control socket and sleeps. Part of:
// tests. Built under the names of the programs that the monitor runs, beside the test that is its monitor
// (monitor_fixture.h).
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <string>

#include "common/fd_passing.h"

int main() {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const std::string name = "sallyport-puppets-" + std::to_string(getppid());
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  const int strings = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (connect(strings, reinterpret_cast<const sockaddr*>(&address), length) != 0) return 1;
  static constexpr int CONTROL_FD = 3;
  if (!sallyport::sendDatagram(strings, sallyport::asBytes("control"), std::span(&CONTROL_FD, 1))) return 1;
  close(CONTROL_FD);  // the test's is the only one
  while (true) pause();
}
