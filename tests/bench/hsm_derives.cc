// hsm_derives.cc - what hsmd does per second, asked in frames as vaultd asks it. Part of: tests/bench.
//
//   hsm_derives GUARD CONFIG TOKEN [--secs S] [--width N]
//
// Starts hsmd, by token-guard, for [token.TOKEN], takes its first X25519 key that proved itself, and derives with it:
// one after the other, then N at a time. The page is ordinary shared memory here. The answer is one line of JSON.
#include <fcntl.h>
#include <poll.h>
#include <sodium.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <map>

#include "proto/hsm/frames.h"
#include "tests/bench/measure.h"

namespace sallyport::bench {
namespace {

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "hsm_derives: %s\n", what);
  std::exit(1);
}

std::array<int, 2> socketPair() {
  std::array<int, 2> ends;
  if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends.data()) != 0) fail("socketpair");
  return ends;
}

class Hsmd {
 public:
  Hsmd(const char* program, const char* config, const char* token) {
    const auto calls = socketPair(), control = socketPair();
    const int page = memfd_create("page", MFD_ALLOW_SEALING);
    if (ftruncate(page, hsm::PAGE_BYTES) != 0) fail("ftruncate");
    fcntl(page, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
    calls_ = calls[0], control_ = control[0];
    child_ = fork();
    if (child_ == 0) {
      close(calls[0]), close(control[0]);
      const std::string callsFd = std::to_string(calls[1]), controlFd = std::to_string(control[1]);
      execl(program, program, "--config", config, "--token", token, "--calls-fd", callsFd.c_str(), "--control-fd",
            controlFd.c_str(), "--page-fd", std::to_string(page).c_str(), static_cast<char*>(nullptr));
      _exit(127);
    }
    close(calls[1]), close(control[1]), close(page);
    waitUp();
  }
  ~Hsmd() {
    close(control_), close(calls_);
    waitpid(child_, nullptr, 0);
  }
  Hsmd(const Hsmd&) = delete;
  Hsmd& operator=(const Hsmd&) = delete;

  uint64_t send(hsm::Ask ask) {
    const auto frame = hsm::writeRequest({epoch_, ++lastId_, std::move(ask)});
    if (::send(calls_, frame.data(), frame.size(), 0) != static_cast<ssize_t>(frame.size())) fail("send");
    return lastId_;
  }
  hsm::Reply receive() {
    hsm::ReplyFrame frame;
    pollfd waiting = {calls_, POLLIN, 0};
    if (poll(&waiting, 1, 30'000) != 1) fail("no reply");
    if (recv(calls_, frame.data(), frame.size(), 0) != static_cast<ssize_t>(frame.size())) fail("recv");
    auto reply = hsm::parseReply(frame);
    if (!reply) fail("an unreadable reply");
    return *reply;
  }
  double cpuSecondsOfWorker() const { return cpuSeconds({worker_}); }
  hsm::Reply ask(hsm::Ask what) {
    send(std::move(what));
    return receive();
  }

 private:
  void waitUp() {
    for (;;) {
      hsm::ControlFrame frame;
      pollfd waiting = {control_, POLLIN, 0};
      if (poll(&waiting, 1, 30'000) != 1) fail("hsmd doesn't come up");
      const ssize_t n = recv(control_, frame.data(), frame.size(), 0);
      if (n <= 0) fail("hsmd ended");
      const auto control = hsm::parseControl(frame);
      if (!control) fail("an unreadable control frame");
      if (std::holds_alternative<hsm::WorkerDied>(*control)) fail("hsmd's worker died");
      if (const auto* up = std::get_if<hsm::WorkerUp>(&*control)) {
        if (up->login != hsm::Status::Ok) fail("not logged in");
        epoch_ = up->epoch;
        worker_ = static_cast<int>(up->pid);
        return;
      }
    }
  }

  int calls_ = -1, control_ = -1;
  pid_t child_ = -1;
  int worker_ = -1;
  uint32_t epoch_ = 0;
  uint64_t lastId_ = 0;
};

uint16_t firstKey(Hsmd& hsmd) {
  const auto hello = hsmd.ask(hsm::Hello{});
  const auto* greeting = std::get_if<hsm::HelloReply>(&hello.answer);
  for (uint16_t i = 0; greeting != nullptr && i < greeting->keyCount; ++i) {
    const auto reply = hsmd.ask(hsm::List{i});
    const auto* key = std::get_if<hsm::KeyInfo>(&reply.answer);
    if (key != nullptr && key->kind == hsm::KeyKind::X25519 && key->proof == hsm::Status::Ok) return i;
  }
  fail("no X25519 key in the token");
}

struct Rate {
  double perSecond = 0, mean = 0, p50 = 0, p99 = 0;
  double cpuMicros = 0;  // of the worker, per derive
};

// `width` derives under way all the time; a point that is anybody's is a peer.
Rate measure(Hsmd& hsmd, uint16_t key, size_t width, double secs) {
  std::map<uint64_t, std::pair<double, uint16_t>> open;  // when it was asked, and its slot
  std::vector<double> micros;
  const double began = now();
  const double cpuBefore = hsmd.cpuSecondsOfWorker();
  const auto start = [&](uint16_t slot) {
    hsm::Derive derive{.key = key, .slot = slot};
    randombytes_buf(derive.peer.data(), derive.peer.size());
    const double asked = now();
    open.emplace(hsmd.send(derive), std::pair(asked, slot));
  };
  for (uint16_t slot = 0; slot < width; ++slot) start(slot);
  while (!open.empty()) {
    const auto reply = hsmd.receive();
    const auto found = open.find(reply.id);
    if (found == open.end() || reply.status != hsm::Status::Ok) fail("a derive was refused");
    const auto [asked, slot] = found->second;
    open.erase(found);
    micros.push_back((now() - asked) * 1e6);
    if (now() < began + secs) start(slot);
  }
  const auto count = static_cast<double>(micros.size());
  Rate rate{count / (now() - began)};
  rate.cpuMicros = (hsmd.cpuSecondsOfWorker() - cpuBefore) * 1e6 / count;
  for (const double each : micros) rate.mean += each / count;
  rate.p50 = percentile(micros, 0.5);
  rate.p99 = percentile(micros, 0.99);
  return rate;
}

}  // namespace
}  // namespace sallyport::bench

int main(int argc, char** argv) {
  using namespace sallyport::bench;
  if (argc < 4 || sodium_init() < 0) return 2;
  double secs = 1.0;
  size_t width = 16;
  for (int i = 4; i + 1 < argc; i += 2) {
    const std::string word = argv[i];
    if (word == "--secs") secs = std::strtod(argv[i + 1], nullptr);
    if (word == "--width") width = std::strtoul(argv[i + 1], nullptr, 10);
  }
  Hsmd hsmd(argv[1], argv[2], argv[3]);
  const uint16_t key = firstKey(hsmd);
  const Rate one = measure(hsmd, key, 1, secs);
  const Rate wide = measure(hsmd, key, width, secs);
  report({{"one_per_s", one.perSecond},
          {"one_mean_us", one.mean},
          {"one_p50_us", one.p50},
          {"one_p99_us", one.p99},
          {"wide_per_s", wide.perSecond},
          {"wide_p99_us", wide.p99},
          {"one_cpu_us", one.cpuMicros},
          {"wide_cpu_us", wide.cpuMicros}});
}
