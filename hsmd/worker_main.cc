// hsmd-worker - loads one PKCS#11 module, logs in to one token, and does what the vault asks of its keys. Started by
// hsmd alone, again and again: `hsmd-worker serve EPOCH`, and before it `hsmd-worker probe EPOCH`, a throw-away process
// that finds out what the module does without dying of it. Foreign code runs here: this process has its token and
// nothing else of ours. Order: map what was inherited, load, log in, find and prove the keys, lock down, serve.
#include <fcntl.h>
#include <sodium.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <cstdio>
#include <thread>

#include "common/check.h"
#include "common/log.h"
#include "hsmd/birth.h"
#include "hsmd/last_call.h"
#include "hsmd/lockdown.h"
#include "hsmd/prober.h"
#include "hsmd/service.h"
#include "hsmd/settings.h"

namespace sallyport::hsmd {
namespace {

struct Inherited {
  WorkerSettings settings;
  SharedMemory pin;
  SharedMemory board;
  SharedMemory page;
};

std::optional<Inherited> takeInherited() {
  auto settings = WorkerSettings::parse(readSettings(SETTINGS_FD));
  auto pin = SharedMemory::map(PIN_FD, PIN_PAGE_BYTES);
  auto board = SharedMemory::map(BOARD_FD, BOARD_BYTES);
  auto page = SharedMemory::map(PAGE_FD, hsm::PAGE_BYTES);
  if (!settings || !pin || !board || !page) return std::nullopt;
  for (const int fd : {SETTINGS_FD, PIN_FD, BOARD_FD, PAGE_FD}) close(fd);
  return Inherited{std::move(*settings), std::move(*pin), std::move(*board), std::move(*page)};
}

// What an operator has to see to; anything else is the token's or the module's to get over.
bool isLocked(Status status) {
  switch (status) {
    case Status::PinWrong:
    case Status::PinLocked:
    case Status::PinLowRefused:
    case Status::PinFinalTryRefused:
    case Status::PinUnset:
    case Status::NotLoggedIn: return true;
    default: return false;
  }
}

// A login that failed for a reason of the module's own leaves its PIN in doubt: then, too, it is an operator's.
Status lockedAs(Status status, const PinRecord& pin) {
  if (isLocked(status)) return status;
  const bool canBeTried = pin.state == PinState::Untried || pin.state == PinState::Good;
  return canBeTried ? Status::Ok : Status::NotLoggedIn;
}

struct Found {
  Module module;
  TokenFacts token;
};

Found loadAndFind(const Birth& birth, const WorkerSettings& settings) {
  auto module = Module::load(settings.module, settings.initArguments);
  if (!module) birth.die(module.error().status, detailOf(module.error()));
  const auto uri = parsePkcs11Uri(settings.uri);
  if (!uri) birth.die(Status::NoToken, "the URI can't be read");
  auto token = findToken(*module, *uri);
  if (!token) birth.die(token.error().status, detailOf(token.error()));
  return {std::move(*module), std::move(*token)};
}

[[noreturn]] void probe(const Birth& birth, Inherited& inherited) {
  auto [module, facts] = loadAndFind(birth, inherited.settings);
  auto& board = inherited.board.as<Board>();
  Token token(module, facts, inherited.pin.as<PinRecord>(), board,
              {.copies = false, .writable = inherited.settings.operatorMode});
  auto ready = token.open(LoginMode::Automatic);
  const auto& pin = inherited.pin.as<PinRecord>();
  if (!ready && lockedAs(ready.error().status, pin) == Status::Ok)
    birth.die(ready.error().status, detailOf(ready.error()));
  if (ready) {
    const bool all = inherited.settings.operatorMode;
    auto tried = all ? probeCapabilities(module, facts, board) : Outcome<void>();
    if (tried) tried = probeKeys(module, facts, board, /* patient: */ !all);
    // Keys that the module does wrong are the board's; a token that went away has to be waited for.
    if (!tried) {
      const Status status = tried.error().status;
      birth.die(status == Status::Ok ? Status::DeviceRemoved : status, detailOf(tried.error()));
    }
  }
  birth.die(Status::Ok);
}

// The requests, for all threads. Those that wait in recv are woken in turn, and each finds the module's memory in
// another core's cache: for one request after the other that costs 5 % of a derive. epoll wakes the one that went to
// sleep last.
class Requests {
 public:
  Requests() {
    epoll_event wanted{.events = EPOLLIN, .data = {}};
    CHECK(epoll_ >= 0 && epoll_ctl(epoll_, EPOLL_CTL_ADD, CALLS_FD, &wanted) == 0);
  }
  // As recv: waits for one, and returns 0 or less when the client is gone.
  ssize_t take(MutableByteSpan datagram) const {
    while (true) {
      const ssize_t got = recv(CALLS_FD, datagram.data(), datagram.size(), MSG_DONTWAIT);
      if (got >= 0 || (errno != EAGAIN && errno != EINTR)) return got;
      epoll_event event;
      if (epoll_wait(epoll_, &event, 1, -1) < 0 && errno != EINTR) return -1;
    }
  }

 private:
  int epoll_ = epoll_create1(EPOLL_CLOEXEC);
};

// One thread's life: a request, its answer, the next.
void answerCalls(const Requests& requests, Service& service, const Birth& birth, Token& token, Line line) {
  // One byte more than a frame has: what is too long shows.
  std::array<std::byte, hsm::REQUEST_BYTES + 1> datagram;
  while (true) {
    const ssize_t got = requests.take(datagram);
    if (got <= 0) birth.die(Status::Ok);  // the client is gone
    const auto request = hsm::parseRequest(ByteSpan(datagram).first(static_cast<size_t>(got)));
    Service::Handled handled{.reply = {.epoch = birth.epoch(), .id = 0, .status = Status::BadRequest}};
    if (request) handled = service.handle(*request, line);
    const hsm::ReplyFrame frame = hsm::writeReply(handled.reply);
    while (send(CALLS_FD, frame.data(), frame.size(), MSG_NOSIGNAL) < 0 && errno == EINTR) continue;
    if (handled.after == Service::After::End) birth.die(token.lost());
  }
}

[[noreturn]] void serve(const Birth& birth, Inherited& inherited) {
  const WorkerSettings& settings = inherited.settings;
  auto& pin = inherited.pin.as<PinRecord>();
  auto& board = inherited.board.as<Board>();
  auto [module, facts] = loadAndFind(birth, settings);
  Token token(module, facts, pin, board, {.copies = settings.sessionCopy, .writable = settings.operatorMode});
  auto ready = token.open(LoginMode::Automatic);
  const Status login = ready ? Status::Ok : lockedAs(ready.error().status, pin);
  if (!ready && login == Status::Ok) birth.die(ready.error().status, detailOf(ready.error()));
  if (ready) {
    if (auto found = token.findKeys(); !found) birth.die(found.error().status, detailOf(found.error()));
    if (settings.profile == ModuleProfile::Nss) token.watch(DatabaseFiles::ofNss(nssFolder(settings.initArguments)));
  }
  // A locked one waits for its PIN and nothing else; keys are made by one at a time.
  const bool single = !ready || settings.operatorMode || !module.threadSafe();
  std::vector<Line> lines = ready ? token.openLines(single ? 1 : settings.workers) : std::vector<Line>(1);
  if (lines.empty()) birth.die(Status::SessionLimit);

  ClientPage page(std::move(inherited.page));
  const int statusFd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  Service service(token, page, pin, board,
                  {.epoch = birth.epoch(),
                   .login = login,
                   .sessions = static_cast<uint16_t>(lines.size()),
                   .operatorMode = settings.operatorMode,
                   .statusFd = statusFd});
  // Its keys may be anywhere, and it has made none of its promises yet.
  const Requests requests;
  const bool restricted = ready && !settings.operatorMode;
  noteCallsOn(lines.size() == 1 ? &board : nullptr);
  if (!lockDown(birth, settings, login, restricted, pin.reason())) birth.die(Status::Starting, "its sandbox");

  for (size_t i = 1; i < lines.size(); ++i)
    std::thread([&, line = lines[i]] { answerCalls(requests, service, birth, token, line); }).detach();
  answerCalls(requests, service, birth, token, lines[0]);
  birth.die(Status::Ok);
}

int run(int argc, char** argv) {
  uint32_t epoch = 0;
  const std::string_view mode = argc == 3 ? argv[1] : "";
  const std::string_view number = argc == 3 ? argv[2] : "";
  const bool counted =
      std::from_chars(number.data(), number.data() + number.size(), epoch).ptr == number.data() + number.size();
  if ((mode != "serve" && mode != "probe") || !counted || epoch == 0) {
    std::fprintf(stderr, "hsmd-worker is started by hsmd; see hsmd(8)\n");
    return 2;
  }
  // The PIN and derived secrets are about to be in this memory.
  prctl(PR_SET_DUMPABLE, 0);
  prctl(PR_SET_NAME, "hsmd-worker");  // run by descriptor, it would be called by a number
  std::signal(SIGPIPE, SIG_IGN);
  startLog("hsmd-worker");
  CHECK(sodium_init() >= 0);
  auto inherited = takeInherited();
  if (!inherited) {
    logError("the descriptors of hsmd aren't there");
    return 2;
  }
  const Birth birth(BIRTH_FD, epoch);
  inherited->pin.as<PinRecord>().settle();
  noteCallsOn(&inherited->board.as<Board>());
  if (mode == "probe") probe(birth, *inherited);
  serve(birth, *inherited);
}

}  // namespace
}  // namespace sallyport::hsmd

int main(int argc, char** argv) {
  try {
    return sallyport::hsmd::run(argc, argv);
  } catch (const std::exception& e) {
    sallyport::logError(e.what());
    return 1;
  }
}
