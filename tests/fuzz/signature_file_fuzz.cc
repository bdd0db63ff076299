// Goal: a signature file is read by the letter: what is taken is written again as the same text.
#include "proto/file/signature_file.h"
#include "tests/fuzz/input.h"

using namespace sallyport;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto parsed = file::parseSignature(text);
  if (parsed) CHECK(file::writeSignature(*parsed) == text);
  return 0;
}
