// vectors.h - the known answers of tests/vectors/curve_tun.json, for the tests of proto/wire and of netd.
#pragma once

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "common/bytes.h"

namespace sallyport::test {

inline std::vector<std::byte> hex(std::string_view text) {
  auto bytes = fromHex(text);
  CHECK(bytes.has_value());
  return *bytes;
}

inline const std::string& vectorFile() {
  static const std::string TEXT = [] {
    std::ifstream in(SALLYPORT_VECTORS "/curve_tun.json", std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    CHECK(!text.str().empty());
    return text.str();
  }();
  return TEXT;
}

// The first text called `name` at or after `from`: the file is flat enough for that. `mark` begins a value.
inline std::string vectorText(const std::string& name, size_t from = 0, std::string_view mark = "\"") {
  const std::string key = "\"" + name + "\": " + std::string(mark);
  size_t begin = vectorFile().find(key, from);
  CHECK(begin != std::string::npos);
  begin += key.size();
  return vectorFile().substr(begin, vectorFile().find_first_of("\",\n}", begin) - begin);
}
inline std::vector<std::byte> vector(const std::string& name) { return hex(vectorText(name)); }

struct MessageVector {
  bool fromClient;
  uint64_t counter;
  std::vector<std::byte> text, packet, frame;
};
inline std::vector<MessageVector> messageVectors() {
  std::vector<MessageVector> result;
  static const std::string MARK = "\"side\": ";
  for (size_t at = vectorFile().find(MARK); at != std::string::npos; at = vectorFile().find(MARK, at + 1)) {
    result.push_back({vectorText("side", at) == "client", std::stoull(vectorText("counter", at, "")),
                      hex(vectorText("text", at)), hex(vectorText("packet", at)), hex(vectorText("frame", at))});
  }
  CHECK(result.size() >= 5);
  return result;
}

inline std::vector<std::byte> vec(ByteSpan bytes) { return {bytes.begin(), bytes.end()}; }
inline std::string text(ByteSpan bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// The points of order 1, 2, 4 and 8, and their non-canonical spellings (libsodium's and RFC 7748's list).
inline constexpr const char* LOW_ORDER_POINTS[] = {"0000000000000000000000000000000000000000000000000000000000000000",
                                                   "0100000000000000000000000000000000000000000000000000000000000000",
                                                   "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
                                                   "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
                                                   "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
                                                   "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
                                                   "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"};

}  // namespace sallyport::test
