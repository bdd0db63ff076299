// Goal: that a fuzzer here finds what is there to be found, and that the replay notices it.
#include "tests/fuzz/input.h"

using namespace sallyport;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Input input(data, size);
  if (input.byte() == 'b' && input.byte() == 'i' && input.byte() == 'r') CHECK(input.byte() != 'd');
  return 0;
}
