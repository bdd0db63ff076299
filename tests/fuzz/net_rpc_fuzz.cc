// Goal: no bytes of a local program break the worker that serves [net] socket, nor leave anything behind in it; also
// when they come as far as an open channel of the peer protocol and both sides of it send. Method: raw bytes into a
// real Worker: link, libcapnp and the services behind them; a peer that does as it is told.
#include "common/quiet_kj.h"
#include "tests/fuzz/worker_under_test.h"
#include "tests/sim/dice.h"

using namespace sallyport;

namespace {

// Never destroyed: KJ wants the loop to end before the thread does, and a fuzzer ends by exit().
fuzz::WorkerUnderTest& worker() {
  static auto* worker = new fuzz::WorkerUnderTest(netd::ControlKind::NetListener);
  return *worker;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  sim::installDice();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  QuietKj quiet;
  sim::drawnSecrets.clear();
  worker().feed(fuzz::Input(data, size));
  return 0;
}

extern "C" const char* fuzzUnreached() {
  const netd::Stats& stats = worker().stats();
  if (stats.get(netd::Counter::ClientHandshakes) == 0) return "an open channel of the peer protocol";
  if (worker().framesOut() == 0) return "a frame from a program";
  if (worker().framesIn() == 0 || stats.get(netd::Counter::MessagesOpened) == 0) return "a frame to a program";
  if (stats.get(netd::Counter::BytesOpened) < 1'000'000) return "frames that are longer than an answer";
  if (stats.get(wire::DropReason::BadTag) == 0) return "a tag that is wrong";
  if (stats.get(wire::DropReason::BadChecksum) == 0) return "a header that is wrong";
  if (stats.get(wire::DropReason::AfterEnd) == 0) return "a frame behind the end";
  if (stats.get(wire::DropReason::Truncated) == 0) return "an end without an end";
  return nullptr;
}
