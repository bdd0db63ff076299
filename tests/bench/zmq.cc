// zmq.cc - messages pushed through CurveZMQ, and through ZeroMQ without cryptography: what to hold a channel's figures
// against. Part of: tests/bench.
//
//   zmq curve|null PORT [--size BYTES] [--secs S]
//
// A child pulls at 127.0.0.1:PORT and counts, this process pushes. The answer is one line of JSON. Both are libraries
// inside their programs: no third process carries the messages, as netd does for ours.
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <zmq.h>

#include <array>
#include <atomic>
#include <cstdint>

#include "tests/bench/measure.h"

namespace sallyport::bench {
namespace {

constexpr double WARM_UP_S = 0.5;
constexpr int QUEUED = 10000;
constexpr int CLOCK_EVERY = 256;

void require(bool done, const char* what) {
  if (done) return;
  std::fprintf(stderr, "zmq: error: %s: %s\n", what, zmq_strerror(zmq_errno()));
  std::_Exit(1);
}

void set(void* socket, int option, int value) {
  require(zmq_setsockopt(socket, option, &value, sizeof value) == 0, "zmq_setsockopt");
}

struct KeyPair {
  std::array<char, 41> publicKey{};
  std::array<char, 41> secretKey{};
  void make() { require(zmq_curve_keypair(publicKey.data(), secretKey.data()) == 0, "this libzmq has no CURVE"); }
  void use(void* socket) const {
    zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, publicKey.data(), publicKey.size());
    zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, secretKey.data(), secretKey.size());
  }
};

struct Keys {
  bool used = false;
  KeyPair server;
  KeyPair client;
};

[[noreturn]] void pull(const Keys& keys, const std::string& address, std::atomic<uint64_t>& received) {
  void* socket = zmq_socket(zmq_ctx_new(), ZMQ_PULL);
  if (keys.used) {
    set(socket, ZMQ_CURVE_SERVER, 1);
    keys.server.use(socket);
  }
  set(socket, ZMQ_RCVHWM, QUEUED);
  require(zmq_bind(socket, address.c_str()) == 0, "zmq_bind");
  zmq_msg_t message;
  zmq_msg_init(&message);
  while (zmq_msg_recv(&message, socket, 0) >= 0) ++received;
  std::_Exit(0);
}

double cpuSecondsOfBoth(pid_t child) { return cpuSeconds({getpid(), child}); }

void push(const Keys& keys, const std::string& address, size_t size, double secs, pid_t child,
          const std::atomic<uint64_t>& received) {
  void* socket = zmq_socket(zmq_ctx_new(), ZMQ_PUSH);
  if (keys.used) {
    zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, keys.server.publicKey.data(), keys.server.publicKey.size());
    keys.client.use(socket);
  }
  set(socket, ZMQ_SNDHWM, QUEUED);
  set(socket, ZMQ_SNDTIMEO, 5000);
  require(zmq_connect(socket, address.c_str()) == 0, "zmq_connect");
  const std::vector<char> text(size, 'x');
  const auto pushUntil = [&](double end) {
    do {
      for (int i = 0; i < CLOCK_EVERY; ++i) require(zmq_send(socket, text.data(), size, 0) >= 0, "zmq_send");
    } while (now() < end);
  };
  pushUntil(now() + WARM_UP_S);
  const double began = now();
  const uint64_t before = received;
  const double cpuBefore = cpuSecondsOfBoth(child);
  pushUntil(began + secs);
  const double count = static_cast<double>(received - before);
  report({{"per_s", count / (now() - began)},
          {"cpu_us", count > 0 ? (cpuSecondsOfBoth(child) - cpuBefore) * 1e6 / count : 0}});
}

int run(int argc, char** argv) {
  if (argc < 3) return std::fputs("usage: see the top of tests/bench/zmq.cc\n", stderr), 2;
  Keys keys{.used = std::strcmp(argv[1], "curve") == 0, .server = {}, .client = {}};
  if (keys.used) {
    keys.server.make();
    keys.client.make();
  }
  const std::string address = std::string("tcp://127.0.0.1:") + argv[2];
  size_t size = 64;
  double secs = 1.5;
  for (int i = 3; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (name == "--size") size = std::strtoul(argv[i + 1], nullptr, 10);
    if (name == "--secs") secs = std::atof(argv[i + 1]);
  }
  void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  require(page != MAP_FAILED, "mmap");
  auto* received = new (page) std::atomic<uint64_t>(0);
  const pid_t child = fork();
  require(child >= 0, "fork");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pull(keys, address, *received);
  }
  push(keys, address, size, secs, child, *received);
  kill(child, SIGKILL);
  std::_Exit(0);  // what is still queued is nobody's
}

}  // namespace
}  // namespace sallyport::bench

int main(int argc, char** argv) { return sallyport::bench::run(argc, argv); }
