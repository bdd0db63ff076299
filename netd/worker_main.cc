// worker_main.cc - netd-worker: the process that parses network bytes. Started by the netd monitor only.
// Inherits a control socket and its statistics page; everything else is handed to it after lock-down. Never here: a
// long-term secret, a path, a socket of its own making.
#include <malloc.h>
#include <signal.h>
#include <sodium.h>
#include <sys/prctl.h>

#include <cstdio>
#include <cstring>
#include <optional>

#include <kj/exception.h>

#include "common/event_loop.h"
#include "common/log.h"
#include "common/quiet_kj.h"
#include "netd/sandbox_report.h"
#include "netd/worker.h"
#include "sandbox/sandbox.h"

namespace sallyport::netd {
namespace {

// argv[1]: "full", "available" or "none", as the configuration says.
std::optional<SandboxRequirement> parseRequirement(std::string_view text) {
  if (text == "full") return SandboxRequirement::Full;
  if (text == "available") return SandboxRequirement::Available;
  if (text == "none") return SandboxRequirement::None;
  return std::nullopt;
}

// Batches of messages are megabytes that come and go: pages that the kernel takes back and clears again for each cost
// more than the cryptography. So much may stay with a worker that has been busy.
constexpr int KEPT_HEAP_BYTES = 4 << 20;

void keepSomeHeap() {
  mallopt(M_MMAP_THRESHOLD, KEPT_HEAP_BYTES);
  mallopt(M_TRIM_THRESHOLD, KEPT_HEAP_BYTES);
}

int run(SandboxRequirement requirement) {
  keepSomeHeap();
  startLog("netd-worker");
  prctl(PR_SET_NAME, "netd-worker");  // run by descriptor, it would be called by a number
  EventLoop loop;
  Stats& stats = Stats::map(WORKER_STATS_FD);
  // The monitor decides when a worker ends; a terminal's Ctrl-C is not for it.
  SignalWatcher signals(loop, {SIGINT, SIGTERM, SIGHUP, SIGPIPE}, [](int) {});
  Worker worker(loop, WORKER_CONTROL_FD, stats);

  sandbox::Options options;
  options.profile = sandbox::Profile::NetdWorker;
  options.requirement = requirement;
  sandbox::Sandbox sandbox(options);
  auto report = sandbox.lockDown();
  if (!report) {
    logError(report.error().message);
    if (!report.error().hint.empty()) logError("hint: " + report.error().hint);
    return 1;
  }
  worker.announce(encodeReport(*report));
  loop.run();
  return 0;
}

}  // namespace
}  // namespace sallyport::netd

int main(int argc, char** argv) {
  using namespace sallyport;
  QuietKj quiet;
  const auto requirement = argc == 2 ? netd::parseRequirement(argv[1]) : std::nullopt;
  if (!requirement) {
    std::fprintf(stderr, "netd-worker is started by netd; see netd(8)\n");
    return 2;
  }
  if (sodium_init() < 0) return 1;
  try {
    return netd::run(*requirement);
  } catch (const kj::Exception& e) {
    logError(sanitized(std::string(e.getDescription().cStr())));
    return 1;
  } catch (const std::exception& e) {
    logError(sanitized(e.what()));
    return 1;
  }
}
