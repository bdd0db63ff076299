// Goal: after lock-down a module reaches its token and nothing else; each call that it isn't allowed is refused,
// counted, and harmless. Method: the worker's own lockDown() in a child that then tries; the test plays the keeper,
// which answers the kernel's notifications.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <thread>

#include "hsmd/lockdown.h"
#include "tests/unit/sanitized.h"
#include "tests/unit/temporary_folder.h"

namespace sallyport::hsmd {
namespace {

// What the child and the keeper in us have come to.
struct Outcome {
  std::string text;  // of the child: empty if all went as it should
  uint64_t refused = 0;
  bool counted = false;  // there was a descriptor to count on
  int status = 0;
};

int receiveListener(int socket) {
  hsm::ControlFrame frame;
  iovec part{.iov_base = frame.data(), .iov_len = frame.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> space{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = space.data();
  message.msg_controllen = space.size();
  if (recvmsg(socket, &message, 0) <= 0) return -1;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  int fd = -1;
  if (header != nullptr) std::memcpy(&fd, CMSG_DATA(header), sizeof fd);
  return fd;
}

Outcome lockedDown(const WorkerSettings& settings, const std::function<std::string()>& tries) {
  std::array<int, 2> birth;
  std::array<int, 2> report;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, birth.data()) != 0 || pipe(report.data()) != 0) return {.text = "sockets"};
  const pid_t child = fork();
  if (child == 0) {
    close(birth[0]);
    close(report[0]);
    std::string text;
    if (!lockDown(Birth(birth[1], 1), settings, hsm::Status::Ok, true)) {
      text = "no lock-down";
    } else {
      text = tries();
    }
    (void)!write(report[1], text.data(), text.size());
    _exit(0);
  }
  close(birth[1]);
  close(report[1]);
  Outcome outcome;
  // The first frame has the descriptor, or there is none.
  const int listener = receiveListener(birth[0]);
  outcome.counted = listener >= 0;
  while (true) {
    std::array<pollfd, 2> waits{
        {{.fd = report[0], .events = POLLIN, .revents = 0}, {.fd = listener, .events = POLLIN, .revents = 0}}};
    if (poll(waits.data(), waits.size(), 60'000) <= 0) break;
    if ((waits[1].revents & POLLIN) != 0) {
      seccomp_notif call{};
      if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) continue;
      ++outcome.refused;
      seccomp_notif_resp answer{.id = call.id, .val = 0, .error = -EPERM, .flags = 0};
      ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
    if (waits[0].revents != 0) {
      std::array<char, 4096> buffer;
      const ssize_t got = read(report[0], buffer.data(), buffer.size());
      if (got <= 0) break;
      outcome.text.append(buffer.data(), static_cast<size_t>(got));
    }
  }
  if (listener >= 0) close(listener);
  close(birth[0]);
  close(report[0]);
  waitpid(child, &outcome.status, 0);
  return outcome;
}

struct Forbidden {
  const char* what;
  std::function<long()> call;
};

std::vector<Forbidden> forbiddenToAll() {
  return {
      {"execve", [] { return execl("/bin/true", "true", nullptr); }},
      {"fork", [] { return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }},
      {"namespaces", [] { return syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0); }},
      {"ptrace", [] { return ptrace(PTRACE_TRACEME, 0, nullptr, nullptr); }},
      {"mount", [] { return mount("none", "/tmp", "tmpfs", 0, nullptr); }},
      {"bpf", [] { return syscall(SYS_bpf, 0, nullptr, 0); }},
      {"process_vm_readv", [] { return syscall(SYS_process_vm_readv, getppid(), nullptr, 0, nullptr, 0, 0); }},
      {"memfd_create", [] { return memfd_create("x", 0); }},
      {"kill", [] { return kill(getpid() + 1, SIGTERM); }},
      {"setuid", [] { return setuid(0); }},
      {"executable memory",
       [] {
         void* made = mmap(nullptr, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
         return made == MAP_FAILED ? -1L : 0L;
       }},
      {"memory made executable",
       [] {
         void* made = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
         return made == MAP_FAILED ? 0L : mprotect(made, 4096, PROT_READ | PROT_EXEC);
       }},
      {"listen", [] { return listen(0, 1); }},
      {"io_uring", [] { return syscall(SYS_io_uring_setup, 1, nullptr); }},
  };
}

std::string tryAll(const std::vector<Forbidden>& forbidden) {
  std::string text;
  for (const Forbidden& one : forbidden) {
    errno = 0;
    if (one.call() >= 0) {
      text += std::string(one.what) + " worked\n";
    } else if (errno != EPERM && errno != EACCES) {
      text += std::string(one.what) + ": " + std::strerror(errno) + "\n";
    }
  }
  return text;
}

WorkerSettings settingsFor(ModuleProfile profile, const std::filesystem::path& writable) {
  WorkerSettings settings;
  settings.profile = profile;
  settings.requirement = SandboxRequirement::Available;
  settings.writePaths = {writable.string()};
  return settings;
}

class LockedModule : public testing::TestWithParam<ModuleProfile> {
 protected:
  test::TemporaryFolder token_;
  test::TemporaryFolder elsewhere_;
  LockedModule() {
    if (geteuid() != 0) return;
    // lockDown() leaves root behind.
    for (const auto& path : {token_.path(), elsewhere_.path()})
      EXPECT_EQ(chown(path.c_str(), sandbox::FALLBACK_HSM_ID, sandbox::FALLBACK_HSM_ID), 0);
  }
};

TEST_P(LockedModule, IsRefusedEachForbiddenCallAndCounted) {
  const auto outcome = lockedDown(settingsFor(GetParam(), token_.path()), [] { return tryAll(forbiddenToAll()); });
  EXPECT_EQ(outcome.text, "");
  EXPECT_EQ(outcome.status, 0) << "refused, not killed";
  if (!outcome.counted) GTEST_SKIP() << "no notifications here: refused, but not counted";
  EXPECT_GE(outcome.refused, forbiddenToAll().size() - 2) << "all but those that another layer refuses first";
}

TEST_P(LockedModule, ReachesItsTokenAndNothingElse) {
  const auto inside = token_.path() / "object";
  const auto outside = elsewhere_.path() / "object";
  const auto outcome = lockedDown(settingsFor(GetParam(), token_.path()), [&] {
    std::string text;
    const int made = open(inside.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (made < 0 || write(made, "x", 1) != 1 || ftruncate(made, 0) != 0) text += "the token can't be written\n";
    if (unlink(inside.c_str()) != 0) text += "a journal can't be removed\n";
    if (open(outside.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600) >= 0) text += "a file was made elsewhere\n";
    if (open("/root", O_RDONLY | O_CLOEXEC | O_DIRECTORY) >= 0) text += "/root was opened\n";
    if (open("/proc/1/environ", O_RDONLY | O_CLOEXEC) >= 0) text += "/proc was opened\n";
    return text;
  });
  EXPECT_EQ(outcome.text, "");
}

TEST_P(LockedModule, MayHaveThreads) {
  const auto outcome = lockedDown(settingsFor(GetParam(), token_.path()), [] {
    bool ran = false;
    std::thread([&ran] { ran = true; }).join();
    return std::string(ran ? "" : "no thread");
  });
  EXPECT_EQ(outcome.text, "");
  if (!test::SANITIZED) { EXPECT_EQ(outcome.refused, 0U) << "its start is all in the policy"; }
}

TEST_P(LockedModule, HasANetworkByItsProfileAlone) {
  const bool network = GetParam() == ModuleProfile::Network || GetParam() == ModuleProfile::YubiHsmConnector;
  const bool local = network || GetParam() == ModuleProfile::Tpm2 || GetParam() == ModuleProfile::Pcscd;
  const auto outcome = lockedDown(settingsFor(GetParam(), token_.path()), [&] {
    std::string text;
    for (const int family : {AF_INET, AF_INET6}) {
      if ((socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0) >= 0) != network) text += "internet sockets\n";
    }
    if ((socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) >= 0) != local) text += "unix sockets\n";
    if (socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0) >= 0) text += "packet sockets\n";
    return text;
  });
  EXPECT_EQ(outcome.text, "");
}

INSTANTIATE_TEST_SUITE_P(EachProfile, LockedModule,
                         testing::Values(ModuleProfile::SoftHsm, ModuleProfile::Nss, ModuleProfile::Tpm2,
                                         ModuleProfile::Pcscd, ModuleProfile::YubiHsmConnector, ModuleProfile::Network,
                                         ModuleProfile::Custom),
                         [](const auto& one) {
                           std::string text(name(one.param));
                           std::erase(text, '-');
                           return text;
                         });

}  // namespace
}  // namespace sallyport::hsmd
