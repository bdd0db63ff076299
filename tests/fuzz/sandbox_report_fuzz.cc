// Goal: a worker that lies in its report can't put more than bounded, printable text into the monitor's status.
#include "netd/sandbox_report.h"
#include "tests/fuzz/input.h"

using namespace sallyport;

namespace {
void printable(const std::string& text) {
  for (const char c : text) CHECK(static_cast<unsigned char>(c) >= 0x20 && static_cast<unsigned char>(c) != 0x7f);
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto report = netd::decodeReport({reinterpret_cast<const char*>(data), size});
  printable(report.verdict);
  CHECK(report.layers.size() <= 64);
  for (const auto& layer : report.layers) {
    printable(layer.name);
    printable(layer.state);
    printable(layer.detail);
  }
  return 0;
}
