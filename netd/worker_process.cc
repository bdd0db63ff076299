// worker_process.cc - see worker_process.h.
#include "netd/worker_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>

#include <kj/debug.h>

namespace sallyport::netd {

namespace {

constexpr uint32_t FIRST_BACK_OFF_MS = 100;
constexpr uint32_t MAX_BACK_OFF_MS = 5000;
constexpr uint64_t STABLE_AFTER_MS = 1000;
// Each may hold a descriptor of ours: a worker that doesn't read is as good as dead.
constexpr size_t MAX_WAITING_RECORDS = 1024;
constexpr uint64_t MIN_VAULT_LINK_MS = 200;

std::string_view name(SandboxRequirement requirement) {
  switch (requirement) {
    case SandboxRequirement::Full: return "full";
    case SandboxRequirement::Available: return "available";
    case SandboxRequirement::None: return "none";
  }
  return "full";
}

// What a child may know of our environment: where log lines go, and what sanitizers need.
std::vector<std::string> childEnvironment() {
  std::vector<std::string> environment;
  for (const char* variable : {"JOURNAL_STREAM", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"}) {
    if (const char* value = std::getenv(variable)) environment.push_back(std::string(variable) + "=" + value);
  }
  return environment;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  for (auto& text : strings) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

// Above the numbers that a child's descriptors get, so that no dup2 overwrites another's source.
kj::AutoCloseFd highCopy(int fd) {
  int copy;
  KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 16));
  return kj::AutoCloseFd(copy);
}

}  // namespace

Program Program::find(const char* name) {
  const auto self = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  for (const auto& candidate : {self / name, self / "../libexec/sallyport" / name, self / "../lib/sallyport" / name}) {
    const int fd = open(candidate.c_str(), O_PATH | O_CLOEXEC);
    if (fd >= 0) return Program(std::filesystem::weakly_canonical(candidate), highCopy(kj::AutoCloseFd(fd)));
  }
  KJ_FAIL_REQUIRE("a program that belongs to netd is missing; looked beside netd and in ../libexec/sallyport", name,
                  self.c_str());
}

pid_t Program::start(std::vector<std::string> arguments, const std::vector<int>& fds) const {
  std::vector<kj::AutoCloseFd> copies;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  KJ_DEFER(posix_spawn_file_actions_destroy(&actions));
  for (size_t i = 0; i < fds.size(); ++i) {
    copies.push_back(highCopy(fds[i]));
    posix_spawn_file_actions_adddup2(&actions, copies.back(), 3 + static_cast<int>(i));
  }
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  KJ_DEFER(posix_spawnattr_destroy(&attributes));
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  auto environment = childEnvironment();
  const std::string file = handle();
  pid_t pid = 0;
  const int error =
      posix_spawn(&pid, file.c_str(), &actions, &attributes, pointers(arguments).data(), pointers(environment).data());
  if (error != 0) KJ_FAIL_SYSCALL("posix_spawn", error, path_);
  return pid;
}

WorkerProcess::WorkerProcess(EventLoop& loop, unsigned index, const Program& program, SandboxRequirement requirement)
    : loop_(loop),
      index_(index),
      program_(program),
      requirement_(requirement),
      statsFd_(Stats::create()),
      statsReadOnlyFd_(Stats::reopenReadOnly(statsFd_)),
      stats_(Stats::map(statsFd_)) {}

void WorkerProcess::start(OnRecord onRecord) {
  std::array<int, 2> ends;
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()));
  kj::AutoCloseFd ours(ends[0]);
  const kj::AutoCloseFd theirs(ends[1]);
  // Room for a burst of dial requests.
  const int bytes = 1 << 20;
  for (const int fd : ends) setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  pid_ = program_.start({"netd-worker", std::string(name(requirement_))}, {theirs.get(), statsFd_.get()});
  startedAtMs_ = loop_.nowMs();
  ready_ = false;
  wantsVault = true;
  control_ = std::make_unique<ControlChannel>(
      loop_, ours.release(), MAX_WAITING_RECORDS,
      [this, onRecord](ControlChannel::Received& received) { onRecord(*this, received); },
      [this] {
        // It has closed, or doesn't read: without its control socket a worker gets no reload. Its exit is told by
        // SIGCHLD.
        if (pid_ > 0) kill(pid_, SIGKILL);
      });
}

void WorkerProcess::markReady(std::string_view report) {
  ready_ = true;
  sandbox_ = decodeReport(report);
}

void WorkerProcess::condemn() {
  if (control_ != nullptr) control_->silence();
  if (pid_ > 0) kill(pid_, SIGKILL);
}

uint32_t WorkerProcess::exited() {
  pid_ = 0;
  ready_ = false;
  wantsVault = false;
  ++restarts_;
  stats_.resetGauges();
  if (control_ != nullptr) control_->silence();  // what it still had to say is not to be done
  vaultLink_ = nullptr;
  // Not inside its own callback.
  loop_.defer([gone = std::shared_ptr<ControlChannel>(std::move(control_))] {});
  if (loop_.nowMs() - startedAtMs_ > STABLE_AFTER_MS) backOffMs_ = 0;
  backOffMs_ = backOffMs_ == 0 ? FIRST_BACK_OFF_MS : std::min(backOffMs_ * 2, MAX_BACK_OFF_MS);
  return backOffMs_;
}

void WorkerProcess::sendVaultLink(kj::AutoCloseFd link) {
  // The link before this one ends for good, also if the worker kept it: one worker, one place at the vault.
  if (vaultLink_.get() >= 0) shutdown(vaultLink_, SHUT_RDWR);
  vaultLink_ = highCopy(link);
  vaultLinkAtMs_ = loop_.nowMs();
  std::vector<kj::AutoCloseFd> fds;
  fds.push_back(kj::mv(link));
  send({.kind = ControlKind::VaultLink}, {}, std::move(fds));
  wantsVault = false;
}

bool WorkerProcess::mayHaveVaultLink() const {
  return wantsVault && ready_ && (vaultLinkAtMs_ == 0 || loop_.nowMs() >= vaultLinkAtMs_ + MIN_VAULT_LINK_MS);
}

void WorkerProcess::send(const ControlRecord& record, ByteSpan payload, std::vector<kj::AutoCloseFd> fds) {
  if (control_ != nullptr) control_->send(record, payload, std::move(fds));
}

void WorkerProcess::sendFd(ControlKind kind, uint32_t target, int fd) {
  std::vector<kj::AutoCloseFd> fds;
  fds.push_back(highCopy(fd));
  send({.kind = kind, .target = target}, {}, std::move(fds));
}

}  // namespace sallyport::netd
