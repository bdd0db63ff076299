// load.cc - load generator and sink of the tunnel benchmark: bytes, round trips and connections through any TCP tunnel.
// Part of: tests/bench.
//
//   load bulk SINK_PORT PORT [--conns N] [--down] [--secs S] [--pids P,P]    MiB/s, CPU seconds of the pids per GiB
//   load lat  SINK_PORT PORT [--size BYTES] [--secs S] [--pids P,P]          request/response through one connection
//   load conn SINK_PORT PORT [--conns N] [--secs S] [--pids P,P]             connect, one byte there and back, close
//   load idle SINK_PORT PORT [--conns N]     opens N, says so, holds them until standard input ends, checks them
//   load spin                                keeps every core awake by spinning at SCHED_IDLE
//
// The tunnel listens on 127.0.0.1:PORT and leads to 127.0.0.1:SINK_PORT, where a child of this process serves. A
// connection's first byte says what the sink does: 'E' echoes, 'S' swallows, 'G' generates. The answer is one line of
// JSON.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <memory>

#include "tests/bench/measure.h"

namespace sallyport::bench {
namespace {

constexpr size_t CHUNK = 256 * 1024;
constexpr double WARM_UP_S = 0.3;

struct Options {
  std::string mode;
  uint16_t sinkPort = 0;
  uint16_t port = 0;
  int conns = 1;
  int size = 64;
  double secs = 1.5;
  bool down = false;
  std::vector<int> pids;
};

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "load: error: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

sockaddr_in loopback(uint32_t host, uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(host);
  address.sin_port = htons(port);
  return address;
}

void setOption(int fd, int level, int name) {
  const int one = 1;
  setsockopt(fd, level, name, &one, sizeof one);
}

void watch(int epoll, int operation, int fd, uint32_t events, void* user) {
  epoll_event event{.events = events, .data = {.ptr = user}};
  if (epoll_ctl(epoll, operation, fd, &event) != 0) fail("epoll_ctl");
}

// --- the sink --------------------------------------------------------------------------------------------------------

struct Sunk {
  int fd;
  char kind = 0;
};

// One readiness of a connection. False: it is over.
bool serveOne(Sunk& connection, uint32_t events, std::vector<char>& buffer, std::atomic<uint64_t>& swallowed,
              int epoll) {
  if (connection.kind == 0) {
    const ssize_t got = recv(connection.fd, &connection.kind, 1, 0);
    if (got != 1) return got < 0 && errno == EAGAIN;
    if (connection.kind == 'G') watch(epoll, EPOLL_CTL_MOD, connection.fd, EPOLLIN | EPOLLOUT, &connection);
    return true;
  }
  if (connection.kind == 'G' && (events & EPOLLOUT) != 0) {
    if (send(connection.fd, buffer.data(), CHUNK, MSG_NOSIGNAL) < 0 && errno != EAGAIN) return false;
    if ((events & ~EPOLLOUT) == 0) return true;
  }
  // MSG_TRUNC drops the bytes without copying them.
  const ssize_t got = recv(connection.fd, buffer.data(), CHUNK, connection.kind == 'S' ? MSG_TRUNC : 0);
  if (got == 0 || (got < 0 && errno != EAGAIN)) return false;
  if (got < 0) return true;
  if (connection.kind == 'S') swallowed += static_cast<uint64_t>(got);
  // Echoed texts are far smaller than a socket's buffer.
  return connection.kind != 'E' || send(connection.fd, buffer.data(), static_cast<size_t>(got), MSG_NOSIGNAL) == got;
}

[[noreturn]] void serve(int listener, std::atomic<uint64_t>& swallowed) {
  std::vector<char> buffer(CHUNK);
  const int epoll = epoll_create1(0);
  watch(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, nullptr);
  std::array<epoll_event, 256> events;
  for (;;) {
    const int count = epoll_wait(epoll, events.data(), events.size(), -1);
    for (int i = 0; i < count; ++i) {
      auto* connection = static_cast<Sunk*>(events[static_cast<size_t>(i)].data.ptr);
      if (connection == nullptr) {
        int fd;
        while ((fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK)) >= 0) {
          setOption(fd, IPPROTO_TCP, TCP_NODELAY);
          watch(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, new Sunk{fd});
        }
      } else if (!serveOne(*connection, events[static_cast<size_t>(i)].events, buffer, swallowed, epoll)) {
        close(connection->fd);
        delete connection;
      }
    }
  }
}

// Starts the sink in a child that dies with us; what it swallows is counted in shared memory.
std::atomic<uint64_t>& startSink(uint16_t port) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  setOption(listener, SOL_SOCKET, SO_REUSEADDR);
  const sockaddr_in address = loopback(INADDR_LOOPBACK, port);
  if (bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 || listen(listener, 4096) != 0)
    fail("the sink's port");
  void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) fail("mmap");
  auto* swallowed = new (page) std::atomic<uint64_t>(0);
  const pid_t child = fork();
  if (child < 0) fail("fork");
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    serve(listener, *swallowed);
  }
  close(listener);
  return *swallowed;
}

// --- the client ------------------------------------------------------------------------------------------------------

int startConnecting(const Options& options, int flags) {
  static uint32_t source = 0;
  const int fd = socket(AF_INET, SOCK_STREAM | flags, 0);
  if (fd < 0) fail("socket");
  setOption(fd, IPPROTO_TCP, TCP_NODELAY);
  // Many source addresses, so that ports don't run out.
  setOption(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT);
  const sockaddr_in from = loopback(0x7f010002 + source++ % 200, 0);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&from), sizeof from) != 0) fail("bind");
  const sockaddr_in to = loopback(INADDR_LOOPBACK, options.port);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0 && errno != EINPROGRESS) fail("connect");
  return fd;
}

void sendWhole(int fd, const char* bytes, size_t count) {
  if (send(fd, bytes, count, MSG_NOSIGNAL) != static_cast<ssize_t>(count)) fail("send");
}

// A blocking connection on which one byte has gone there and back.
int connectAndAsk(const Options& options) {
  const int fd = startConnecting(options, 0);
  const timeval patience{10, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  char answer = 0;
  sendWhole(fd, "Ex", 2);
  if (recv(fd, &answer, 1, 0) != 1 || answer != 'x') fail("no echo through the tunnel");
  return fd;
}

void bulk(const Options& options) {
  std::atomic<uint64_t>& swallowed = startSink(options.sinkPort);
  uint64_t received = 0;
  const int epoll = epoll_create1(0);
  std::vector<char> buffer(CHUNK);
  for (int i = 0; i < options.conns; ++i) {
    const int fd = startConnecting(options, 0);
    sendWhole(fd, options.down ? "G" : "S", 1);
    const uint32_t wanted = options.down ? EPOLLIN : EPOLLIN | EPOLLOUT;
    watch(epoll, EPOLL_CTL_ADD, fd, wanted, reinterpret_cast<void*>(static_cast<intptr_t>(fd)));
  }
  const double start = now() + WARM_UP_S;
  double began = 0;
  uint64_t before = 0;
  double cpuBefore = 0;
  std::array<epoll_event, 64> events;
  const auto moved = [&] { return options.down ? received : swallowed.load(); };
  for (;;) {
    const double time = now();
    if (began == 0 && time >= start) {
      before = moved();
      cpuBefore = cpuSeconds(options.pids);
      began = time;
    }
    if (began != 0 && time >= began + options.secs) break;
    const int count = epoll_wait(epoll, events.data(), events.size(), 20);
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events[static_cast<size_t>(i)];
      const int fd = static_cast<int>(reinterpret_cast<intptr_t>(event.data.ptr));
      const ssize_t got = options.down ? recv(fd, buffer.data(), CHUNK, MSG_DONTWAIT | MSG_TRUNC)
                                       : send(fd, buffer.data(), CHUNK, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (got == 0 || (got < 0 && errno != EAGAIN)) fail("the tunnel broke");
      if (options.down && got > 0) received += static_cast<uint64_t>(got);
    }
  }
  const double seconds = now() - began;
  const double gib = static_cast<double>(moved() - before) / (1 << 30);
  report({{"mib_per_s", gib * 1024 / seconds},
          {"cpu_s_per_gib", gib > 0 ? (cpuSeconds(options.pids) - cpuBefore) / gib : 0}});
}

void latency(const Options& options) {
  startSink(options.sinkPort);
  const int fd = connectAndAsk(options);
  std::vector<char> buffer(static_cast<size_t>(options.size));
  std::vector<double> micros;
  micros.reserve(1 << 18);
  const double start = now() + WARM_UP_S;
  double cpuBefore = 0;
  double began = 0;
  for (;;) {
    const double asked = now();
    if (began == 0 && asked >= start) {
      micros.clear();
      cpuBefore = cpuSeconds(options.pids);
      began = now();
      continue;
    }
    if (began != 0 && asked >= began + options.secs) break;
    sendWhole(fd, buffer.data(), buffer.size());
    if (recv(fd, buffer.data(), buffer.size(), MSG_WAITALL) != static_cast<ssize_t>(buffer.size())) fail("recv");
    micros.push_back((now() - asked) * 1e6);
  }
  const double count = static_cast<double>(micros.size());
  const double cpu = cpuSeconds(options.pids) - cpuBefore;
  report({{"p50_us", percentile(micros, 0.5)}, {"p99_us", percentile(micros, 0.99)}, {"cpu_us", cpu * 1e6 / count}});
}

struct Attempt {
  int fd = -1;
  double since = 0;
  bool asked = false;
};

void connections(const Options& options) {
  startSink(options.sinkPort);
  const int epoll = epoll_create1(0);
  std::vector<Attempt> attempts(static_cast<size_t>(options.conns));
  uint64_t done = 0;
  uint64_t failed = 0;
  std::vector<double> micros;
  const auto launch = [&](Attempt& attempt) {
    attempt = {startConnecting(options, SOCK_NONBLOCK), now(), false};
    watch(epoll, EPOLL_CTL_ADD, attempt.fd, EPOLLOUT, &attempt);
  };
  for (Attempt& attempt : attempts) launch(attempt);
  const double start = now() + WARM_UP_S;
  double began = 0;
  double cpuBefore = 0;
  std::array<epoll_event, 256> events;
  for (;;) {
    const double time = now();
    if (began == 0 && time >= start) {
      done = failed = 0;
      micros.clear();
      cpuBefore = cpuSeconds(options.pids);
      began = time;
    }
    if (began != 0 && time >= began + options.secs) break;
    const int count = epoll_wait(epoll, events.data(), events.size(), 20);
    for (int i = 0; i < count; ++i) {
      auto& attempt = *static_cast<Attempt*>(events[static_cast<size_t>(i)].data.ptr);
      if (!attempt.asked) {
        attempt.asked = send(attempt.fd, "Ex", 2, MSG_NOSIGNAL) == 2;
        if (attempt.asked) {
          watch(epoll, EPOLL_CTL_MOD, attempt.fd, EPOLLIN, &attempt);
          continue;
        }
      }
      char answer = 0;
      const bool ok = attempt.asked && recv(attempt.fd, &answer, 1, 0) == 1;
      ++(ok ? done : failed);
      if (ok) micros.push_back((now() - attempt.since) * 1e6);
      close(attempt.fd);
      launch(attempt);
    }
    for (Attempt& attempt : attempts) {
      if (time < attempt.since + 5) continue;
      ++failed;
      close(attempt.fd);
      launch(attempt);
    }
  }
  const double seconds = now() - began;
  const double cpu = cpuSeconds(options.pids) - cpuBefore;
  report({{"per_s", static_cast<double>(done) / seconds},
          {"cpu_ms", done > 0 ? cpu * 1e3 / static_cast<double>(done) : 0},
          {"p50_us", percentile(micros, 0.5)},
          {"p99_us", percentile(micros, 0.99)},
          {"failed", static_cast<double>(failed)}});
}

void idle(const Options& options) {
  startSink(options.sinkPort);
  std::vector<int> open;
  const double limit = now() + 60;
  while (static_cast<int>(open.size()) < options.conns && now() < limit) open.push_back(connectAndAsk(options));
  report({{"open", static_cast<double>(open.size())}});
  while (getchar() != EOF) {}
  for (const int fd : open) {
    char answer = 0;
    sendWhole(fd, "y", 1);
    if (recv(fd, &answer, 1, 0) != 1 || answer != 'y') fail("an idle connection is dead");
  }
}

[[noreturn]] void spin() {
  // The kernel schedules a session as a group; SCHED_IDLE yields within its own alone, so the group steps back as well.
  setsid();
  if (FILE* group = std::fopen("/proc/self/autogroup", "w")) {
    std::fputs("19", group);
    std::fclose(group);
  }
  const sched_param parameters{};
  sched_setscheduler(0, SCHED_IDLE, &parameters);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  for (long core = 1; core < sysconf(_SC_NPROCESSORS_ONLN); ++core) {
    if (fork() == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      break;
    }
  }
  for (;;) asm volatile("");
}

int run(int argc, char** argv) {
  Options options;
  if (argc > 1) options.mode = argv[1];
  if (options.mode == "spin") spin();
  if (argc < 4) return std::fputs("usage: see the top of tests/bench/load.cc\n", stderr), 2;
  options.sinkPort = static_cast<uint16_t>(std::atoi(argv[2]));
  options.port = static_cast<uint16_t>(std::atoi(argv[3]));
  for (int i = 4; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--down") {
      options.down = true;
      continue;
    }
    const char* value = i + 1 < argc ? argv[++i] : "";
    if (name == "--conns") options.conns = std::atoi(value);
    if (name == "--size") options.size = std::atoi(value);
    if (name == "--secs") options.secs = std::atof(value);
    if (name == "--pids") options.pids = parsePids(value);
  }
  rlimit files{};
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if (options.mode == "bulk") return bulk(options), 0;
  if (options.mode == "lat") return latency(options), 0;
  if (options.mode == "conn") return connections(options), 0;
  if (options.mode == "idle") return idle(options), 0;
  return std::fputs("load: error: unknown mode\n", stderr), 2;
}

}  // namespace
}  // namespace sallyport::bench

int main(int argc, char** argv) { return sallyport::bench::run(argc, argv); }
