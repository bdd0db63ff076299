// Goal: no bytes of a local program break the worker that serves [net] socket, nor leave anything behind in it.
// Method: raw bytes into a real Worker: link, libcapnp and the services behind them.
#include "common/quiet_kj.h"
#include "tests/fuzz/worker_under_test.h"
#include "tests/sim/dice.h"

using namespace sallyport;

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  sim::installDice();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  QuietKj quiet;
  // Never destroyed: KJ wants the loop to end before the thread does, and a fuzzer ends by exit().
  static auto* worker = new fuzz::WorkerUnderTest(netd::ControlKind::NetListener);
  sim::drawnSecrets.clear();
  worker->feed(fuzz::Input(data, size));
  return 0;
}
