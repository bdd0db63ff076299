// dialer.cc - see dialer.h.
#include "netd/dialer.h"

#include <signal.h>
#include <fcntl.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include <kj/debug.h>

#include "common/log.h"

namespace sallyport::netd {

namespace {

constexpr uint64_t KEEP_RESOLVED_MS = 60000;
constexpr uint32_t RESOLVE_TIMEOUT_MS = 5000;
constexpr size_t MAX_RESOLVER_BYTES = 4096;
constexpr size_t MAX_WAITING = 4096;

// A socket that is connecting, or -1 and errno.
int startConnecting(int family, const sockaddr* address, socklen_t length) {
  const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (connect(fd, address, length) == 0 || errno == EINPROGRESS) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

int startConnecting(const UnixAddress& address) {
  sockaddr_un socketAddress{};
  socketAddress.sun_family = AF_UNIX;
  if (address.path.native().size() >= sizeof socketAddress.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  std::memcpy(socketAddress.sun_path, address.path.c_str(), address.path.native().size() + 1);
  return startConnecting(AF_UNIX, reinterpret_cast<const sockaddr*>(&socketAddress), sizeof socketAddress);
}

}  // namespace

// One run of netd-resolver.
class Dialer::Resolution final : EventLoop::Watcher {
 public:
  Resolution(Dialer& dialer, uint32_t entryId, const std::string& host) : dialer_(dialer), entryId_(entryId) {
    std::array<int, 2> ends;
    KJ_SYSCALL(pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK));
    output_ = kj::AutoCloseFd(ends[0]);
    const kj::AutoCloseFd theirs(ends[1]);
    pid_ = dialer_.resolver_.start({"netd-resolver", host}, {theirs.get()});
    dialer_.loop_.add(output_, EPOLLIN, *this);
    timeout_ = dialer_.loop_.timer()
                   .afterDelay(RESOLVE_TIMEOUT_MS * kj::MILLISECONDS)
                   .then([this] { done(); })
                   .eagerlyEvaluate(nullptr);
  }
  ~Resolution() {
    if (pid_ > 0) kill(pid_, SIGKILL);
    dialer_.loop_.remove(output_, *this);
  }
  pid_t pid() const { return pid_; }
  void exited() { pid_ = 0; }

 private:
  void onEvents(uint32_t) override {
    std::array<char, 512> buffer;
    const ssize_t got = read(output_, buffer.data(), buffer.size());
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got > 0 && lines_.size() < MAX_RESOLVER_BYTES) {
      lines_.append(buffer.data(), static_cast<size_t>(got));
      return;
    }
    done();
  }
  void done() {
    dialer_.loop_.defer([dialer = &dialer_, id = entryId_, lines = lines_, alive = dialer_.alive_] {
      if (*alive) dialer->resolved(id, lines);
    });
  }

  Dialer& dialer_;
  uint32_t entryId_;
  kj::AutoCloseFd output_;
  pid_t pid_ = 0;
  std::string lines_;
  kj::Promise<void> timeout_ = nullptr;
};

Dialer::Dialer(EventLoop& loop, const Program& resolver)
    : loop_(loop), resolver_(resolver), alive_(std::make_shared<bool>(true)) {}

Dialer::~Dialer() { *alive_ = false; }

void Dialer::setTargets(std::map<uint32_t, Address> targets) {
  for (auto& [id, old] : targets_) {
    const auto fresh = targets.find(id);
    if (fresh != targets.end() && toString(fresh->second) == toString(old.address)) continue;
    for (const Request& request : old.waiting) {
      if (WorkerProcess* worker = find(request.worker))
        worker->send({.kind = ControlKind::DialFailed, .request = request.request});
    }
    old.waiting.clear();
    resolutions_.erase(id);
  }
  std::map<uint32_t, Target> next;
  for (auto& [id, address] : targets) {
    const auto known = targets_.find(id);
    if (known != targets_.end() && toString(known->second.address) == toString(address)) {
      next.emplace(id, std::move(known->second));
      continue;
    }
    Target target{.address = address, .numeric = {}, .problem = {}, .waiting = {}};
    if (const auto* tcp = std::get_if<TcpAddress>(&address)) {
      if (auto numeric = parseNumeric(tcp->host, tcp->port))
        target.numeric.push_back(*numeric);
      else
        target.isName = true;
    }
    next.emplace(id, std::move(target));
  }
  targets_ = std::move(next);
}

std::string Dialer::problem(uint32_t entryId) const {
  const auto found = targets_.find(entryId);
  return found == targets_.end() ? "" : found->second.problem;
}

void Dialer::dial(uint32_t entryId, uint64_t attempt, unsigned worker, uint64_t request) {
  const auto found = targets_.find(entryId);
  if (found == targets_.end()) {
    if (WorkerProcess* asker = find(worker)) asker->send({.kind = ControlKind::DialFailed, .request = request});
    return;
  }
  Target& target = found->second;
  const bool stale =
      target.isName && (target.resolvedAtMs == 0 || loop_.nowMs() > target.resolvedAtMs + KEEP_RESOLVED_MS);
  if (!stale || attempt > 0) return answer(target, {attempt, worker, request});
  if (target.waiting.size() >= MAX_WAITING) return answer(target, {UINT64_MAX, worker, request});
  target.waiting.push_back({attempt, worker, request});
  if (!resolutions_.contains(entryId)) resolve(entryId, target);
}

void Dialer::answer(Target& target, const Request& request) {
  WorkerProcess* worker = find(request.worker);
  if (worker == nullptr) return;
  int fd = -1;
  if (const auto* local = std::get_if<UnixAddress>(&target.address)) {
    if (request.attempt > 0) return worker->send({.kind = ControlKind::DialFailed, .request = request.request});
    fd = startConnecting(*local);
  } else {
    if (request.attempt >= target.numeric.size())
      return worker->send({.kind = ControlKind::DialFailed, .request = request.request});
    const NumericAddress& address = target.numeric[request.attempt];
    fd = startConnecting(address.storage.ss_family, address.get(), address.length);
  }
  if (fd < 0) {
    return worker->send(
        {.kind = ControlKind::DialFailed, .request = request.request, .value = static_cast<uint64_t>(errno)});
  }
  std::vector<kj::AutoCloseFd> fds;
  fds.emplace_back(fd);
  const bool troubled = !target.problem.empty();
  worker->send({.kind = ControlKind::Dialed, .request = request.request, .value = troubled}, {}, std::move(fds));
}

void Dialer::ended(uint32_t entryId, int error) {
  const auto found = targets_.find(entryId);
  if (found == targets_.end()) return;
  found->second.problem = error == 0 ? "" : std::string("can't be reached: ") + std::strerror(error);
}

void Dialer::resolve(uint32_t entryId, Target& target) {
  try {
    resolutions_[entryId] = std::make_unique<Resolution>(*this, entryId, std::get<TcpAddress>(target.address).host);
  } catch (const kj::Exception& e) {
    logError("can't start the resolver: " + sanitized(std::string(e.getDescription().cStr())));
    resolutions_.erase(entryId);
    loop_.defer([this, entryId, alive = alive_] {
      if (*alive) resolved(entryId, "");
    });
  }
}

// Lines of one numeric address each; whatever doesn't parse is left out.
void Dialer::resolved(uint32_t entryId, const std::string& lines) {
  resolutions_.erase(entryId);
  const auto found = targets_.find(entryId);
  if (found == targets_.end()) return;
  Target& target = found->second;
  const auto* tcp = std::get_if<TcpAddress>(&target.address);
  if (tcp == nullptr) return;  // a reload made it another target meanwhile
  std::vector<NumericAddress> numeric;
  for (size_t start = 0; start < lines.size();) {
    const size_t end = std::min(lines.find('\n', start), lines.size());
    if (auto address = parseNumeric(lines.substr(start, end - start), tcp->port)) numeric.push_back(*address);
    start = end + 1;
  }
  if (numeric.empty()) {
    target.problem = "the name " + tcp->host + " doesn't resolve";
    if (!std::exchange(target.unresolved, true)) logWarning(target.problem);  // once: each connection asks again
  } else {
    target.unresolved = false;
    target.numeric = std::move(numeric);
    target.resolvedAtMs = loop_.nowMs();
  }
  auto waiting = std::move(target.waiting);
  target.waiting.clear();
  for (const Request& request : waiting) answer(target, request);
}

bool Dialer::childExited(pid_t pid) {
  for (auto& [id, resolution] : resolutions_) {
    if (resolution->pid() == pid) {
      resolution->exited();
      return true;
    }
  }
  return false;
}

}  // namespace sallyport::netd
