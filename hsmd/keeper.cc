// keeper.cc - see keeper.h. Part of: hsmd (keeper).
#include "hsmd/keeper.h"

#include <linux/seccomp.h>
#include <poll.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>

#include "common/log.h"

namespace sallyport::hsmd {

using hsm::Status;

namespace {

constexpr uint64_t DENIALS_EVERY_MS = 1000;
constexpr int MAX_FRAMES_A_TURN = 64;
constexpr int TURNS_OF_A_FULL_SOCKET = 64;

// A datagram and one descriptor, if it carries one.
struct Heard {
  size_t bytes = 0;
  int fd = -1;
};

std::optional<Heard> receive(int socket, MutableByteSpan buffer) {
  iovec part{.iov_base = buffer.data(), .iov_len = buffer.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> space{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = space.data();
  message.msg_controllen = space.size();
  const ssize_t got = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (got < 0) return std::nullopt;
  Heard heard{.bytes = static_cast<size_t>(got)};
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
      header->cmsg_len == CMSG_LEN(sizeof(int)))
    std::memcpy(&heard.fd, CMSG_DATA(header), sizeof(int));
  return heard;
}

// The others are the client's wish.
bool isFault(hsm::KillReason reason) {
  return reason == hsm::KillReason::Deadline || reason == hsm::KillReason::Garbage;
}

// explainExit() would look into the kernel's log, which a locked process can't open.
std::string ended(int waitStatus) {
  if (WIFEXITED(waitStatus)) return "exited with status " + std::to_string(WEXITSTATUS(waitStatus));
  if (!WIFSIGNALED(waitStatus)) return "wasn't started";
  const char* signal = sigabbrev_np(WTERMSIG(waitStatus));
  return "was killed by " + (signal != nullptr ? "SIG" + std::string(signal) : std::to_string(WTERMSIG(waitStatus)));
}

}  // namespace

Keeper::Keeper(Sockets sockets, SharedMemory board, std::string token, uint64_t stepMs, uint32_t lastEpoch)
    : sockets_(sockets), board_(std::move(board)), token_(std::move(token)), stepMs_(stepMs), epoch_(lastEpoch) {}

uint64_t Keeper::nowMs() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

int Keeper::run() {
  if (epoch_ != 0) {
    // What was tried when the last one died says nothing of the module.
    board_.as<Board>().abandon(hsm::Trial::Untried);
    tell(hsm::WorkerDied{.epoch = epoch_, .status = Status::KeeperDied});
  }
  begin();
  while (true) {
    const short wanted = owed_ ? POLLIN | POLLOUT : POLLIN;
    std::array<pollfd, 4> waits{{{.fd = sockets_.control, .events = wanted, .revents = 0},
                                 {.fd = sockets_.launcher, .events = POLLIN, .revents = 0},
                                 {.fd = sockets_.birth, .events = POLLIN, .revents = 0},
                                 {.fd = listener_, .events = POLLIN, .revents = 0}}};
    if (poll(waits.data(), waits.size(), timeoutMs()) < 0 && errno != EINTR) return 1;
    // At a child's end the launcher's word waits for its last ones.
    if (waits[1].revents != 0 && !hearLauncher()) return 1;
    if (waits[2].revents != 0) hearChild();
    // Only where a call waits: to ask for one when the worker is gone, which is a hang-up, would block for ever before
    // Linux 6.11. And only if it is still this listener.
    if (waits[3].fd >= 0 && waits[3].fd == listener_) {
      if ((waits[3].revents & POLLIN) != 0)
        hearDenial();
      else if (waits[3].revents != 0)
        closeListener();
    }
    if ((waits[0].revents & POLLOUT) != 0) tellOwed();
    if ((waits[0].revents & ~POLLOUT) != 0 && !hearClient()) return 0;
    checkTime();
  }
}

// --- time ------------------------------------------------------------------------------------------------------------

int Keeper::timeoutMs() const {
  const uint64_t now = nowMs();
  uint64_t wait = 60'000;
  if (state_ != State::Serving) wait = std::min(wait, dueMs_ > now ? dueMs_ - now : 0);
  if (state_ == State::Probing || state_ == State::Starting) wait = std::min<uint64_t>(wait, 500);
  if (denials_ != denialsTold_)
    wait = std::min(wait, denialsToldMs_ + DENIALS_EVERY_MS > now ? denialsToldMs_ + DENIALS_EVERY_MS - now : 0);
  return static_cast<int>(wait);
}

void Keeper::checkTime() {
  const uint64_t now = nowMs();
  reportDenials();
  if (state_ == State::Probing || state_ == State::Starting) {
    const uint32_t steps = board_.as<Board>().steps;
    if (steps != boardSteps_) {
      boardSteps_ = steps;
      dueMs_ = now + patienceMs();
    }
  }
  if (state_ == State::Serving || now < dueMs_) return;
  if (state_ == State::Waiting) return begin();
  if (gaveUp_) return;
  const auto& board = board_.as<Board>();
  const std::string trial = sanitized(board.running());
  const std::string call = sanitized(board.call());
  const std::string where = trial.empty() || call.empty() ? trial + call : trial + ", in " + call;
  logWarning("token=" + token_ + " its module doesn't come back" + (where.empty() ? "" : " from " + where) +
             ": ending it");
  if (state_ == State::Probing && !trial.empty()) {
    tell(hsm::TrialHung{
        .epoch = epoch_, .afterMs = static_cast<uint32_t>(patienceMs()), .what = hsm::Detail::cut(where)});
  }
  gaveUp_ = true;
  dueMs_ = now + stepMs_;
  order(Order::Kill);
}

// --- children --------------------------------------------------------------------------------------------------------

// Each worker has a probe before it: what the board knows already is not tried again.
void Keeper::begin() {
  // What didn't come back may have waited for something that is there now.
  board_.as<Board>().retryTimedOut();
  probe();
}

void Keeper::probe() {
  if (++epoch_ == 0) ++epoch_;
  boardSteps_ = board_.as<Board>().steps;
  start(State::Probing, Order::Probe);
}

void Keeper::start(State state, Order what) {
  pid_ = 0;
  words_ = 0;
  lastWords_.reset();
  lastDetail_.clear();
  killedFor_.reset();
  gaveUp_ = false;
  board_.as<Board>().setCall({});
  state_ = state;
  dueMs_ = nowMs() + stepMs_;
  order(what);
}

void Keeper::order(Order what) {
  const LauncherOrder sent{.order = what, .epoch = epoch_};
  (void)!send(sockets_.launcher, &sent, sizeof sent, MSG_NOSIGNAL);
}

bool Keeper::hearLauncher() {
  LauncherEvent event{};
  const ssize_t got = recv(sockets_.launcher, &event, sizeof event, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (got != sizeof event) return false;
  switch (event.event) {
    case Event::Started: pid_ = static_cast<uint32_t>(event.value); return true;
    case Event::NotStarted:
      lastDetail_ = std::string("no process for its module: ") + std::strerror(event.value);
      lastWords_ = Status::Starting;
      logError("token=" + token_ + " " + lastDetail_);
      workerDied(Status::Starting, 0, false);
      return true;
    case Event::Ended:
      // What it said may have come after we looked; and nothing of it may be left for the next one, whose epoch it
      // could have guessed. A socket holds some hundred words, and nobody has the other end now.
      for (int turn = 0; turn < TURNS_OF_A_FULL_SOCKET && hearChild(); ++turn) continue;
      childEnded(event.value);
      return true;
  }
  return false;
}

void Keeper::childEnded(int waitStatus) {
  closeListener();
  const auto words = lastWords_;
  if (words_ > MOST_WORDS) {
    if (state_ == State::Probing) board_.as<Board>().abandon(hsm::Trial::Crashed);
    return workerDied(Status::SaidTooMuch, waitStatus, false);
  }
  if (state_ != State::Probing) {
    const bool wanted = (words == Status::Ok && WIFEXITED(waitStatus)) || (killedFor_ && !isFault(*killedFor_));
    const Status fault = state_ != State::Starting ? Status::ModuleFailed
                         : gaveUp_                 ? Status::ModuleHangs
                                                   : Status::Starting;
    return workerDied(words.value_or(fault), waitStatus, wanted);
  }
  // Killed, and not by us: somebody else's doing says nothing of the trial.
  const bool bystander = !gaveUp_ && WIFSIGNALED(waitStatus) && WTERMSIG(waitStatus) == SIGKILL;
  const bool cut = board_.as<Board>().abandon(bystander ? hsm::Trial::Untried
                                              : gaveUp_ ? hsm::Trial::TimedOut
                                                        : hsm::Trial::Crashed);
  if (words == Status::Ok && !cut) return start(State::Starting, Order::Serve);
  if (words && *words != Status::Ok) return workerDied(*words, waitStatus, false);
  if (!cut || bystander) return workerDied(gaveUp_ ? Status::ModuleHangs : Status::Starting, waitStatus, false);
  logWarning("token=" + token_ + " its module " + ended(waitStatus) + " on a trial that is not repeated");
  // The next one goes on behind it. The board is finite, so this ends.
  probe();
}

uint64_t Keeper::patienceMs() { return board_.as<Board>().mayBeSlow() ? std::max(stepMs_, SLOW_STEP_MS) : stepMs_; }

// What it has said itself; else what it was in the middle of, as far as the board knows.
std::string Keeper::detailOf(Status status, int waitStatus) {
  if (lastWords_ && !lastDetail_.empty()) return lastDetail_;
  const std::string call = sanitized(board_.as<Board>().call());
  const std::string where = call.empty() ? "" : " in " + call;
  switch (status) {
    case Status::ModuleHangs: {
      const std::string seconds = std::to_string(patienceMs() / 1000) + " s";
      return call.empty() ? "nothing for " + seconds : "no end of " + call + " after " + seconds;
    }
    case Status::Starting:
    case Status::ModuleFailed:
      if (killedFor_) return std::string(hsm::describe(*killedFor_));
      return "it " + ended(waitStatus) + where;
    default: return "";
  }
}

void Keeper::workerDied(Status status, int waitStatus, bool wanted) {
  const uint64_t now = nowMs();
  const std::string detail = detailOf(status, waitStatus);
  const bool absent = status == Status::NoToken || status == Status::DeviceRemoved;
  const uint32_t delay = absent && state_ != State::Serving ? plan_.absent() : plan_.ended(now, wanted);
  if (!wanted) {
    logWarning("token=" + token_ + " its module's process " + ended(waitStatus) +
               " status=" + std::string(hsm::name(status)) + " restart_ms=" + std::to_string(delay) +
               (lastDetail_.empty() ? "" : ": " + sanitized(lastDetail_)));
  }
  tell(hsm::WorkerDied{.epoch = epoch_,
                       .pid = pid_,
                       .status = status,
                       .waitStatus = waitStatus,
                       .restartInMs = delay,
                       .detail = hsm::Detail::cut(detail)});
  state_ = State::Waiting;
  dueMs_ = now + delay;
}

// False: there is nothing more to hear now.
bool Keeper::hearChild() {
  hsm::ControlFrame frame;
  // A module that never stops talking may not keep us from the rest.
  for (int i = 0; i < MAX_FRAMES_A_TURN; ++i) {
    const auto heard = receive(sockets_.birth, frame);
    if (!heard) return false;
    bool fdKept = false;
    if (++words_ == MOST_WORDS + 1) {
      logWarning("token=" + token_ + " its module's process doesn't stop talking: ending it");
      order(Order::Kill);
    } else if (words_ <= MOST_WORDS) {
      const auto control = hsm::parseControl(ByteSpan(frame).first(heard->bytes));
      if (control) fdKept = takeWord(*control, heard->fd);
    }
    if (heard->fd >= 0 && !fdKept) close(heard->fd);
  }
  return true;
}

// True if the descriptor that came with it was taken.
bool Keeper::takeWord(const hsm::Control& word, int fd) {
  if (const auto* up = std::get_if<hsm::WorkerUp>(&word)) {
    // Who it is, the launcher has said before; both may have come since we looked there. That it is gone shows again.
    if (pid_ == 0) (void)hearLauncher();
    if (up->epoch != epoch_ || state_ != State::Starting) return false;
    state_ = State::Serving;
    plan_.cameUp(nowMs());
    denials_ = denialsTold_ = 0;
    denialsLogged_ = {};
    tell(hsm::WorkerUp{.epoch = epoch_, .pid = pid_, .login = up->login, .detail = up->detail});
  } else if (const auto* layer = std::get_if<hsm::WorkerLayer>(&word)) {
    if (layer->epoch == epoch_ && state_ == State::Serving) tell(*layer);
  } else if (const auto* died = std::get_if<hsm::WorkerDied>(&word)) {
    if (died->epoch == epoch_) {
      lastWords_ = died->status;
      lastDetail_ = died->detail.text();
    }
  } else if (const auto* denials = std::get_if<hsm::Denials>(&word)) {
    if (denials->epoch != epoch_ || fd < 0 || listener_ >= 0) return false;
    listener_ = fd;
    return true;
  }
  return false;
}

// --- the client ------------------------------------------------------------------------------------------------------

void Keeper::tell(const hsm::Control& control) {
  const bool state = std::holds_alternative<hsm::WorkerUp>(control) || std::holds_alternative<hsm::WorkerDied>(control);
  if (state) owed_.reset();
  const hsm::ControlFrame frame = hsm::writeControl(control);
  if (!owed_ && send(sockets_.control, frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) return;
  // A client that doesn't read loses what doesn't fit, but how the worker is it hears when it reads again; that it is
  // gone shows at the next poll.
  if (state) owed_ = control;
}

void Keeper::tellOwed() {
  if (owed_) tell(hsm::Control(*owed_));
}

bool Keeper::hearClient() {
  std::array<std::byte, hsm::CONTROL_BYTES + 1> datagram;
  const ssize_t got = recv(sockets_.control, datagram.data(), datagram.size(), MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) return false;
  const auto control = hsm::parseControl(ByteSpan(datagram).first(static_cast<size_t>(got)));
  if (!control) {
    logWarning("token=" + token_ + " an unreadable control frame: " + std::string(hsm::name(control.error())));
    return true;
  }
  if (std::holds_alternative<hsm::Stop>(*control)) return false;
  const auto* wanted = std::get_if<hsm::KillWorker>(&*control);
  if (wanted == nullptr || wanted->epoch != epoch_) return true;
  if (state_ != State::Waiting) {
    const std::string why = "token=" + token_ + " the process of its module is ended: ";
    const std::string reason(hsm::name(wanted->reason));
    isFault(wanted->reason) ? logWarning(why + reason) : logInfo(why + reason);
    killedFor_ = wanted->reason;
    order(Order::Kill);
  } else if (wanted->reason == hsm::KillReason::Operator) {
    dueMs_ = nowMs();  // somebody waits for the next one
  }
  return true;
}

// --- refused system calls --------------------------------------------------------------------------------------------
// The kernel holds each call that the worker's filter doesn't allow until it is answered here: with EPERM, always.

void Keeper::hearDenial() {
  seccomp_notif call{};
  if (ioctl(listener_, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) {
    if (errno != EINTR && errno != ENOENT && errno != EAGAIN) closeListener();
    return;
  }
  seccomp_notif_resp answer{.id = call.id, .val = 0, .error = -EPERM, .flags = 0};
  ioctl(listener_, SECCOMP_IOCTL_NOTIF_SEND, &answer);
  ++denials_;
  char* name = seccomp_syscall_resolve_num_arch(call.data.arch, call.data.nr);
  lastDenied_ = name != nullptr ? name : "call " + std::to_string(call.data.nr);
  std::free(name);
  // Each call is in the log once a worker: the bits of those that were.
  const auto number = static_cast<size_t>(call.data.nr) % (64 * denialsLogged_.size());
  const uint64_t bit = uint64_t{1} << (number % 64);
  if ((denialsLogged_[number / 64] & bit) != 0) return;
  denialsLogged_[number / 64] |= bit;
  logInfo("token=" + token_ + " its module was refused " + lastDenied_);
}

void Keeper::reportDenials() {
  const uint64_t now = nowMs();
  if (denials_ == denialsTold_ || now < denialsToldMs_ + DENIALS_EVERY_MS) return;
  denialsTold_ = denials_;
  denialsToldMs_ = now;
  tell(hsm::Denials{.epoch = epoch_, .total = denials_, .lastCall = hsm::Bounded<32>::cut(lastDenied_)});
}

void Keeper::closeListener() {
  if (listener_ >= 0) close(listener_);
  listener_ = -1;
}

}  // namespace sallyport::hsmd
