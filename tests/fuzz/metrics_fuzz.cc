// Goal: no request to the metrics page breaks the worker that serves it.
#include "common/quiet_kj.h"
#include "tests/fuzz/worker_under_test.h"

using namespace sallyport;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  QuietKj quiet;
  static auto* worker = new fuzz::WorkerUnderTest(netd::ControlKind::MetricsListener);
  worker->feed(fuzz::Input(data, size));
  return 0;
}
